"""One run of Dagster's in this process: recorded like any other, for any shards, canceled by an interrupt."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from factory_lib.orchestration.automation.lost_runs import process_tag
from factory_lib.orchestration.automation.only_behind import ONLY_BEHIND
from factory_lib.orchestration.dagster_internals import (
    ASSET_PARTITION_RANGE_END_TAG,
    ASSET_PARTITION_RANGE_START_TAG,
    ErrorSource,
    make_new_run_id,
)
from factory_lib.orchestration.first_line import line_of
from factory_lib.progress import Report, reporting

if TYPE_CHECKING:
    from factory_lib.orchestration.runs.next_run import PlannedRun
    from factory_lib.orchestration.source.shards import ShardSource

SHARDS_TAG = "factory/shards"
"""Tag of a run that says which shards it is for, where these are no neighbours."""
_LONGEST_TAG = 200
_AGAIN_SECONDS = 0.05


@dataclass(frozen=True)
class GraphRun:
    """One Dagster run.

    Attributes:
        run_id: Dagster's id of the run.
        stages: names of the stages that it was for, in the order of the graph.
        partitions: the partitions it was for; empty for stages without partitions.
        seconds: wall time.
        begun: the stages that were begun; those behind one that failed were not.
        made: stage to the number of partitions that were made of it (1 of one without); one that was left alone is
            absent.
        error: what went wrong, or an empty string.
    """

    run_id: str
    stages: tuple[str, ...]
    partitions: tuple[str, ...]
    seconds: float
    begun: tuple[str, ...]
    made: Mapping[str, int] = field(default_factory=dict)
    error: str = ""


def execute(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    planned: PlannedRun,
    *,
    source: ShardSource | None = None,
    report: Report | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> GraphRun:
    """Carry out a run.

    Args:
        source: where the shards are; None means the graph's own resource `source`.
        report: called with the progress of what goes on within the run.
        on_stage: called with the name of each stage that begins.

    Raises:
        KeyboardInterrupt: the run was interrupted. Dagster's record says that it was canceled.
    """
    started = time.monotonic()
    graph = definitions.resolve_asset_graph()
    names = {key.to_python_identifier(): key.to_user_string() for key in planned.stages}
    run_id, heard = make_new_run_id(), _Listener(instance, names, on_stage)
    instance.add_event_listener(run_id, heard)
    with (
        _canceled_when_interrupted(instance, run_id),
        _interrupts_arrive(),
        _side_by_side(instance, graph.get(planned.stages[0]).partitions_def, planned.partitions) as partitions,
        reporting(report) if report else nullcontext(),
    ):
        result = definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=instance,
            asset_selection=list(planned.stages),
            partition_key=partitions[0] if len(partitions) == 1 else None,
            tags=_tags(partitions, planned.only_behind),
            run_config={**_QUIET, **_told(source)},
            raise_on_error=False,
            run_id=run_id,
        )
        if heard.is_interrupted or _was_interrupted(result):
            raise KeyboardInterrupt
    made: dict[str, int] = {}
    for event in result.get_asset_materialization_events():
        if event.asset_key is not None:
            name = event.asset_key.to_user_string()
            made[name] = made.get(name, 0) + 1
    stages = tuple(names.values())
    begun = tuple(name for name in stages if name in heard.begun)
    return GraphRun(run_id, stages, partitions, time.monotonic() - started, begun, made, _error(result))


class _Listener:
    """Hears each event of a run when it is written: what begins, and that it is interrupted.

    Dagster takes a run for failed that is interrupted and was not asked to end before: so the asking is recorded at the
    event that tells of the interrupt, before Dagster looks.
    """

    def __init__(
        self, instance: dg.DagsterInstance, names: Mapping[str, str], on_stage: Callable[[str], None] | None
    ) -> None:
        self._instance, self._names, self._on_stage = instance, names, on_stage
        self.begun: set[str] = set()
        self.is_interrupted = False

    def __call__(self, entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            return
        name = self._names.get(event.step_key or "")
        if event.event_type == dg.DagsterEventType.STEP_START and name is not None:
            self.begun.add(name)
            if self._on_stage is not None:
                self._on_stage(name)
        elif event.is_step_failure and event.step_failure_data.error_source == ErrorSource.INTERRUPT:
            self.is_interrupted = True
            run = self._instance.get_run_by_id(entry.run_id)
            if run is not None:
                self._instance.report_run_canceling(run)


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a run that was interrupted between two steps says so."""
    return any("Execution was interrupted" in (event.message or "") for event in result.all_events if event.is_failure)


@contextmanager
def _canceled_when_interrupted(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """However an interrupt ends the block, Dagster's record says that the run was canceled."""
    try:
        yield
    except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        run = instance.get_run_by_id(run_id)
        if run is not None and run.status != dg.DagsterRunStatus.CANCELED:
            instance.report_run_canceled(run)
        raise KeyboardInterrupt from None


@contextmanager
def _interrupts_arrive() -> Iterator[None]:
    """An interrupt that comes while Python collects garbage is raised there and ignored: it is sent once more."""
    shown = sys.unraisablehook

    def again(unraisable: sys.UnraisableHookArgs) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt | dg.DagsterExecutionInterruptedError):
            shown(unraisable)
            return
        # a little later, when the collecting is over
        threading.Timer(_AGAIN_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = shown


@contextmanager
def _side_by_side(
    instance: dg.DagsterInstance, definition: dg.PartitionsDefinition[str] | None, wanted: Collection[str | None]
) -> Iterator[tuple[str, ...]]:
    """These partitions as a range, in this process and for the time of the block, wherever they stand.

    Dagster runs one partition or a range of them, and a range is what stands between two partitions: those wanted are
    put in front of the others.
    """
    if definition is None:
        yield ()
        return
    order = list(definition.get_partition_keys(dynamic_partitions_store=instance))
    partitions = tuple(key for key in order if key in wanted)
    if len(partitions) == 1 or not isinstance(definition, dg.DynamicPartitionsDefinition):
        yield partitions
        return
    asked, name = instance.get_dynamic_partitions, definition.name
    first = set(partitions)

    def in_front(partitions_def_name: str) -> Sequence[str]:
        found = asked(partitions_def_name)
        if partitions_def_name != name:
            return found
        return [*partitions, *(key for key in found if key not in first)]

    instance.get_dynamic_partitions = in_front  # type: ignore[method-assign]
    try:
        yield partitions
    finally:
        del instance.get_dynamic_partitions


def _tags(partitions: Sequence[str], only_behind: bool) -> dict[str, str]:
    tags = process_tag() | ({ONLY_BEHIND: "true"} if only_behind else {})
    if len(partitions) > 1:
        tags |= {ASSET_PARTITION_RANGE_START_TAG: partitions[0], ASSET_PARTITION_RANGE_END_TAG: partitions[-1]}
        named = ",".join(partitions)
        tags[SHARDS_TAG] = named if len(named) <= _LONGEST_TAG else f"{len(partitions)}: {named[:_LONGEST_TAG]}…"
    return tags


def _error(result: dg.ExecuteInProcessResult) -> str:
    """The first failure of a run, in one line, or an empty string."""
    for event in result.all_events:
        if event.is_step_failure:
            return line_of(event)
    return "" if result.success else "failed without saying why"


def _told(source: ShardSource | None) -> dict[str, object]:
    """Run configuration that has stages read another source than the graph's own."""
    if source is None:
        return {}
    return {"resources": {"source": {"config": source.config()}}}


_QUIET: dict[str, object] = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration that keeps Dagster's lines off the terminal; they are in the event log."""
