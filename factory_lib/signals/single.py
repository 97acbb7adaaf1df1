"""`signal.one(…)`: the value of one sample, computed now, errors raised."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from factory_lib.errors import FactoryError, SignalError
from factory_lib.signals.inputs import Input
from factory_lib.signals.member import Member, silent_decoding
from factory_lib.signals.outputs import Vector
from factory_lib.signals.task import describe
from factory_lib.signals.use import using

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal


def compute_one(signal: Signal, values: tuple[Any, ...]) -> Any:
    """What `Signal.one` says."""
    if len(values) != len(signal.inputs):
        wanted = ", ".join(given.parameter for given in signal.inputs)
        raise SignalError(
            f"Signal {signal.name!r} takes {len(signal.inputs)} value(s), {len(values)} given.", f"Give: {wanted}."
        )
    given = [_given(signal, wanted, value) for wanted, value in zip(signal.inputs, values, strict=True)]
    with using(signal):
        return _computed(signal, given)


def _computed(signal: Signal, given: list[Any]) -> Any:
    call = signal.ready()
    try:
        with silent_decoding():
            ready = [_converted(signal, wanted, value) for wanted, value in zip(signal.inputs, given, strict=True)]
            if not signal.batch:
                value = call(*ready)
            elif (prepare := getattr(call, "prepare", None)) is not None:
                value = call([prepare(*ready)])[0]
            else:
                returned = call(*map(_batch_of_one, signal.inputs, ready))
                value = (returned.to_pylist() if isinstance(returned, pa.Array) else returned)[0]
        if isinstance(value, Exception):
            raise value
        array = signal.output.array([value])
    except FactoryError:
        raise
    except Exception as error:
        raise SignalError(f"Signal {signal.name!r} failed: {describe(error)}") from error
    if isinstance(signal.output, Vector) and value is not None:
        return array.values.to_numpy()
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value


def _given(signal: Signal, wanted: Input, value: Any) -> Any:
    """The value itself, or the member that a path, bytes or a picture stands for."""
    if wanted.kind == "value":
        return value
    if isinstance(value, Member):
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return Member(bytes(value))
    if isinstance(value, str | Path):
        return Member(_read(signal, value))
    if hasattr(value, "convert") and hasattr(value, "size"):
        if wanted.kind == "bytes":
            raise SignalError(
                f"Signal {signal.name!r} needs the bytes of {wanted.parameter!r}, not a picture.",
                "Give a path or bytes.",
            )
        return Member(b"", picture=value)
    raise SignalError(
        f"Signal {signal.name!r}: {wanted.parameter!r} cannot be a {type(value).__name__}.",
        "Give a path, bytes or a PIL picture.",
    )


def _converted(signal: Signal, wanted: Input, given: Any) -> Any:
    if wanted.kind in {"value", "member"}:
        return given
    return given.data if wanted.kind == "bytes" else given.picture(signal.truncated)


def _batch_of_one(wanted: Input, value: Any) -> Any:
    """What a function of batches gets: a list, or a column where it asks for one."""
    if wanted.form == "python":
        return [value]
    return pa.array([value]) if wanted.form == "arrow" else np.asarray([value])


def _read(signal: Signal, path: str | Path) -> bytes:
    local = Path(path)
    if "://" not in str(path):
        try:
            return local.expanduser().read_bytes()
        except OSError as error:
            raise SignalError(
                f"Signal {signal.name!r} cannot read {str(path)!r}: {error.strerror or error}.",
                "Give a path relative to the working directory, an absolute one, or a URI such as s3://bucket/key.",
            ) from None
    from factory_lib.storage.store import store

    return store().read(str(path))
