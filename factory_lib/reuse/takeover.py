"""Values that an earlier version holds are taken over for samples whose inputs are the same, inside the warehouse.

First by place, which reads nothing: the tar is as it was, and so are the columns that the signal reads. Then by
content: where a tar was rewritten, samples that a version holds under the same id and of the same size are read again
and hashed, which costs their bytes but decodes nothing, and those whose hash is the recorded one keep their values,
wherever in the tar they are now. The other samples of the tar differ for certain, and are not read for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from factory_lib.errors import EngineError
from factory_lib.reuse.contents import among, hash_unknown, without_value
from factory_lib.reuse.files import ingested_files
from factory_lib.reuse.identity import Rows
from factory_lib.reuse.staged import Staged
from factory_lib.sqltext import quote
from factory_lib.warehouse.computed import Earlier, earlier_values
from factory_lib.warehouse.stage import table_columns

_UNKNOWN_TABLE = 60
_SHARDS_AT_ONCE = 200


def take_over(staged: Staged, types: Mapping[str, str]) -> None:
    """Stage the values of a signal that versions hold for rows that have none yet.

    Args:
        staged: the signal's staged values.
        types: column -> ClickHouse type of the rows.
    """
    shards = _missing_shards(staged)
    if not shards:
        return
    for rank in earlier_values(staged.warehouse, staged.fingerprint, shards):
        wanted = set(shards)
        for earlier in rank:
            some = {shard: source for shard, source in earlier.sources.items() if shard in wanted}
            if some and _fits(staged, earlier, types):
                for piece in _pieces(some):
                    _take_or_leave(staged, replace(earlier, sources=piece))
        shards = _missing_shards(staged)
        if not shards:
            return


def _missing_shards(staged: Staged) -> list[str]:
    rows = staged.warehouse.rows(f"SELECT DISTINCT shard FROM {staged.inputs.name} WHERE {staged.is_missing()}")
    return sorted(row["shard"] for row in rows)


def _fits(staged: Staged, earlier: Earlier, types: Mapping[str, str]) -> bool:
    """Whether a version has the columns, with the types of now: equal hashes of other types could be other values."""
    database, _, table = earlier.table.replace("`", "").partition(".")
    there = table_columns(staged.warehouse, database, table)[0]
    held = earlier.held
    return (
        there.get(held.value) == staged.signal.output.clickhouse
        and held.error in there
        and all(c in held.reads and there.get(held.reads[c]) == types[c] for c in staged.signal.reads)
    )


def _take_or_leave(staged: Staged, earlier: Earlier) -> None:
    try:
        _take(staged, earlier)
    except EngineError as error:
        if error.code != _UNKNOWN_TABLE:  # the version was dropped meanwhile
            raise


def _take(staged: Staged, earlier: Earlier) -> None:
    with _earlier_rows(staged, earlier) as rows:
        _by_place(staged, earlier, rows)
        if staged.reads.members and (shards := sorted(set(earlier.sources) & set(_missing_shards(staged)))):
            hash_unknown(staged, rows, shards)
            _by_content(staged, earlier, rows, shards)


@contextmanager
def _earlier_rows(staged: Staged, earlier: Earlier) -> Iterator[Rows]:
    """The rows of the version that may be taken over."""
    members = staged.reads.members
    with ingested_files(staged.warehouse, earlier.sources if members else {}) as files:
        where = f"{among(earlier.sources, 't.shard')} AND {staged.lasting('t.' + quote(earlier.held.error))}"
        yield Rows(earlier.table, files, earlier.held.reads, where)


def _by_place(staged: Staged, earlier: Earlier, rows: Rows) -> None:
    wanted = (
        f"SELECT shard, {staged.identity} FROM {staged.inputs.name}"
        f" WHERE {among(earlier.sources)} AND {staged.is_missing()}"
    )
    found = rows.by_place([staged.reads], _values(earlier))
    staged.take(
        f"SELECT shard, position, identity_0 AS identity, value, error FROM ({found})"
        f" WHERE (shard, identity_0) IN ({wanted}) LIMIT 1 BY shard, identity_0"
    )


def _by_content(staged: Staged, earlier: Earlier, rows: Rows, shards: Sequence[str]) -> None:
    # Several rows of now may have the same content in different places, and several of then, too.
    inputs = staged.inputs
    now = replace(inputs.rows, where=without_value(staged, shards)).by_content(staged.reads)
    places = (
        f"SELECT n.shard AS shard, n.identity_0 AS content, groupUniqArray(i.{staged.identity}) AS places"
        f" FROM ({now}) AS n INNER JOIN {inputs.name} AS i ON i.shard = n.shard AND i.position = n.position"
        " GROUP BY n.shard, n.identity_0"
    )
    then = replace(rows, where=f"{rows.where} AND {among(shards, 't.shard')}").by_content(
        staged.reads, _values(earlier)
    )
    staged.take(
        "SELECT t.shard AS shard, t.position AS position, arrayJoin(p.places) AS identity, t.value AS value,"
        f" t.error AS error FROM (SELECT * FROM ({then}) LIMIT 1 BY shard, identity_0) AS t"
        f" INNER JOIN ({places}) AS p ON p.shard = t.shard AND p.content = t.identity_0"
    )


def _values(earlier: Earlier) -> list[str]:
    return [f"t.{quote(earlier.held.value)} AS value", f"t.{quote(earlier.held.error)} AS error"]


def _pieces(sources: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Shards in pieces: the parser bounds the size of a statement."""
    items = list(sources.items())
    for i in range(0, len(items), _SHARDS_AT_ONCE):
        yield dict(items[i : i + _SHARDS_AT_ONCE])
