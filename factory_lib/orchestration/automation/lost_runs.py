"""Runs whose process is gone without a word: the machine was restarted, or all of Dagster was killed.

Dagster keeps such a run as started for ever, and what it was to make as being made: nothing would make it again. Who
launched it notices where it lives on; Dagster's monitoring asks launchers, and the local one cannot tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import dagster as dg

from factory_lib.orchestration.dagster_internals import GRPC_INFO_TAG
from factory_lib.owners import Owner, started_at

PROCESS = "factory/process"
"""Tag of a run that nobody launched: the process that it runs in, as JSON."""

_UNDER_WAY = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_SAID = "The process of the run is gone: it was killed, or the machine was restarted."
_CLOCKS = 2.0
"""Seconds that the clocks of processes and of events may differ."""


def process_tag() -> dict[str, str]:
    """The tag of a run in this process."""
    return {PROCESS: json.dumps(Owner.here().as_dict())}


def fail_lost_runs(instance: dg.DagsterInstance) -> list[str]:
    """Record as failed what is recorded as started on this machine and has no process any more.

    Runs of other machines are left alone, as nobody here can tell.

    Returns:
        Their run ids.
    """
    lost = [run for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)) if _is_lost(instance, run)]
    for run in lost:
        instance.report_run_failed(run, _SAID)
    return [run.run_id for run in lost]


def _is_lost(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    if (told := run.tags.get(PROCESS)) is not None:
        owner = Owner.of(told)
        return owner is not None and owner.is_gone
    # A server that listens at a socket, and the runs that it starts, are on the machine that this process is on.
    if not json.loads(run.tags.get(GRPC_INFO_TAG, "{}")).get("socket"):
        return False
    processes = list(_processes(instance, run))
    return bool(processes) and all(_is_gone(pid, at) for pid, at in processes)


def _processes(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[tuple[int, float]]:
    """The processes that said they execute a run, and when."""
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        said = event.engine_event_data.metadata.get("pid") if event is not None else None
        if said is not None and str(said.value).isdigit():
            yield int(str(said.value)), entry.timestamp


def _is_gone(pid: int, seen: float) -> bool:
    """Whether a process that was seen at a time is there no more; another may have its number by now."""
    try:
        os.kill(pid, 0)
    except OSError:
        return True
    began = started_at(pid) if Path("/proc/self").exists() else None
    return began is not None and began > seen + _CLOCKS
