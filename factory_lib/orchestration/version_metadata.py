"""What the UI shows of a version: counts that plot over versions, columns, lineage, how it was stored, samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.errors import FactoryError
from factory_lib.orchestration.column_docs import column_docs
from factory_lib.orchestration.contact_sheet import picture_samples
from factory_lib.orchestration.lineage import column_lineage
from factory_lib.orchestration.readable import readable

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


def shard_metadata(version: Version, shard: str | None) -> Metadata:
    """What belongs to one partition's event, or to that of a stage without partitions (`shard` None)."""
    if shard is None:
        return {"dagster/row_count": version.rows, "version": str(version)}
    return {
        "dagster/partition_row_count": version.shard_rows().get(shard, 0),
        "dagster/row_count": version.rows,
        "version": str(version),
    }


def version_metadata(version: Version, query: DatasetQuery) -> Metadata:
    """What describes a version as a whole; it stands on one event of each run."""
    described: Metadata = {
        "dagster/table_name": str(version),
        "dagster/storage_kind": "clickhouse",
        "dagster/column_schema": column_schema(version, query),
        "shards": len(version.shards),
        "query": dg.MetadataValue.md(f"```python\n{readable(query.python)}\n```"),
        **_recorded(version),
    }
    if lineage := lineage_metadata(query):
        described["dagster/column_lineage"] = lineage
    try:
        pictures = picture_samples(version)
    except FactoryError as error:
        described["samples"] = dg.MetadataValue.text(f"No samples could be read: {error}")
    else:
        if pictures is not None:
            described["samples"] = dg.MetadataValue.md(pictures.sheet)
            if pictures.strip:
                described["a_few_samples"] = dg.MetadataValue.md(pictures.strip)
    return described


def _recorded(version: Version) -> Metadata:
    """What provenance says, as numbers that can be plotted."""
    recorded = version.provenance
    if recorded is None:
        return {}
    numbers: Metadata = {
        "rows_in": recorded.rows_in,
        "bytes_added": recorded.bytes_added,
        "seconds": float(recorded.seconds),
        "values_computed": recorded.computed,
        "values_reused": recorded.reused,
        "stored_as": STORAGE.get(recorded.storage, recorded.storage),
        "parents": ", ".join(parent["name"] for parent in recorded.parents) or "none",
    }
    for source in recorded.sources:
        numbers |= {f"source_{name}": int(count) for name, count in source.get("counts", {}).items()}
        if problems := source.get("problems"):
            numbers["problems"] = dg.MetadataValue.json(problems)
    return numbers


def column_schema(version: Version, query: DatasetQuery) -> dg.TableSchema:
    """Columns of a version: types, and what they are."""
    docs = column_docs(version.columns, query.block)
    return dg.TableSchema([dg.TableColumn(name, kind, docs.get(name)) for name, kind in version.columns.items()])


def lineage_metadata(query: DatasetQuery) -> dg.TableColumnLineage | None:
    """For each column the columns of other datasets that it is computed from; None when there are none."""
    deps: Mapping[str, list[dg.TableColumnDep]] = {
        name: [dg.TableColumnDep(dg.AssetKey(table.partition(".")[0]), column) for table, column in sorted(places)]
        for name, places in column_lineage(query.block).items()
        if places
    }
    return dg.TableColumnLineage(deps) if deps else None
