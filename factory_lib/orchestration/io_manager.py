"""The IO manager: stages hand it queries, it makes versions of datasets.

One run makes one version of a stage's dataset, whatever the number of partitions: `query.save(mode="overwrite_shards")`
replaces the shards of the run and carries the others over. A shard that cannot be made does not undo the others: they
are published and recorded, then the step fails and names the bad ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib import progress
from factory_lib.errors import CommitError, EngineError, NotFound
from factory_lib.orchestration.code import components_in, remember_code
from factory_lib.orchestration.looked_up import tags_of, undeclared
from factory_lib.orchestration.only_behind import Part
from factory_lib.orchestration.partition_events import (
    EMPTY,
    combined_data_version,
    latest_data_versions,
    record_partitions,
)
from factory_lib.orchestration.version_metadata import event_metadata, version_metadata
from factory_lib.plan.restriction import restricted
from factory_lib.query import DatasetQuery
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve

if TYPE_CHECKING:
    from dagster import DagsterEvent

    from factory_lib.warehouse.versions import Version


def dataset_name(key: dg.AssetKey) -> str:
    """The dataset that an asset makes: the parts of its key joined by `_`."""
    return "_".join(key.path)


class VersionedTableIOManager(dg.ConfigurableIOManager):
    """Saves the query that a stage returns as a version of its dataset; hands inputs on as queries.

    Rows stay in the warehouse both ways.
    """

    def load_input(self, context: dg.InputContext) -> DatasetQuery:
        """The upstream dataset, restricted to the partitions that the run needs of it.

        Raises:
            NotFound: a partition of it was never made. One that was made and has no rows is none to worry about.
        """
        name = dataset_name(context.asset_key)
        if not (context.has_asset_partitions and _runs_for_partitions(context)):
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
        name = dataset_name(context.asset_key)
        part = obj if isinstance(obj, Part) else Part(obj, tuple(_asked(context)))
        query = part.query
        if query is None:
            return
        origin = {"run": context.run_id, "asset": context.asset_key.to_user_string()}
        report = progress.current() or progress.log_lines(context.log.info)
        with progress.reporting(report):
            if not context.has_asset_partitions:
                saved = Saved.of([query.save(name, context=origin)], (), {})
            else:
                saved = save_shards(query, name, sorted(part.partitions), origin)
        if saved.version is not None:
            node = context.step_context.job_def.asset_layer.get(context.asset_key)
            remember_code(components_in(node.metadata))
            versions, metadata = _events(query, saved)
            more = undeclared(saved.version, map(dataset_name, node.parent_keys))
            yield from record_partitions(context.step_context, context.asset_key, versions, metadata, tags_of(more))
            if more:
                context.log.warning(_undeclared_text(name, more))
            values = f", {saved.reused:,} values taken over, {saved.computed:,} computed" * bool(
                saved.reused or saved.computed
            )
            context.log.info(f"{saved.version}: {saved.version.rows:,} rows{values}")
        if saved.failed:
            raise _failure(name, saved)


def _asked(context: dg.OutputContext) -> Sequence[str]:
    """The partitions that a run is for."""
    return context.asset_partition_keys if context.has_asset_partitions else ()


def _undeclared_text(stage: str, names: Sequence[str]) -> str:
    datasets = sorted({name.partition(".")[0] for name in names})
    return (
        f"{stage!r} reads {', '.join(sorted(names))}, which the graph does not show as its input. It is made again when"
        f" that changes, but the order of runs is unknown. Declare it: a parameter, or deps={datasets!r}."
    )


def _runs_for_partitions(context: dg.InputContext) -> bool:
    """Whether the asset that wants the input has partitions, or whoever loads it outside of a run named one."""
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


@dataclass(frozen=True)
class Saved:
    """What came of a stage's query.

    Attributes:
        version: the version that holds the good shards; None when every shard failed.
        shards: the shards that were published; empty for a stage without partitions.
        failed: shard to the error that kept it out.
        reused, computed: values of signals that were taken over and computed, in all versions that it took.
    """

    version: Version | None
    shards: tuple[str, ...]
    failed: Mapping[str, Exception]
    reused: int = 0
    computed: int = 0

    @staticmethod
    def of(versions: Sequence[Version], shards: Sequence[str], failed: Mapping[str, Exception]) -> Saved:
        """What came of a query that was saved as these versions, one after the other."""
        records = [version.provenance for version in versions if version.provenance is not None]
        reused, computed = sum(one.reused for one in records), sum(one.computed for one in records)
        return Saved(versions[-1] if versions else None, tuple(sorted(shards)), failed, reused, computed)


def save_shards(query: DatasetQuery, name: str, shards: Sequence[str], origin: Mapping[str, str]) -> Saved:
    """Save the shards of a query as one version of a dataset, without those that fail.

    An error that names its shard (`error.shard`) takes that shard out, and the rest is saved again; what was computed
    for it is taken up, not computed anew. Behind an error that names none the shards are halved until the bad one is
    alone, or until the error turns out to be the same whatever the shards.

    Args:
        shards: the shards that the run is to make; those that the query does not read are removed from the dataset.

    Raises:
        EngineError, CommitError: the warehouse failed, which no choice of shards would mend.
        ValueError: the query reads other shards than these.
    """
    read = query.restricted_to()
    if read is None or not set(read) <= set(shards):
        raise ValueError(
            f"The stage of {name!r} runs for shards {', '.join(shards[:3])}…, but its query reads "
            f"{'all shards' if read is None else ', '.join(sorted(set(read) - set(shards)))}. "
            "Build it from the stage's inputs, which hold the right shards."
        )
    failed: dict[str, Exception] = {}
    saved: list[Version] = []
    made: list[str] = []
    waiting = [tuple(shards)]
    messages: Counter[str] = Counter()
    while waiting:
        part = waiting.pop(0)
        removed = [shard for shard in part if shard not in read]
        some = query if len(part) == len(shards) else query.of(restricted(query.plan, part))
        try:
            saved.append(
                some.save(name, mode="overwrite_shards", removed=removed, schema_evolution=True, context=origin)
            )
            made += part
        except Exception as error:
            if _is_warehouse_down(error):
                raise
            messages[str(error)] += 1
            everywhere = not made and messages[str(error)] > 3  # halves and quarters alike: no shard's fault
            bad, rest = (part, []) if everywhere else _blame(part, error)
            failed |= dict.fromkeys(bad, error)
            waiting += rest
    return Saved.of(saved, made, failed)


def _is_warehouse_down(error: Exception) -> bool:
    """Whether an error has nothing to do with the shards: no choice of them would mend it."""
    return isinstance(error, CommitError) or (isinstance(error, EngineError) and error.code in _SYSTEMIC)


_SYSTEMIC = {
    0,  # not reached
    159,  # timeout
    202,  # too many queries
    209,  # socket timeout
    210,  # network
    236,  # aborted
    241,  # memory limit
    243,  # disk full
    394,  # query was cancelled
}
"""ClickHouse's error codes that say something of the engine, not of the rows."""


def _blame(part: tuple[str, ...], error: Exception) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The shards that an error is blamed on, and the pieces in which the others are tried again."""
    named = getattr(error, "shard", None)
    if named in part or len(part) == 1:
        bad = named if named in part else part[0]
        rest = tuple(shard for shard in part if shard != bad)
        return (bad,), [rest] if rest else []
    middle = len(part) // 2
    return (), [part[:middle], part[middle:]]


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


def _failure(name: str, saved: Saved) -> dg.Failure:
    shown = "; ".join(f"{shard}: {error}" for shard, error in list(saved.failed.items())[:10])
    total = len(saved.failed) + len(saved.shards)
    kept = (
        f"The other {len(saved.shards)} are published as {saved.version}." if saved.version else "None was published."
    )
    return dg.Failure(
        f"{len(saved.failed)} of {total} shards of {name!r} failed. {kept} {shown}",
        metadata={"failed_shards": dg.MetadataValue.json({shard: str(e) for shard, e in saved.failed.items()})},
        allow_retries=False,
    )
