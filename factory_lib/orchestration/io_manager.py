"""The IO manager: stages hand it queries, it makes versions of datasets.

One run makes one version of a stage's dataset, whatever the number of partitions: `query.save(mode="merge")` replaces the
shards of the run and carries the others over. A shard that cannot be made does not undo the others: they are published
and recorded, then the step fails and names the bad ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib import progress
from factory_lib.errors import CommitError, EngineError
from factory_lib.orchestration.partition_events import EMPTY, combined_data_version, record_partitions
from factory_lib.orchestration.restricting import restricted
from factory_lib.orchestration.version_metadata import shard_metadata, version_metadata
from factory_lib.query import DatasetQuery

if TYPE_CHECKING:
    from dagster._core.events import DagsterEvent

    from factory_lib.warehouse.versions import Version


def dataset_name(key: dg.AssetKey) -> str:
    """The dataset that an asset makes: the parts of its key joined by `_`."""
    return "_".join(key.path)


class VersionedTableIOManager(dg.ConfigurableIOManager):
    """Saves the query that a stage returns as a version of its dataset; hands inputs on as queries.

    Rows stay in the warehouse both ways.
    """

    def load_input(self, context: dg.InputContext) -> DatasetQuery:
        """The upstream dataset, restricted to the partitions that the run needs of it."""
        name = dataset_name(context.asset_key)
        if context.has_asset_partitions and context.has_partition_key:
            return DatasetQuery(name, shards=sorted(context.asset_partition_keys))
        return DatasetQuery(name)

    def handle_output(self, context: dg.OutputContext, obj: DatasetQuery) -> Iterator[DagsterEvent]:  # type: ignore[override]
        """Save the query, and record one materialization a partition.

        Raises:
            dagster.Failure: some shards could not be made; the others are published.
        """
        name = dataset_name(context.asset_key)
        origin = {"run": context.run_id, "asset": context.asset_key.to_user_string()}
        report = progress.current() or progress.log_lines(context.log.info)
        with progress.reporting(report):
            if not context.has_asset_partitions:
                saved = Saved(obj.save(name, context=origin), (), {})
            else:
                saved = save_shards(obj, name, sorted(context.asset_partition_keys), origin)
        if saved.version is not None:
            versions, metadata = _events(obj, saved.version, saved.shards)
            yield from record_partitions(context.step_context, context.asset_key, versions, metadata)
            context.log.info(f"{saved.version}: {saved.version.rows:,} rows")
        if saved.failed:
            raise _failure(name, saved)


@dataclass(frozen=True)
class Saved:
    """What came of a stage's query.

    Attributes:
        version: the version that holds the good shards; None when every shard failed.
        shards: the shards that were published; empty for a stage without partitions.
        failed: shard to the error that kept it out.
    """

    version: Version | None
    shards: tuple[str, ...]
    failed: Mapping[str, Exception]


def save_shards(query: DatasetQuery, name: str, shards: Sequence[str], origin: Mapping[str, str]) -> Saved:
    """Save the shards of a query as one version of a dataset, without those that fail.

    An error that names its shard (`error.shard`) takes that shard out, and the rest is saved again; what was computed
    for it is taken up, not computed anew. Shards behind an error that names none are halved until the bad one is alone.

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
    good = tuple(shards)
    while good:
        removed = [shard for shard in good if shard not in read]
        try:
            part = query if len(good) == len(shards) else restricted(query, good)
            version = part.save(name, mode="merge", removed=removed, evolve=True, context=origin)
            return Saved(version, good, failed)
        except (EngineError, CommitError):
            raise
        except Exception as error:
            bad = getattr(error, "shard", None) if len(good) > 1 else good[0]
            if bad not in good:
                halves = [
                    save_shards(restricted(query, half), name, half, origin)
                    for half in (good[: len(good) // 2], good[len(good) // 2 :])
                ]
                version_ = next((half.version for half in reversed(halves) if half.version is not None), None)
                made = tuple(shard for half in halves for shard in half.shards)
                return Saved(version_, made, {**failed, **halves[0].failed, **halves[1].failed})
            failed[str(bad)] = error
            good = tuple(shard for shard in good if shard != bad)
    return Saved(None, (), failed)


def _events(
    query: DatasetQuery, version: Version, shards: Sequence[str]
) -> tuple[dict[str | None, str], dict[str | None, dict[str, Any]]]:
    """Data versions and metadata of the events to record, by partition key."""
    prints = version.fingerprints(list(shards) or None)
    keys: Sequence[str | None] = list(shards) or [None]
    metadata = {key: shard_metadata(version, key) for key in keys}
    # What describes the whole version stands on the last event, which is the one that the asset's page shows.
    metadata[keys[-1]] |= version_metadata(version, query)
    if not shards:
        return {None: combined_data_version(prints) if prints else EMPTY}, metadata
    return {shard: prints.get(shard, EMPTY) for shard in shards}, metadata


def _failure(name: str, saved: Saved) -> dg.Failure:
    shown = "; ".join(f"{shard}: {error}" for shard, error in list(saved.failed.items())[:10])
    total = len(saved.failed) + len(saved.shards)
    kept = f"The other {len(saved.shards)} are published as {saved.version}." if saved.version else "None was published."
    return dg.Failure(
        f"{len(saved.failed)} of {total} shards of {name!r} failed. {kept} {shown}",
        metadata={"failed_shards": dg.MetadataValue.json({shard: str(e) for shard, e in saved.failed.items()})},
        allow_retries=False,
    )
