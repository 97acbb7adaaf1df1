"""A worker process, as the process sees it that gives it work.

The processes are started as plain Python interpreters on a socket, not through `multiprocessing`: the user's script is
never imported a second time, they may be started from daemonic processes and threads, and one that is killed can be
replaced without losing the others.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import pickle
import signal as signals_of_the_system
import socket
import subprocess
import sys
import tempfile
from collections import deque
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from factory_lib.compute.gpus import gpus_here, gpus_of
from factory_lib.compute.watching import SLOT_BYTES, ProgressSlot
from factory_lib.compute.wire import Program, SentTask
from factory_lib.environment import environment
from factory_lib.signals.resources import Resources

_OF_WORKERS = {
    # A thread a core in each of many processes makes all of them slower.
    "OMP_NUM_THREADS": "1",
    "OPENCV_FOR_THREADS_NUM": "1",
    # Pictures are big blocks: glibc would give each back to the system, whose zeroing of the next one takes longer
    # than most of what is computed on it.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20),
    "MALLOC_ARENA_MAX": "1",
}
"""Environment of worker processes, where the user's says nothing else."""


@dataclass
class Worker:
    """A worker process.

    Attributes:
        process: the process.
        connection: to it.
        slot: where it says what it is at.
        born_for: the program that it was started for.
        surroundings: what it took over when it started; see `surroundings_now`.
        place: which of the processes of a pool it is; it says on which GPU it computes.
        program: the program that it was sent last.
        ready: the program that it has set up.
        flying: numbers of the tasks that it was given and has not answered, in their order.
    """

    process: subprocess.Popen[bytes]
    connection: Connection
    slot: ProgressSlot
    born_for: str
    surroundings: object
    place: int = 0
    program: str = ""
    ready: str = ""
    flying: deque[int] = field(default_factory=deque)

    @staticmethod
    def start(program: Program, place: int = 0) -> Worker:
        """Start a process for a program, in a place of its pool that no other has."""
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as shared:
            shared.truncate(SLOT_BYTES)
            # The paths of this process, so that a worker imports what this process imports.
            code = (
                f"import sys; sys.path[:] = {sys.path!r}; from factory_lib.compute.worker import main;"
                f" main({theirs.fileno()}, {shared.fileno()}, {os.getpid()})"
            )
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                pass_fds=[theirs.fileno(), shared.fileno()],
                stdin=subprocess.DEVNULL,
                env=_OF_WORKERS | environment() | _of_resources(program.resources, place),
            )
            slot = ProgressSlot(mmap.mmap(shared.fileno(), SLOT_BYTES))
        return Worker(process, Connection(ours.detach()), slot, program.id, surroundings_now(program.resources), place)

    def send(self, message: Program | SentTask) -> None:
        """Send a message."""
        self.connection.send_bytes(pickle.dumps(message))

    def stop(self) -> None:
        """End the process at once."""
        with contextlib.suppress(OSError):
            self.connection.close()
        self.process.kill()
        self.process.wait()

    def stopped_unless_idle(self) -> bool:
        """End it where it still computes for a run that was given up; whether it is gone now."""
        if not self.flying and self.process.poll() is None:
            return False
        self.stop()
        return True

    @property
    def cause_of_death(self) -> str:
        """How the process ended."""
        code = self.process.returncode
        if code is not None and code < 0:
            with contextlib.suppress(ValueError):
                name = signals_of_the_system.Signals(-code).name
                return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"ended with status {code}"


def surroundings_now(resources: Resources) -> object:
    """What a process takes over when it starts: one that was started among others finds other files, or none."""
    return environment(), os.getcwd(), tuple(sys.path), resources


def _of_resources(resources: Resources, place: int) -> dict[str, str]:
    """What of its environment says how much of the machine a process has."""
    found = {"OMP_NUM_THREADS": str(resources.threads)} if resources.threads > 1 else {}
    if resources.gpus:
        found["CUDA_VISIBLE_DEVICES"] = ",".join(gpus_of(place, gpus_here(), resources))
    return found
