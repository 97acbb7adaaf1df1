"""Runs a training program under torchrun, with its messages coming back over Dagster Pipes while it runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import dagster as dg

from factory_lib.environment import environment
from factory_lib.errors import TrainingError

LOG = "torchrun.log"
POLL_SECONDS = 0.1
TERMINATION_SECONDS = 15.0
_KEPT_BACK = frozenset({"FACTORY_CLICKHOUSE_URL"})  # a training needs no warehouse, so it gets no password of one


def torchrun(
    context: dg.AssetExecutionContext,
    folder: Path,
    *,
    module: str,
    processes: int,
    error_file: str,
    on_message: Callable[[dict[str, Any]], None],
) -> None:
    """Run ``module FOLDER`` in so many processes and wait for them; they end with this process, however that ends.

    Args:
        folder: given to the program; what it prints goes into `torchrun.log` there.
        error_file: name of the file in the folder in which the program says why it failed, and whether that may pass:
            JSON with `said` and `is_transient`.
        on_message: called in this thread with each message that the program reports, as it comes.

    Raises:
        TrainingError: a process failed; says why.
    """
    (folder / error_file).unlink(missing_ok=True)
    arguments = ["--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", str(processes), "-m", module]
    command = [sys.executable, "-m", "factory_assets.training.launch", str(os.getpid()), *arguments, str(folder)]
    with _session(context) as session, (folder / LOG).open("wb") as log:
        kept = {name: value for name, value in environment().items() if name not in _KEPT_BACK}
        told = 0
        with _running(command, {**kept, **session.get_bootstrap_env_vars()}, log) as process:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                told = _tell(session.get_custom_messages(), told, on_message)
    _tell(session.get_custom_messages(), told, on_message)
    if process.returncode:
        raise _failure(folder, error_file, process.returncode)


@contextmanager
def _session(context: dg.AssetExecutionContext) -> Iterator[dg.PipesSession]:
    injector, reader = dg.PipesTempFileContextInjector(), dg.PipesTempFileMessageReader()
    with ExitStack() as stack:
        with warnings.catch_warnings():
            # opening one warns of a part of Pipes that may change, which is not used here
            warnings.simplefilter("ignore", dg.PreviewWarning)
            session = stack.enter_context(dg.open_pipes_session(context, injector, reader))
        yield session


@contextmanager
def _running(command: list[str], variables: dict[str, str], log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own; the group is gone when the block is left, by whatever way."""
    process = subprocess.Popen(
        command, env=variables, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, ending)
                try:
                    process.wait(TERMINATION_SECONDS)
                except subprocess.TimeoutExpired:
                    continue


def _tell(messages: Any, told: int, on_message: Callable[[dict[str, Any]], None]) -> int:
    for message in messages[told:]:
        on_message(message)
    return len(messages)


def _failure(folder: Path, error_file: str, code: int) -> TrainingError:
    if (folder / error_file).exists():
        found = json.loads((folder / error_file).read_text())
        failure = TrainingError(found["said"])
        failure.is_transient = found["is_transient"]
        return failure
    last = (folder / LOG).read_text(errors="replace").strip().splitlines()[-5:]
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    return TrainingError(f"torchrun {how}; {folder / LOG} ends with: {' | '.join(last) or 'nothing'}")
