"""Where a dataset is: which epoch the next iteration goes through, and from where.

The process that trains keeps this itself. Workers of a `DataLoader` around the dataset are harder: each iterates a
copy, nobody tells them which iteration it is, and persistent ones are never told of `set_epoch`. So what was asked for
lies in memory that they share, with one number that says which epoch their last iteration went through and what it was:
the first worker of a new iteration writes it, the others find it and join. One row for each process that trains,
because a dataset may have been forked or sent to several ranks.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, Literal

import torch

from factory_lib.errors import LoaderError

EarlyEnd = Literal["next", "continue"]

ROWS = 1024
_PROCESS, _ASKS, _EPOCH, _FIRST, _CHOSEN, _RECORD = range(6)
_NONE = -1

Left = Callable[[int], int]
"""Batches that an epoch has from a position on."""


@dataclass(frozen=True)
class _Record:
    """An iteration as the processes agree on it; one number of 64 bits, so that nobody reads half of one.

    Attributes:
        asks: how often a position was asked for before it, modulo 4096.
        opening: whether it is the first one since then, which starts where that says.
        epoch: that it goes through.
        token: tells it from other iterations, 26 bits.
    """

    asks: int
    opening: bool
    epoch: int
    token: int

    @property
    def packed(self) -> int:
        return self.asks << 51 | int(self.opening) << 50 | self.epoch << 26 | self.token

    @staticmethod
    def of(number: int) -> _Record | None:
        if number == _NONE:
            return None
        return _Record(number >> 51, bool(number >> 50 & 1), number >> 26 & 0xFFFFFF, number & 0x3FFFFFF)


class Position:
    """Where a dataset is.

    Args:
        early_end: what follows an iteration that ended early: ``"next"``, the next epoch, or ``"continue"``, the rest
            of the same one.

    Attributes:
        epoch, first: where the current iteration began; before one did, where it will.
        delivered: position up to which rows were delivered.
        begun: whether an iteration has begun since a position was asked for.
    """

    def __init__(self, early_end: EarlyEnd = "next") -> None:
        self.early_end = early_end
        self.epoch = self.first = self.delivered = 0
        self.begun = False
        self._chosen = False  # whether the epoch was said after the position was
        self._asks = 0
        self._turns = 0  # iterations that began in this process
        self._shared = torch.full((ROWS, 6), _NONE, dtype=torch.int64)
        self._shared.share_memory_()  # type: ignore[no-untyped-call]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self._shared.is_shared():  # type: ignore[no-untyped-call]  # a copy: nobody else has its memory
            self._shared.share_memory_()  # type: ignore[no-untyped-call]

    def ask(self, epoch: int, first: int = 0, *, chosen: bool = False) -> None:
        """Let the next iteration go through an epoch from a position on."""
        self.epoch, self.first, self.delivered, self.begun = epoch, first, first, False
        self._chosen = chosen
        self._asks = (self._asks + 1) % 4096
        self._tell(_NONE)

    def choose(self, epoch: int) -> None:
        """Let the next iteration go through an epoch; one that was resumed, and not begun yet, keeps its position."""
        self.follow()
        self.ask(epoch, self.first if epoch == self.epoch and not self.begun else 0, chosen=True)

    def next(self, left: Left) -> tuple[int, int]:
        """Epoch and position at which the next iteration starts.

        A resumed epoch of which nothing is left is over, unless it was chosen: who counts epochs gets nothing of it.
        """
        self.follow()
        if not self.begun:
            return self._opening(left)
        if self.early_end == "continue" and self.delivered and left(self.delivered):
            return self.epoch, self.delivered
        return self.epoch + 1, 0

    def begin(self, epoch: int, first: int) -> None:
        """An iteration delivers its first batch in this process."""
        self.epoch, self.first, self.delivered, self.begun = epoch, first, first, True
        self._tell(_Record(self._asks, False, epoch, 0).packed)

    @property
    def elsewhere(self) -> bool:
        """Whether a DataLoader's workers iterated last, so that what was delivered is unknown here."""
        found = self._theirs()
        return found is not None and found.token != 0

    def follow(self) -> None:
        """Take over which epoch a DataLoader's workers went through."""
        found = self._theirs()
        if found is not None and found.token:
            self.first = int(self._shared[os.getpid() % ROWS][_FIRST]) if found.opening else 0
            self.epoch, self.delivered, self.begun = found.epoch, 0, True

    def join(self, left: Left, resumed: int | None = None) -> tuple[int, int]:
        """In a DataLoader's worker: epoch and position of the iteration that begins there.

        Args:
            resumed: the epoch, where this worker was given the state of one.

        Raises:
            LoaderError: the iteration is to go on where the last one stopped, which only the DataLoader knows.
        """
        self._turns += 1
        parent = multiprocessing.parent_process()
        row = self._row(os.getpid() if parent is None else int(parent.pid or 0))
        token = _token(self._turns)
        found = _Record.of(int(row[_RECORD]))
        asks = int(row[_ASKS])
        self.epoch, self.first, self._chosen = int(row[_EPOCH]), int(row[_FIRST]), bool(row[_CHOSEN])
        opening = found is None or found.asks != asks
        if resumed is not None:
            now = _Record(asks, False, resumed, token)
        elif opening:
            epoch, first = self._opening(left)
            now = _Record(asks, epoch == self.epoch and first == self.first, epoch, token)
        elif found is not None and found.token == token:
            now = found
        elif self.early_end == "continue":
            raise LoaderError(
                'early_end="continue" needs to know what was delivered, and the workers of this DataLoader read ahead.',
                "Give num_workers to to_torch() and leave it 0 in the DataLoader.",
            )
        else:
            assert found is not None
            now = _Record(asks, False, found.epoch + 1, token)
        row[_RECORD] = now.packed
        return now.epoch, self.first if now.opening else 0

    def _opening(self, left: Left) -> tuple[int, int]:
        over = self.first and not left(self.first) and not self._chosen
        return (self.epoch + 1, 0) if over else (self.epoch, self.first)

    def _theirs(self) -> _Record | None:
        row = self._shared[os.getpid() % ROWS]
        if int(row[_PROCESS]) != os.getpid():
            return None
        found = _Record.of(int(row[_RECORD]))
        return found if found is not None and found.asks == int(row[_ASKS]) else None

    def _tell(self, record: int) -> None:
        row = self._shared[os.getpid() % ROWS]
        row[_PROCESS] = _NONE
        self._fill(row)
        row[_RECORD] = record
        row[_PROCESS] = os.getpid()

    def _row(self, process: int) -> torch.Tensor:
        """The row of a process that trains; where it asked for nothing, what its copy of this says. Several workers
        may fill it at once: all write the same.
        """
        row = self._shared[process % ROWS]
        if int(row[_PROCESS]) != process:
            self._fill(row)
            row[_RECORD] = _Record(self._asks, False, self.epoch, 0).packed if self.begun else _NONE
            row[_PROCESS] = process
        return row

    def _fill(self, row: torch.Tensor) -> None:
        row[_ASKS], row[_EPOCH], row[_FIRST], row[_CHOSEN] = self._asks, self.epoch, self.first, int(self._chosen)


def _token(turn: int) -> int:
    """What the workers of one iteration of a DataLoader have in common and no other iteration has: the pipe that their
    results go through, their seed where that cannot be seen, and how many iterations they have begun.
    """
    info = torch.utils.data.get_worker_info()
    common = "" if info is None else str(info.seed - info.id)
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_name == "_worker_loop" and hasattr(frame.f_locals.get("data_queue"), "_writer"):
            # The number of a pipe is not given again, names and seeds of the loader may be.
            common = str(os.fstat(frame.f_locals["data_queue"]._writer.fileno()).st_ino)
            break
        frame = frame.f_back
    digest = hashlib.blake2b(f"{common}\0{turn}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (2**26 - 1) + 1
