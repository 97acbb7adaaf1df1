"""Processes end with the process that started them, also when that one is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time

POLL_SECONDS = 0.5
GRACE_SECONDS = 10.0


def end_with(parent: int, first: signal.Signals = signal.SIGKILL) -> None:
    """End this process as soon as it is no longer a child of `parent`.

    Args:
        parent: process id.
        first: the signal to begin with; whoever survives it for ten seconds is killed.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), first)
        time.sleep(GRACE_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def end_with_creator() -> None:
    """End this process, one of `multiprocessing`'s, with the one that it works for.

    That need not be its parent in the system: of a fork server's children it is not. Pools and loaders notice the death
    of their workers, and their workers wait for ever for the next task of the dead.
    """
    creator = multiprocessing.parent_process()
    if creator is None:
        return

    def watch() -> None:
        creator.join()
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
