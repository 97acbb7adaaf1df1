"""What a process is at: which sample of which task, by which signal, and until when it may take.

A worker writes it into memory that it shares with the process that gave it the work, which so knows, when the worker
dies or never answers, what it was at; also when the worker's own threads no longer run. A process that computes itself
interrupts itself.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal as signals_of_the_system
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

SETUP = -1
"""Number of the task that setting a signal up is."""

SETUP_SHARE = 10
"""A `setup()` may take so many times as long as a call: it may have to download a model."""

_CALL = struct.Struct("=qqqqdd")
_NUMBER = struct.Struct("=q")
_BODY = _NUMBER.size
_TAIL = _BODY + _CALL.size
_TAKEN = _TAIL + _NUMBER.size
SLOT_BYTES = _TAKEN + _NUMBER.size
"""A call stands between two numbers, which are the same when it is whole; behind it the task that was taken."""

_POLL_SECONDS = 0.5
_PATIENCE_SECONDS = 10.0
_log = logging.getLogger(__name__)


class SignalTimeout(BaseException):
    """A signal did not return in time. No `Exception`: the code of a signal does not catch it by accident."""


@dataclass(frozen=True)
class CallInProgress:
    """One call of a signal.

    Attributes:
        task: number of the task, `SETUP` for a `setup()`.
        signal: number of the signal.
        first, last: the rows of the task that it is about, `last` excluded; several for a batch.
        limit: seconds that it may take.
        deadline: when they are over, by `time.monotonic()`, which all processes of a machine share.
    """

    task: int
    signal: int
    first: int
    last: int
    limit: float
    deadline: float

    @property
    def overdue(self) -> bool:
        """Whether it should have returned by now."""
        return time.monotonic() > self.deadline


class ProgressSlot:
    """Where a process says what it is at.

    Args:
        buffer: `SLOT_BYTES` of memory, zeros at first; shared with another process or not.
    """

    def __init__(self, buffer: Any = None) -> None:
        self._buffer = bytearray(SLOT_BYTES) if buffer is None else buffer
        self._writes = 0
        self.task = 0

    def begin(self, signal: int, first: int, last: int, limit: float) -> None:
        """A call begins, and with it the time that it may take."""
        self._write(self.task, signal, first, last, limit, time.monotonic() + limit)

    def end(self) -> None:
        """No call is under way."""
        self._write(0, 0, 0, 0, math.inf, math.inf)

    def take(self, task: int) -> None:
        """A task was received: from now on the process may be reading what its rows point at."""
        _NUMBER.pack_into(self._buffer, _TAKEN, task)

    @property
    def call(self) -> CallInProgress | None:
        """The call that is under way; None also while it is being written."""
        # Read in the other order than written: what changes meanwhile changes the head first.
        tail = _NUMBER.unpack_from(self._buffer, _TAIL)
        found = CallInProgress(*_CALL.unpack_from(self._buffer, _BODY))
        head = _NUMBER.unpack_from(self._buffer, 0)
        return found if found.task and head == tail else None

    @property
    def taken(self) -> int:
        """The task that was received last."""
        return int(_NUMBER.unpack_from(self._buffer, _TAKEN)[0])

    def _write(self, *call: float) -> None:
        self._writes += 1
        _NUMBER.pack_into(self._buffer, 0, self._writes)
        # `pack_into` would empty the place first, and a call without a deadline looks overdue.
        self._buffer[_BODY:_TAIL] = _CALL.pack(*call)
        _NUMBER.pack_into(self._buffer, _TAIL, self._writes)


def timeout_text(name: str, limit: float) -> str:
    """The error of a sample whose signal did not return."""
    return f"SignalTimeout: {name} had not returned after {limit:g} s"


@contextlib.contextmanager
def interrupted_when_overdue(slot: ProgressSlot) -> Iterator[None]:
    """Raise `SignalTimeout` in the main thread when a call that it makes meanwhile takes longer than it may.

    Python code, and C code that lets signals through (`time.sleep`, `re`, sockets), is interrupted; what cannot be is
    named in the log, for another process could have been ended.
    """
    over = threading.Event()
    thread = threading.get_ident()
    main = threading.current_thread() is threading.main_thread()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        call = slot.call
        if call is not None and call.overdue:
            raise SignalTimeout

    def watch() -> None:
        told: CallInProgress | None = None
        while not over.wait(_POLL_SECONDS):
            call = slot.call
            if call is None or not call.overdue:
                continue
            if main:
                signals_of_the_system.pthread_kill(thread, signals_of_the_system.SIGVTALRM)
            if call != told and time.monotonic() > call.deadline + _PATIENCE_SECONDS:
                told = call
                _log.warning(
                    "A signal has been at row %d of its task for more than %g s and cannot be interrupted in this"
                    " process. Computed by processes of their own (FACTORY_WORKERS=2), it is ended.",
                    call.first,
                    call.limit,
                )

    before = signals_of_the_system.signal(signals_of_the_system.SIGVTALRM, interrupt) if main else None
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        slot.end()
        over.set()
        watcher.join()
        if main:
            signals_of_the_system.signal(
                signals_of_the_system.SIGVTALRM, before if before is not None else signals_of_the_system.SIG_DFL
            )
