"""What the UI shows of a version: counts that plot over versions, columns, lineage, how it was stored, samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.build.ledger import COMPUTED_ON
from factory_lib.errors import FactoryError
from factory_lib.orchestration.events.column_docs import SYSTEM, column_docs
from factory_lib.orchestration.events.contact_sheet import picture_samples
from factory_lib.orchestration.events.readable import readable
from factory_lib.orchestration.omissions import LEFT_OUT
from factory_lib.plan.lineage import column_lineage
from factory_lib.warehouse.losses import MEND, ShardLoss, read_losses

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery
    from factory_lib.warehouse.versions import Version

Metadata = dict[str, Any]

STORAGE = {
    "clone": "shared with its parent",
    "mask": "a mask over its parent's rows",
    "columns": "new columns beside its parent's",
    "mask+columns": "a mask and new columns over its parent's rows",
    "attach": "parts of its parents, attached",
    "copy": "copied rows",
}
"""How a version is stored, in words."""


OF_PARTITION = frozenset({"dagster/partition_row_count", "not_read", "loss"})
"""What an event says of its partition; the rest is of the whole dataset."""


def event_metadata(version: Version, shards: Sequence[str]) -> dict[str | None, Metadata]:
    """What each partition's event says, or the one event (under None) of a stage without partitions."""
    whole: Metadata = {"dagster/row_count": version.rows, "version": str(version)}
    if not shards:
        return {None: whole}
    sizes = version.shard_rows()
    losses = {loss.shard: loss for loss in read_losses(version.warehouse, version.uuid, shards)}
    return {
        shard: {"dagster/partition_row_count": sizes.get(shard, 0), **whole, **_loss(losses.get(shard))}
        for shard in shards
    }


def _loss(loss: ShardLoss | None) -> Metadata:
    """What a partition's event says of what was seen of its shard and not read."""
    if loss is None:
        return {}
    table = [dg.TableRecord({"not read": kind, "count": n}) for kind, n in {**loss.files, **loss.lost}.items()]
    return {"not_read": dg.MetadataValue.table(table), "loss": f"{loss} {MEND}" if loss.files else str(loss)}


def version_metadata(version: Version, query: DatasetQuery, shards: Sequence[str] = ()) -> Metadata:
    """What describes a version as a whole; it stands on one event of each run.

    Args:
        query: what made it.
        shards: the shards that the run made; none for a run over the whole dataset.
    """
    described: Metadata = {
        "dagster/table_name": str(version),
        "dagster/storage_kind": "clickhouse",
        "dagster/column_schema": column_schema(version, query),
        "shards": len(version.shards),
        "query": dg.MetadataValue.md(f"```python\n{readable(repr(query))}\n```"),
        **_recorded(version, shards),
    }
    if lineage := lineage_metadata(query):
        described["dagster/column_lineage"] = lineage
    try:
        pictures = picture_samples(version)
    except FactoryError as error:
        described["samples"] = dg.MetadataValue.text(f"No samples could be read: {error}")
    else:
        if pictures is not None:
            if pictures.strip:
                described["samples"] = dg.MetadataValue.md(pictures.strip)
            described["contact_sheet"] = dg.MetadataValue.md(pictures.sheet)
    return described


def _recorded(version: Version, shards: Sequence[str]) -> Metadata:
    """What provenance says, as numbers that can be plotted."""
    recorded = version.provenance
    if recorded is None:
        return {}
    sizes = version.shard_rows()
    made = sum(sizes.get(shard, 0) for shard in shards) if shards else version.rows
    numbers: Metadata = {
        "rows_in": recorded.rows_in,
        "kept": made / recorded.rows_in if recorded.rows_in else 1.0,
        "bytes_added": recorded.bytes_added,
        "seconds": float(recorded.seconds),
        "values_computed": recorded.computed,
        "values_reused": recorded.reused,
        "stored_as": STORAGE.get(recorded.storage, recorded.storage),
        "parents": ", ".join(parent["name"] for parent in recorded.parents) or "none",
    }
    counts: Counter[str] = Counter()
    for source in recorded.sources:
        counts.update({f"source_{name}": int(count) for name, count in source.get("counts", {}).items()})
    numbers |= counts
    if problems := [problem for source in recorded.sources for problem in source.get("problems", ())]:
        numbers["problems"] = dg.MetadataValue.json(problems)
    for name in (LEFT_OUT, COMPUTED_ON):
        if said := recorded.context.get(name):
            numbers[name] = dg.MetadataValue.text(said)
    return numbers


def column_schema(version: Version, query: DatasetQuery) -> dg.TableSchema:
    """Columns of a version: types, what they are, and what they are computed from.

    The lineage is said in words, too: Dagster's open UI keeps it without showing it.
    """
    docs = column_docs(version.columns, query.plan)
    for name, places in column_lineage(query.plan).items():
        if name not in SYSTEM and {column for _, column in places} - {name}:
            sources = ", ".join(f"{table.partition('.')[0]}.{column}" for table, column in sorted(places))
            docs[name] = f"{docs.get(name, '')} Computed from {sources}.".strip()
    return dg.TableSchema([dg.TableColumn(name, kind, docs.get(name)) for name, kind in version.columns.items()])


def lineage_metadata(query: DatasetQuery) -> dg.TableColumnLineage | None:
    """For each column the columns of other datasets that it is computed from; None when there are none."""
    deps: Mapping[str, list[dg.TableColumnDep]] = {
        name: [dg.TableColumnDep(dg.AssetKey(table.partition(".")[0]), column) for table, column in sorted(places)]
        for name, places in column_lineage(query.plan).items()
        if places
    }
    return dg.TableColumnLineage(deps) if deps else None
