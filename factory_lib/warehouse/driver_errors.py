"""What clickhouse-connect raises, as our errors."""

from __future__ import annotations

from factory_lib.errors import EngineError
from factory_lib.warehouse.results import ConnectionLost, engine_error

_NOT_SENT = {"NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "ConnectionRefusedError"}


def translated(error: Exception, where: str) -> EngineError:
    """The engine's own error with its code, or how the way to it failed.

    Args:
        error: from clickhouse-connect.
        where: the engine, for the message ("The ClickHouse server at …").
    """
    text = str(error)
    if "The engine is stopping: the statement was not begun" in text:
        return ConnectionLost(f"{where} is stopping.", "Try again.", sent=False)
    if "Code: " in text and "DB::Exception" in text:
        return engine_error(text)
    names = set()
    cause: BaseException | None = error
    while cause is not None:
        names.add(type(cause).__name__)
        cause = cause.__cause__  # not the context: what a caller was handling says nothing of this call
    if names & _NOT_SENT:
        return ConnectionLost(f"{where} cannot be reached.", "Is it running, and is the address right?", sent=False)
    if "OperationalError" in names:
        return ConnectionLost(f"{where} closed the connection before it answered.", "See its log.", sent=True)
    return EngineError(f"{where}: {next(iter(text.splitlines()), type(error).__name__)[:500]}")
