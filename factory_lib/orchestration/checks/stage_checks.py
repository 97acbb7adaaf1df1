"""The checks that every stage has: `volume` and `synced`, evaluated by the stage itself once its version is there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.errors import FactoryError
from factory_lib.orchestration.checks.evaluations import report
from factory_lib.orchestration.checks.synced import DONE, SYNCED, check_synced
from factory_lib.orchestration.checks.volume import ACCEPT, VERSIONS, VOLUME, Evaluation, Volume, evaluate, size_of
from factory_lib.orchestration.dagster_internals import AssetCheckExecutionRecordStatus
from factory_lib.orchestration.events.partition_events import combined_data_version
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version, versions

if TYPE_CHECKING:
    from factory_lib.orchestration.dagster_internals import BaseAssetGraph

_STATE = "state"


def stage_check_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """The checks of a stage."""
    return [
        dg.AssetCheckSpec(
            VOLUME,
            asset=asset,
            blocking=True,
            description="It keeps about as much of its input as its last versions did.",
        ),
        dg.AssetCheckSpec(
            SYNCED, asset=asset, description="All partitions are made by the code and from the inputs of now."
        ),
    ]


def run_stage_checks(
    context: dg.AssetExecutionContext, dataset: str, inputs: Sequence[str], bounds: Volume
) -> Iterator[dg.AssetCheckResult]:
    """Evaluate the checks of a stage that has just run.

    Args:
        dataset: of the stage.
        inputs: datasets that it reads, the one that gives its rows first.
        bounds: what its volume is judged by.

    Raises:
        dagster.Failure: the version looks wrong; what comes after it in the run is not run.
    """
    yield from check_synced(context.instance, context.job_def.asset_layer.asset_graph, [context.asset_key])
    made = versions(warehouse(), dataset)
    if not made:
        yield dg.AssetCheckResult(check_name=VOLUME, passed=True, description="Nothing was made yet.")
        return
    accepted = context.run.tags.get(ACCEPT, "")
    last = last_evaluation(context.instance, context.asset_key)
    found = evaluated(made, last, inputs, bounds, accepted)
    yield volume_result(found)
    if found.stops:
        raise dg.Failure(
            f"{dataset}: {found.said} That looks wrong: what comes after it does not run. If it is as it should be: "
            f'factory accept {dataset} --because "…", or run it with the tag {ACCEPT}. Otherwise mend the stage or its '
            "input: a new version is judged anew.",
            allow_retries=False,
        )


def evaluated(
    made: Sequence[Version], last: Evaluation | None, inputs: Sequence[str], bounds: Volume, accepted: str = ""
) -> Evaluation:
    """Judge the newest of a dataset's versions."""
    now = made[-1]
    earlier = [size_of(one, inputs) for one in made[-VERSIONS - 1 : -1]] if last is None else []
    content = combined_data_version(now.fingerprints())[:32]
    return evaluate(size_of(now, inputs), content, last, earlier, bounds, accepted)


def volume_result(found: Evaluation) -> dg.AssetCheckResult:
    """An evaluation as Dagster shows it."""
    passed, severity, said, metadata = _shown(found)
    return dg.AssetCheckResult(check_name=VOLUME, passed=passed, severity=severity, description=said, metadata=metadata)


def _shown(found: Evaluation) -> tuple[bool, dg.AssetCheckSeverity, str, dict[str, Any]]:
    metadata: dict[str, Any] = {"version": found.size.version, "rows": found.size.rows}
    if found.size.kept is not None:
        metadata |= {"rows_in": found.size.rows_in, "kept": found.size.kept}
    if found.accepted:
        metadata["accepted"] = found.accepted
    metadata[_STATE] = dg.MetadataValue.json(found.state())
    said = f"{found.said} Accepted: {found.accepted}" if found.accepted else found.said
    severity = dg.AssetCheckSeverity.ERROR if found.stops else dg.AssetCheckSeverity.WARN
    return found.color == "green" or bool(found.accepted), severity, said, metadata


def last_evaluation(instance: dg.DagsterInstance, asset: dg.AssetKey) -> Evaluation | None:
    """The newest evaluation of a stage's volume."""
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(asset, VOLUME), limit=1, status=DONE
    )
    evaluation = records[0].evaluation if records else None
    said = evaluation.metadata.get(_STATE) if evaluation is not None else None
    return Evaluation.of(said.value) if isinstance(said, dg.JsonMetadataValue) else None  # type: ignore[arg-type]


def looks_wrong(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any], assets: Sequence[dg.AssetKey]) -> list[str]:
    """Of these stages, those whose newest version looks wrong and was not accepted: nothing after them may run."""
    keys = [key for asset in assets if (key := dg.AssetCheckKey(asset, VOLUME)) in graph.asset_check_keys]
    found = instance.event_log_storage.get_latest_asset_check_execution_by_key(keys) if keys else {}
    wrong = []
    for key, record in found.items():
        if record.status == AssetCheckExecutionRecordStatus.SUCCEEDED:
            continue
        last = last_evaluation(instance, key.asset_key)  # planned, and its run may have been killed; or failed
        if last is not None and last.stops:
            wrong.append(key.asset_key.to_user_string())
    return sorted(wrong)


def stopped(instance: dg.DagsterInstance, graph: BaseAssetGraph[Any]) -> tuple[set[dg.AssetKey], list[str]]:
    """What must not run because something before it looks wrong, and a sentence for each that does.

    Returns:
        The assets, and what to do.
    """
    wrong = looks_wrong(instance, graph, sorted(graph.materializable_asset_keys))
    after = {
        key
        for key in graph.materializable_asset_keys
        if any(one.to_user_string() in wrong for one in graph.get_ancestor_asset_keys(key))
    }
    said = [
        f"{name}: its newest version looks wrong (check {VOLUME}), and nothing after it was run. Mend it, or: "
        f'factory accept {name} --because "…"'
        for name in wrong
    ]
    return after, said


def accept(instance: dg.DagsterInstance, asset: dg.AssetKey, because: str) -> Evaluation:
    """Accept the newest version of a stage that looks wrong: what comes after it runs, and it is the new measure.

    Args:
        because: why, for those who read the check later.

    Raises:
        FactoryError: its check is not red.
    """
    last = last_evaluation(instance, asset)
    if last is None or not last.stops:
        name = asset.to_user_string()
        raise FactoryError(f"The volume of {name!r} is not red: there is nothing to accept.", "factory unsynced")
    found = Evaluation(last.size, last.content, last.before, last.color, because, last.said)
    report(instance, volume_result(found), asset, VOLUME)
    return found
