"""What a process says that it is at is read whole by another, however they fall in each other's way."""

from __future__ import annotations

import math
import mmap
import multiprocessing
import tempfile
import time

from factory_lib.compute.watching import SLOT_BYTES, ProgressSlot

SECONDS = 0.6


def _write(path: str) -> None:
    with open(path, "r+b") as shared:
        slot = ProgressSlot(mmap.mmap(shared.fileno(), SLOT_BYTES))
        until = time.monotonic() + SECONDS
        number = 0
        while time.monotonic() < until:
            number += 1
            slot.task = number
            slot.begin(number, number, number + 1, 3600.0)
            slot.end()


def test_a_call_is_read_whole_or_not_at_all() -> None:
    with tempfile.NamedTemporaryFile() as shared:
        shared.truncate(SLOT_BYTES)
        slot = ProgressSlot(mmap.mmap(shared.fileno(), SLOT_BYTES))
        writer = multiprocessing.get_context("spawn").Process(target=_write, args=(shared.name,))
        writer.start()
        seen = 0
        while writer.is_alive():
            call = slot.call
            if call is not None:
                seen += 1
                assert (call.signal, call.first, call.last) == (call.task, call.task, call.task + 1)
                assert call.limit == 3600.0
                assert not call.overdue
        writer.join()
        assert (writer.exitcode, seen > 0) == (0, True)
    assert slot.call is None  # the last one has ended


def test_a_call_that_is_cut_off_while_it_is_written_is_none() -> None:
    memory = bytearray(SLOT_BYTES)
    slot = ProgressSlot(memory)
    slot.task = 7
    slot.begin(1, 2, 3, math.inf)
    call = slot.call
    assert call is not None
    assert (call.task, call.signal, call.first, call.last, call.limit) == (7, 1, 2, 3, math.inf)
    whole = bytes(memory)
    slot.begin(1, 3, 4, 1.0)
    torn = memory[: SLOT_BYTES // 2] + whole[SLOT_BYTES // 2 :]
    assert ProgressSlot(bytearray(torn)).call is None
