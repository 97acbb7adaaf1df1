"""Samples in storage: shards of a source are read into a staging table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from factory_lib.build.ledger import Ledger
from factory_lib.build.rows import stage_of_rows
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.nodes import Storage
from factory_lib.plan.storing import SYSTEM
from factory_lib.redaction import redact, without_credentials
from factory_lib.warehouse import provenance
from factory_lib.warehouse.arrow_types import clickhouse_type
from factory_lib.warehouse.staging import StagingTable


def storage_rows(source: Any, shards: Sequence[str] | None) -> Storage:
    """The plan of samples in storage.

    Args:
        source: see `factory_lib.sources`.
        shards: names of those that are read; None for all.

    Raises:
        QueryError: there is no such shard.
        FactoryError: all are to be read of several sources, and one of them is away.
    """
    from factory_lib.sources.several import UnitedSource

    if shards is None and isinstance(source, UnitedSource):
        source.check_whole()
    known = {shard.name: shard for shard in source.shards()}
    for name in shards or ():
        if name not in known:
            raise QueryError(f"{source.uri} has no shard {name!r}.", nearest(name, known))
    schema: pa.Schema = source.schema
    columns = {**SYSTEM, **{f.name: clickhouse_type(f) for f in schema if f.name not in SYSTEM}}
    read = tuple(known[name] for name in (known if shards is None else shards))
    return Storage(source, read, shards is None, without_credentials(source.uri), columns=columns)


def write_storage(node: Storage, ledger: Ledger) -> StagingTable:
    """Read shards into a staging table."""
    from factory_lib.sources import ShardReport, read_shards
    from factory_lib.sources.losses import loss_of

    reports: dict[str, ShardReport] = {}
    batches = (
        batch.append_column("shard", pa.array([shard] * batch.num_rows, pa.string()))
        for shard, batch in read_shards(node.source, node.shards, reports=reports)
    )
    places = getattr(node.source, "places", None)
    stage = stage_of_rows(node.columns, batches, f"ingesting {redact(node.source.uri)}", places)
    ledger.shard_sources |= {shard.name: shard.fingerprint for shard in node.shards}
    files = {s.fingerprint: [(f.uri, f.size, f.etag) for f in s.files] for s in node.shards}
    provenance.record_files(stage.warehouse, files)
    ledger.sources += _summaries(node, reports)
    ledger.losses += [loss for report in reports.values() if (loss := loss_of(report)) is not None]
    ledger.bytes += stage.bytes()
    ledger.storage.append("ingest")
    return stage


def _summaries(node: Storage, reports: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What was read of a source, or of each of several."""
    from factory_lib.sources.several import UnitedSource

    if not isinstance(node.source, UnitedSource):
        return [_summary({"uri": node.source.uri, "format": node.source.format}, node.source, node.shards, reports)]
    return [
        _summary({**member.summary(), "declared_in": node.source.uri}, member.source, shards, reports)
        for member, shards in node.source.by_member(node.shards)
    ]


def _summary(
    known: Mapping[str, str], source: Any, shards: Sequence[Any], reports: Mapping[str, Any]
) -> dict[str, Any]:
    counts: dict[str, int] = {}
    account = getattr(source, "account", None)
    own = {shard.name: reports[shard.name] for shard in shards if shard.name in reports}
    for report in own.values():
        for name, n in report.counts.items():
            counts[name] = counts.get(name, 0) + n
    return {
        **known,
        "samples": sum(r.samples for r in own.values()),
        "counts": counts,
        "shards": {s.name: s.fingerprint for s in shards},
        "problems": [f"{name}: {p}" for name, r in sorted(own.items()) for p in r.problems][:100],
        "account": account.with_those(r.account for r in own.values()).data() if account else [],
    }
