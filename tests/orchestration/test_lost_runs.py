"""Runs whose process is gone are failed, and others are left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG

from factory_lib.orchestration.automation.lost_runs import PROCESS, fail_lost_runs, process_tag
from factory_lib.owners import Owner


@dg.job
def nothing() -> None:
    """Does nothing."""


def _started(instance: dg.DagsterInstance, tags: dict[str, str], pid: int | None = None) -> str:
    """A run that is recorded as started, by a process of this number."""
    run = instance.create_run_for_job(nothing, tags=tags)
    instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.PIPELINE_START.value, job_name="nothing", message="started"), run.run_id
    )
    if pid is not None:
        instance.report_engine_event("Executing", run, EngineEventData.in_process(pid))
    return run.run_id


def test_what_has_no_process_any_more_is_failed() -> None:
    gone = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead = Owner.process(gone.pid)
    with dg.DagsterInstance.ephemeral() as instance:
        here, elsewhere = {GRPC_INFO_TAG: json.dumps({"socket": "/tmp/x"})}, {GRPC_INFO_TAG: json.dumps({"port": 4000})}
        killed = _started(instance, here, gone.pid)
        alive = _started(instance, here, os.getpid())
        other_machine = _started(instance, elsewhere, gone.pid)
        nobody_knows = _started(instance, here)
        mine = _started(instance, process_tag())
        ended = _started(instance, {PROCESS: json.dumps(dead.as_dict())})
        assert fail_lost_runs(instance) == []
        gone.kill()
        gone.wait()
        assert set(fail_lost_runs(instance)) == {killed, ended}
        assert fail_lost_runs(instance) == []
        statuses = {one: instance.get_run_by_id(one).status for one in (killed, ended)}  # type: ignore[union-attr]
        assert set(statuses.values()) == {dg.DagsterRunStatus.FAILURE}
        for one in (alive, other_machine, nobody_knows, mine):
            assert instance.get_run_by_id(one).status == dg.DagsterRunStatus.STARTED  # type: ignore[union-attr]


def test_another_process_with_the_same_number_is_not_the_runs() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = _started(instance, {GRPC_INFO_TAG: json.dumps({"socket": "/tmp/x"})}, os.getpid())
        (seen,) = [e.timestamp for e in instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)]
        assert seen <= time.time()
        young = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        try:
            from factory_lib.orchestration.automation import lost_runs

            assert not lost_runs._is_gone(young.pid, time.time())
            assert lost_runs._is_gone(young.pid, time.time() - 3600)
        finally:
            young.kill()
            young.wait()
