"""The state of the files that rows point into: a table `shard, uri, etag` for as long as values are computed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from factory_lib.errors import FactoryError
from factory_lib.names import CATALOG
from factory_lib.plan.sqltext import quote
from factory_lib.storage.store import store
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.scratch import scratch_table
from factory_lib.warehouse.staging import StagingTable

_REQUESTS = 16
_NO_ETAG = "unknown-"


@contextlib.contextmanager
def ingested_files(warehouse: Warehouse, sources: Mapping[str, str]) -> Iterator[str]:
    """A table `shard, uri, etag`: the files of each shard as they were when it was ingested.

    Args:
        sources: shard -> fingerprint of its files; an empty one where that is not known.
    """
    ensure_tables(warehouse)
    with scratch_table(warehouse, "files", "shard String, uri String, etag String") as name:
        known = {shard: source for shard, source in sources.items() if source}
        if known:
            warehouse.execute(
                f"INSERT INTO {name} SELECT _m.shard, _f.uri, any(_f.etag) FROM"
                " (SELECT _p.1 AS shard, _p.2 AS source"
                " FROM (SELECT arrayJoin(arrayZip({s:Array(String)}, {o:Array(String)})) AS _p)) AS _m INNER JOIN"
                f" (SELECT * FROM {CATALOG}.files WHERE has({{o:Array(String)}}, source)) AS _f"
                " ON _f.source = _m.source"
                " GROUP BY _m.shard, _f.uri",
                {"s": list(known), "o": list(known.values())},
            )
        yield name


@contextlib.contextmanager
def files_of(stage: StagingTable, members: Sequence[str], sources: Mapping[str, str], run: str) -> Iterator[str]:
    """A table `shard, uri, etag` of all files that the members of a table's rows are in.

    They are as they were at ingest. A file of which that is not known, because the rows were written by hand or belong
    to no shard any more, is looked at now. One that cannot be looked at gets an etag that no other run knows.

    Args:
        sources: shard -> fingerprint of the files that its rows point into.
        run: what makes such an etag unique.
    """
    with ingested_files(stage.warehouse, sources if members else {}) as name:
        for member in members:
            _add_unknown(stage, member, name, set(sources.values()), run)
        yield name


def etags(warehouse: Warehouse, files: str, shards: Sequence[str]) -> dict[str, str]:
    """uri -> etag of the files of some shards, where it is known."""
    rows = warehouse.query(
        f"SELECT uri, any(etag) AS state FROM {files} WHERE has({{s:Array(String)}}, shard)"
        f" AND NOT startsWith(etag, '{_NO_ETAG}') GROUP BY uri",
        {"s": list(shards)},
    )
    return dict(zip(rows["uri"].to_pylist(), rows["state"].to_pylist(), strict=True))


def _add_unknown(stage: StagingTable, member: str, files: str, sources: set[str], run: str) -> None:
    wh = stage.warehouse
    uri = f"toString(tupleElement({quote(member)}, 'uri'))"
    unknown = wh.query(
        f"SELECT DISTINCT toString(shard) AS shard, {uri} AS uri FROM {stage.name} WHERE uri != ''"
        f" AND (toString(shard), {uri}) NOT IN (SELECT shard, uri FROM {files})"
    )
    if not unknown.num_rows:
        return
    at_ingest = provenance.etags(wh, sources)
    wanted = sorted(set(unknown["uri"].to_pylist()) - at_ingest.keys())
    with ThreadPoolExecutor(_REQUESTS) as pool:
        now = dict(zip(wanted, pool.map(lambda one: _etag_now(one, run), wanted), strict=True))
    found = at_ingest | now
    wh.insert(files, unknown.append_column("etag", pa.array([found[one] for one in unknown["uri"].to_pylist()])))


def _etag_now(uri: str, run: str) -> str:
    try:
        return store().info(uri).etag or f"{_NO_ETAG}{run}"
    except (FactoryError, OSError):
        return f"{_NO_ETAG}{run}"
