"""A worker process: reads ahead, computes, answers.

Three threads share the work of one process: one receives tasks and reads their members from storage, one computes, one
sends results; so that neither storage nor the receiver keeps the processor waiting.
"""

from __future__ import annotations

import contextlib
import faulthandler
import math
import mmap
import os
import pickle
import queue
import signal as signals_of_the_system
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from factory_lib.compute.watching import SETUP, SETUP_SHARE, SLOT_BYTES, ProgressSlot
from factory_lib.compute.wire import (
    Program,
    ProgramReady,
    ProgramStale,
    SetupFailed,
    TaskUnread,
    TaskValues,
    from_ipc,
    to_ipc,
)
from factory_lib.environment import threads_of_process
from factory_lib.redaction import redact
from factory_lib.settings import signal_timeout
from factory_lib.signals.use import forget_use

if TYPE_CHECKING:
    from factory_lib.compute.rows import ReadySignal

IDLE_SECONDS = 300.0
KEPT_SIGNALS = 16
_ORPHAN_SECONDS = 60.0


def main(descriptor: int, shared: int, parent: int) -> None:
    """Serve the process at the other end of a socket until it hangs up, stays silent or is gone.

    Args:
        descriptor: of the socket.
        shared: descriptor of the memory in which to say what is computed; see `watching`.
        parent: id of the other process.
    """
    signals_of_the_system.signal(signals_of_the_system.SIGINT, signals_of_the_system.SIG_IGN)
    connection = Connection(descriptor)
    slot = ProgressSlot(mmap.mmap(shared, SLOT_BYTES))
    threading.Thread(target=_end_with, args=(parent, slot), daemon=True).start()
    received: queue.Queue[object] = queue.Queue(maxsize=2)
    # Room for all tasks under way: computing never waits for a reader that itself waits to send the next task.
    answers: queue.Queue[object] = queue.Queue()
    _preload()
    forget_use()
    threading.Thread(target=_receive, args=(connection, received, slot), daemon=True).start()
    threading.Thread(target=_send, args=(connection, answers), daemon=True).start()
    with contextlib.suppress(queue.Empty):
        _serve(received, answers, slot)
    sys.stdout.flush()
    sys.stderr.flush()
    # The threads may be inside the storage's libraries: nothing is left to wait for.
    os._exit(0)


def _end_with(parent: int, slot: ProgressSlot) -> None:
    """End this process when its parent is gone, whatever it computes and whoever holds the other end of its socket."""
    with open(os.devnull, "w") as nowhere:
        while os.getppid() == parent:
            # Code that never lets go of the interpreter stops this thread, too: a timer that needs none then ends the
            # process, at a time when its parent would long have ended it.
            call = slot.call
            limit = signal_timeout() or math.inf if call is None else call.limit
            if math.isfinite(limit):
                faulthandler.dump_traceback_later(limit + _ORPHAN_SECONDS, exit=True, file=nowhere)
            else:
                faulthandler.cancel_dump_traceback_later()
            time.sleep(1)
    os._exit(0)


def _preload() -> None:
    import numpy  # noqa: F401
    import PIL.Image
    import pyarrow  # noqa: F401

    import factory_lib.compute.rows  # noqa: F401

    PIL.Image.preinit()


def _serve(received: queue.Queue[object], answers: queue.Queue[object], slot: ProgressSlot) -> None:
    from factory_lib.compute.rows import compute_task
    from factory_lib.errors import FactoryError

    kept: OrderedDict[str, ReadySignal] = OrderedDict()
    modules: dict[str, str] = {}
    changed: set[tuple[str, str]] = set()
    programs: dict[str, tuple[Sequence[ReadySignal], bool]] = {}
    while True:
        message = received.get(timeout=IDLE_SECONDS)
        if isinstance(message, BaseException):
            raise message
        if isinstance(message, Program):
            try:
                programs = {message.id: (_set_up(message, kept, modules, changed, slot), message.hashes)}
                answers.put(ProgramReady(message.id))
            except _StaleCodeError as stale:
                answers.put(ProgramStale(message.id, stale.args))
            except Exception as error:
                hint = error.hint if isinstance(error, FactoryError) else ""
                text = error.message if isinstance(error, FactoryError) else redact(f"{type(error).__name__}: {error}")
                answers.put(SetupFailed(message.id, text, hint))
        elif isinstance(message, TaskUnread):
            answers.put(message)
        elif isinstance(message, tuple):
            work, rows, data = message
            if work.program in programs:
                running, hashes = programs[work.program]
                slot.task = work.id
                answers.put(TaskValues(work.id, to_ipc(compute_task(running, rows, data, hashes=hashes, slot=slot))))


