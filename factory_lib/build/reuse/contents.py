"""Hashes of the bytes of members that are in the catalog, and how they come there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.build.reuse.files import etags
from factory_lib.build.reuse.identity import HashedRows, Reads
from factory_lib.build.reuse.inputs import Inputs
from factory_lib.compute.reading import PREFIX, ReadPlan, hash_column, read_members, tasks
from factory_lib.plan.sqltext import literal, quote
from factory_lib.progress import track
from factory_lib.settings import settings
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.computed import record_contents

_TASK_ROWS = 1024
_AHEAD = 2


def hash_unknown(inputs: Inputs, reads: Reads, wanted: str, earlier: HashedRows, shards: Sequence[str]) -> None:
    """Read and hash members of rows without a value that may be what they were.

    That is so where a row of then, of whose members hashes are known, has the same id and members of the same size.

    Args:
        wanted: SQL condition on the inputs: the rows without a value.
        earlier: the rows of then.
        shards: the shards to look at.
    """
    members = reads.members
    sizes = {f"size_{i}": f"tupleElement(_t.{{}}, 'size') AS size_{i}" for i in range(len(members))}
    of_then = [text.format(quote(earlier.columns.get(m, m))) for text, m in zip(sizes.values(), members, strict=True)]
    of_now = [f"tupleElement(_t.{quote(m)}, 'size')" for m in members]
    then = replace(earlier, where=f"{earlier.where} AND {among(shards, '_t.shard')}").by_content(
        reads, ["_t.sample_id AS sample_id", *of_then]
    )
    alike = ", ".join(["sample_id", *sizes])
    where = (
        f"{without_value(inputs, wanted, shards)} AND (toString(_t.shard), _t.sample_id, {', '.join(of_now)})"
        f" IN (SELECT shard, {alike} FROM ({then}))"
    )
    hash_rows(inputs, reads, where, shards)


def hash_rows(inputs: Inputs, reads: Reads, where: str, shards: Sequence[str]) -> None:
    """Read and hash members of rows whose hashes are not known.

    Args:
        where: SQL condition on the rows, called `_t`.
        shards: the shards that they are in.
    """
    wh, members, now = inputs.warehouse, reads.members, inputs.rows
    pointers = ", ".join(f"_t.{quote(m)} AS {quote(m)}" for m in members)
    joins = now.file_joins(members) + now.content_joins(members)
    candidates = (
        f"SELECT {pointers} FROM (SELECT * FROM {now.table} AS _t WHERE {where}) AS _t{joins}"
        f" WHERE {_unknown(now, members)} ORDER BY _t.shard, _t.position"
    )
    states = etags(wh, now.files, shards)
    with track(f"comparing {', '.join(members)} with what was there") as progress:
        for batch in hash_members(wh.stream(candidates), members, states):
            remember(wh, pa.Table.from_batches([batch]), members, states)
            progress.advance(batch.num_rows)


def hash_members(
    rows: Iterable[pa.RecordBatch], members: Sequence[str], states: Mapping[str, str]
) -> Iterator[pa.RecordBatch]:
    """Read members and hash their bytes: nothing is decoded.

    Args:
        rows: batches with a pointer column for each member, in byte order.
        states: uri -> etag that its reads are pinned to.

    Yields:
        The rows with a column `_hash_<member>` for each; NULL where nothing was read.
    """
    threads = max(2, settings().workers)
    waiting: deque[Future[pa.RecordBatch]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for batch in rows:
            for task in tasks([batch], ReadPlan(tuple(members), tuple(batch.schema.names)), _TASK_ROWS):
                waiting.append(pool.submit(_hashed, task, members, states))
                if len(waiting) >= threads * _AHEAD:
                    yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _hashed(rows: pa.RecordBatch, members: Sequence[str], states: Mapping[str, str]) -> pa.RecordBatch:
    for name, reads in read_members(rows, members, states).items():
        rows = rows.append_column(PREFIX + name, hash_column(reads))
    return rows


def remember(warehouse: Warehouse, rows: pa.Table, members: Sequence[str], states: Mapping[str, str]) -> None:
    """Record the hashes of members in the catalog.

    Args:
        rows: for each member its pointer column and `_hash_<member>`.
        states: uri -> etag that its reads were pinned to; the hash of a file in no known state says nothing.
    """
    for name in members:
        hashes = rows.column(PREFIX + name)
        kept = rows.filter(pc.is_valid(hashes))
        pointer = kept.column(name).combine_chunks()
        parts = {part: pc.struct_field(pointer, part) for part in ("uri", "offset", "size")}
        uris = parts["uri"].cast(pa.string()).dictionary_encode()
        known = pa.array([states.get(uri) for uri in uris.dictionary.to_pylist()], pa.string())
        etag = known.take(uris.indices)
        table = pa.table({**parts, "uri": uris.cast(pa.string()), "etag": etag, "hash": kept.column(PREFIX + name)})
        record_contents(warehouse, table.filter(pc.is_valid(etag)))


def all_known(rows: HashedRows, members: Sequence[str], where: str, warehouse: Warehouse) -> bool:
    """Whether the hashes of all members of some rows are in the catalog."""
    joins = rows.file_joins(members) + rows.content_joins(members)
    text = f"SELECT count() FROM {rows.table} AS _t{joins} WHERE {where} AND {_unknown(rows, members)}"
    return not warehouse.scalar(text)


def without_value(inputs: Inputs, wanted: str, shards: Iterable[str]) -> str:
    """SQL condition on the rows, called t: they are in these shards and have no value yet."""
    return (
        f"{among(shards, '_t.shard')} AND (toString(_t.shard), _t.position) IN (SELECT shard, position"
        f" FROM {inputs.name} WHERE {among(shards)} AND {wanted})"
    )


def among(shards: Iterable[str], column: str = "shard") -> str:
    """SQL condition: a row is in one of these shards."""
    return f"{column} IN ({', '.join(map(literal, sorted(shards)))})"


def _unknown(rows: HashedRows, members: Sequence[str]) -> str:
    """SQL condition behind the joins of contents: a member's hash is not known."""
    return "(" + " OR ".join(f"({rows.uri(m)} != '' AND _c{i}.uri = '')" for i, m in enumerate(members)) + ")"
