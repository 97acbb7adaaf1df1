"""The IO manager: stages hand it queries, it makes versions of datasets.

One run makes one version of a stage's dataset, whatever the number of partitions: `query.save(mode="overwrite_shards")`
replaces the shards of the run and carries the others over. A shard that cannot be made does not undo the others: they
are published and recorded, then the step fails and names the bad ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib import progress
from factory_lib.errors import NotFound, SourceError
from factory_lib.orchestration.automation.only_behind import Part
from factory_lib.orchestration.behind.looked_up import tags_of, undeclared
from factory_lib.orchestration.checks.sources import INGESTED, report_ingest
from factory_lib.orchestration.code import components_in, remember_code
from factory_lib.orchestration.events.partition_events import (
    EMPTY,
    RECORDED_BY_IO_MANAGER,
    combined_data_version,
    latest_data_versions,
    mark_failed,
    record_partitions,
    tell_dagster,
)
from factory_lib.orchestration.events.version_metadata import event_metadata, version_metadata
from factory_lib.orchestration.first_line import explained, failure, first_line
from factory_lib.orchestration.keys import dataset_name
from factory_lib.orchestration.retrying import tried
from factory_lib.orchestration.shard_saving import Saved, save_shards
from factory_lib.query import DatasetQuery
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.losses import MEND, read_losses
from factory_lib.warehouse.versions import resolve

_OF_ONE_PARTITION = {"dagster/partition_row_count"}

if TYPE_CHECKING:
    from dagster import DagsterEvent


class VersionedTableIOManager(dg.ConfigurableIOManager):
    """Saves the query that a stage returns as a version of its dataset; hands inputs on as queries.

    Rows stay in the warehouse both ways.

    Attributes:
        executor: where the signals of stages are computed, by processes of the machine of a run (`local`) or on the
            Ray cluster that `RAY_ADDRESS` names (`ray`); None for `FACTORY_EXECUTOR`.
    """

    executor: str | None = None

    def load_input(self, context: dg.InputContext) -> DatasetQuery:
        """The upstream dataset, restricted to the partitions that the run needs of it.

        Raises:
            dagster.Failure: a partition of it was never made. One that was made and has no rows is none to worry about.
        """
        if context._step_context is None:  # loaded outside of a run
            return self._load(context)
        step = context.step_context
        made = sorted(step.get_output_asset_keys())
        partitions = sorted(context.asset_partition_keys) if _wants_partitions(context) else ()
        with explained(made[0].to_user_string() if made else step.step.key, partitions):
            return tried(lambda: self._load(context), step.log.warning)

    def _load(self, context: dg.InputContext) -> DatasetQuery:
        name = dataset_name(context.asset_key)
        if not _wants_partitions(context):
            return DatasetQuery(name)
        query = DatasetQuery(name, shards=sorted(context.asset_partition_keys))
        _check_made(context, name)
        return query

    def handle_output(  # type: ignore[override]
        self, context: dg.OutputContext, obj: DatasetQuery | Part
    ) -> Iterator[DagsterEvent]:
        """Save the query, and record one materialization a partition; nothing for a part without a query.

        Raises:
            dagster.Failure: some shards could not be made; the others are published.
        """
        name, stage = dataset_name(context.asset_key), context.asset_key.to_user_string()
        part = obj if isinstance(obj, Part) else Part(obj)
        query, shards = part.query, sorted(_asked(context) if part.partitions is None else part.partitions)
        if query is None:
            return
        origin = {"run": context.run_id, "asset": stage, **part.told}
        report = progress.current() or progress.log_lines(context.log.info)
        with explained(stage, shards), progress.reporting(report):
            if not context.has_asset_partitions:
                version = tried(lambda: query.save(name, context=origin, executor=self.executor), context.log.warning)
                saved = Saved.of([version], (), {})
            else:
                saved = save_shards(query, name, shards, origin, context.log.warning, executor=self.executor)
        if saved.version is not None:
            node = context.step_context.job_def.asset_layer.get(context.asset_key)
            remember_code(components_in(node.metadata))
            versions, metadata = _events(query, saved)
            more = undeclared(saved.version, map(dataset_name, node.parent_keys))
            if RECORDED_BY_IO_MANAGER in (context.output_metadata or {}):
                yield from record_partitions(context.step_context, context.asset_key, versions, metadata, tags_of(more))
            else:
                _leave_to_dagster(context, versions, metadata)
            if more:
                context.log.warning(_undeclared_text(name, more))
            values = f", {saved.reused:,} values taken over, {saved.computed:,} computed" * bool(
                saved.reused or saved.computed
            )
            context.log.info(f"{saved.version}: {saved.version.rows:,} rows{values}")
            saved = saved.without(unread := _unread(saved))
            mark_failed(context.step_context, context.asset_key, list(unread))
            checks = context.step_context.job_def.asset_layer.asset_graph.asset_check_keys
            if unread and dg.AssetCheckKey(context.asset_key, INGESTED) in checks:
                report_ingest(context.step_context.instance, context.asset_key, name)
        if saved.failed:
            kept = f"the other {len(saved.shards)} are published as {saved.version}" if saved.version else ""
            raise failure(first_line(stage, saved.failed, of=len(shards), rest=kept), saved.failed)


def _asked(context: dg.OutputContext) -> Sequence[str]:
    """The partitions that a run is for."""
    return context.asset_partition_keys if context.has_asset_partitions else ()


def _unread(saved: Saved) -> dict[str, Exception]:
    """The published shards of which nothing could be read: their rows are gone, and somebody has to see to it."""
    if saved.version is None or not saved.shards:
        return {}
    losses = read_losses(saved.version.warehouse, saved.version.uuid, saved.shards)
    return {loss.shard: SourceError(loss.what, MEND) for loss in losses if loss.is_unread}


def _leave_to_dagster(
    context: dg.OutputContext, versions: Mapping[str | None, str], metadata: Mapping[str | None, Mapping[str, Any]]
) -> None:
    """Tell Dagster, which writes the events of what is no stage, the data version, one for all, and metadata."""
    shown = {name: value for one in metadata.values() for name, value in one.items()}
    context.add_output_metadata({name: value for name, value in shown.items() if name not in _OF_ONE_PARTITION})
    print_of_all = combined_data_version({str(key): value for key, value in versions.items()})
    tell_dagster(context.step_context, context.asset_key, print_of_all)


def _undeclared_text(stage: str, names: Sequence[str]) -> str:
    datasets = sorted({name.partition(".")[0] for name in names})
    return (
        f"{stage!r} reads {', '.join(sorted(names))}, which the graph does not show as its input. It is made again when"
        f" that changes, but the order of runs is unknown. Declare it: a parameter, or deps={datasets!r}."
    )


def _wants_partitions(context: dg.InputContext) -> bool:
    """Whether the input and the asset that wants it have partitions, or whoever loads it outside of a run named one."""
    if not context.has_asset_partitions:
        return False
    if context._step_context is None:
        return context.has_partition_key
    layer = context.step_context.job_def.asset_layer
    return any(layer.get(key).is_partitioned for key in context.step_context.get_output_asset_keys())


def _check_made(context: dg.InputContext, name: str) -> None:
    there = resolve(warehouse(), name).shards
    absent = sorted(key for key in context.asset_partition_keys if key not in there)
    made = latest_data_versions(context.instance, context.asset_key, absent) if absent else {}
    if never := [key for key in absent if key not in made]:
        raise NotFound(
            f"{len(never)} shards of {name!r} were never made: {', '.join(never[:10])}.",
            f"Materialize them in {context.asset_key.to_user_string()!r} first.",
        )


def _events(query: DatasetQuery, saved: Saved) -> tuple[dict[str | None, str], dict[str | None, dict[str, Any]]]:
    """Data versions and metadata of the events to record, by partition key."""
    version, shards = saved.version, saved.shards
    assert version is not None
    prints = version.fingerprints(list(shards) or None)
    metadata = event_metadata(version, shards)
    # What describes the whole version stands on the last event, which is the one that the asset's page shows.
    metadata[shards[-1] if shards else None] |= {
        **version_metadata(version, query, shards),
        "values_computed": saved.computed,
        "values_reused": saved.reused,
    }
    if not shards:
        return {None: combined_data_version(prints) if prints else EMPTY}, metadata
    return {shard: prints.get(shard, EMPTY) for shard in shards}, metadata