class _StaleCodeError(Exception):
    """What arrived is not what was sent; its arguments are the names of the components that differ."""


def _set_up(
    program: Program,
    kept: OrderedDict[str, ReadySignal],
    modules: dict[str, str],
    changed: set[tuple[str, str]],
    slot: ProgressSlot,
) -> list[ReadySignal]:
    from factory_lib.compute.rows import ReadySignal
    from factory_lib.compute.travel import unpacked
    from factory_lib.fingerprints.components import unequal
    from factory_lib.fingerprints.process import restore
    from factory_lib.signals.fingerprint import walk_of

    running = []
    slot.task = SETUP
    restore(pickle.loads(program.states))
    wanted = {name for sent in program.signals for name in sent.changed}
    if put_back := changed - wanted:  # it is as its file says again where the signals come from
        raise _StaleCodeError(*sorted(f"{module}.{name}" for module, name in put_back))
    if changed:  # perhaps by another signal than one that is kept
        kept.clear()
    for number, sent in enumerate(program.signals):
        slot.begin(number, 0, 0, sent.limit * SETUP_SHARE)
        if other := [name for name, state in sent.modules.items() if modules.setdefault(name, state) != state]:
            raise _StaleCodeError(*other)
        if sent.key not in kept:
            received = unpacked(sent, changed)
            walk = walk_of(received, sent.configured)
            names = set(unequal(sent.components, walk.found))
            if not program.elsewhere:
                names -= sent.of_files | walk.of_files
            if names:
                raise _StaleCodeError(*(_told(name, sent.components, walk.found) for name in sorted(names)))
            kept[sent.key] = ReadySignal(received)
        kept[sent.key].limit = sent.limit
        kept.move_to_end(sent.key)
        running.append(kept[sent.key])
    slot.end()
    while len(kept) > max(KEPT_SIGNALS, len(program.signals)):
        kept.popitem(last=False)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads_of_process())
    return running


def _told(name: str, there: Mapping[str, str], here: Mapping[str, str]) -> str:
    """A component that differs; of a package also which versions."""
    if not name.startswith("package:"):
        return name
    return f"{name} ({there.get(name, 'none')} there, {here.get(name, 'none')} in the worker)"


def _receive(connection: Connection, received: queue.Queue[object], slot: ProgressSlot) -> None:
    """Take messages and read what their rows point at, so that the bytes are there when the task's turn comes."""
    from factory_lib.compute.reading import read_members
    from factory_lib.errors import StorageAway

    program: Program | None = None
    try:
        while True:
            message = pickle.loads(connection.recv_bytes())
            if isinstance(message, Program):
                program = message
                received.put(message)
            elif program is not None and message.program == program.id:
                slot.take(message.id)
                rows = from_ipc(message.rows)
                try:
                    received.put((message, rows, read_members(rows, program.members, program.etags)))
                except StorageAway as away:
                    received.put(TaskUnread(message.id, away.message, away.hint, away.shard))
    except (EOFError, OSError):
        os._exit(0)  # there is nobody to compute for
    except BaseException as error:
        received.put(error)


def _send(connection: Connection, answers: queue.Queue[object]) -> None:
    while True:
        try:
            connection.send_bytes(pickle.dumps(answers.get()))
        except OSError:
            os._exit(0)
