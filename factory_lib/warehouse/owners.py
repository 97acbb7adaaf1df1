"""Who builds a table or computes values, and whether they still do: what a dead owner left may be taken up or swept."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Owner:
    """A process.

    Attributes:
        host: the machine.
        pid: its number there.
        started: when it started, as text to compare: numbers of processes are used again.
    """

    host: str
    pid: int
    started: str = ""

    @staticmethod
    def of(comment: str) -> Owner | None:
        """The owner that a table's comment names; None where it names none."""
        try:
            found = json.loads(comment)
            return Owner(str(found["host"]), int(found["pid"]), str(found.get("started", "")))
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    @property
    def is_here(self) -> bool:
        """Whether it is, or was, a process of this machine."""
        return self.host == socket.gethostname()

    @property
    def is_alive(self) -> bool:
        """Whether it runs; of a process of another machine that is not known, and it counts as running."""
        if not self.is_here:
            return True
        from factory_lib.warehouse.embedded import process_started

        found = process_started(self.pid)
        return bool(found) and self.started in ("", found)

    def __str__(self) -> str:
        return f"process {self.pid}" if self.is_here else f"process {self.pid} of {self.host}"


def owner() -> str:
    """This process, for the comment of what it builds."""
    from factory_lib.warehouse.embedded import process_started

    return json.dumps(asdict(Owner(socket.gethostname(), os.getpid(), process_started(os.getpid()))))
