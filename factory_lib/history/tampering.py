"""What differs between versions and their seals, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from factory_lib.errors import EngineError
from factory_lib.names import CATALOG
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables
from factory_lib.warehouse.seals import UnverifiedShard, parts_to_doubt, published_as, sealed_columns, sealed_records
from factory_lib.warehouse.versions import Version, content_fingerprints

UNRECORDED = "nothing is recorded of it: the factory did not make it, or what was recorded was removed"


@dataclass(frozen=True)
class Finding:
    """Something about a version that is not as it was published.

    Attributes:
        version: its name.
        what: what is wrong, in words.
        shard: the shard that it is about; empty where it is about the version.
    """

    version: str
    what: str
    shard: str = ""


def compared(warehouse: Warehouse, meant: Sequence[Version]) -> dict[str, list[Finding]]:
    """UUID -> what differs from the seal; nothing is read but shards whose files are others."""
    ensure_tables(warehouse)
    found: dict[str, list[Finding]] = {version.uuid: [] for version in meant}
    if not meant:
        return found
    uuids = list(found)
    tables = warehouse.rows(
        "SELECT toString(uuid) AS id, comment, engine_full FROM system.tables WHERE has({u:Array(UUID)}, uuid)",
        {"u": uuids},
    )
    about = {row["id"]: row for row in tables}
    recorded = _recorded(warehouse, uuids)
    columns, records = sealed_columns(warehouse, uuids), sealed_records(warehouse, uuids)
    parts: dict[str, list[UnverifiedShard]] = {}
    for part in parts_to_doubt(warehouse, uuids):
        parts.setdefault(part.uuid, []).append(part)
    for version in meant:
        name, uuid = str(version), version.uuid
        if uuid not in about:  # dropped meanwhile
            continue
        name_then = published_as(about[uuid]["comment"])
        texts = [
            *_of_table(
                name,
                name_then,
                recorded.get(uuid),
                is_protected=warehouse.deployment.is_protected(about[uuid]["engine_full"]),
            ),
            *_of_columns(*columns.get(uuid, ((), ()))),
            *_of_records(records.get(uuid, {})),
        ]
        found[uuid] += [Finding(name, text) for text in texts]
        if uuid in recorded:
            found[uuid] += _of_parts(version, parts.get(uuid, ()))
    return found


def _recorded(warehouse: Warehouse, uuids: Sequence[str]) -> dict[str, bool]:
    """UUID of a version of which something is recorded -> whether it has a seal."""
    rows = warehouse.rows(
        f"SELECT toString(uuid) AS id, max(sealed) AS sealed FROM (SELECT uuid, false AS sealed FROM {CATALOG}.versions"
        f" UNION ALL SELECT uuid, false FROM {CATALOG}.shards UNION ALL SELECT uuid, true FROM {CATALOG}.seals)"
        " WHERE has({u:Array(UUID)}, uuid) GROUP BY uuid",
        {"u": uuids},
    )
    return {row["id"]: bool(row["sealed"]) for row in rows}


def _of_table(name: str, name_then: str, is_sealed: bool | None, *, is_protected: bool) -> Iterator[str]:
    if is_sealed is None:
        yield UNRECORDED
    if name_then not in ("", name):
        yield f"it was published as {name_then}"
    if name_then and is_sealed is False:
        yield f"its seal was removed from {CATALOG}.seals"
    if not is_protected and is_sealed is not None:
        yield "it can be written to: its protection was taken away"


def _of_columns(was: Sequence[Sequence[str]], now: Sequence[Sequence[str]]) -> Iterator[str]:
    before, after = ({name: (kind, comment) for name, kind, comment in columns} for columns in (was, now))
    for name in before.keys() - after.keys():
        yield f"its column {name} is gone"
    for name in after.keys() - before.keys():
        yield f"it got a column {name}"
    for name in before.keys() & after.keys():
        if before[name][0] != after[name][0]:
            yield f"its column {name} is {after[name][0]}, it was {before[name][0]}"
        elif before[name] != after[name]:
            yield f"the comment of its column {name} is {after[name][1]!r}, it was {before[name][1]!r}"
    if before == after and list(before) != list(after):
        yield "its columns are in another order"


def _of_records(records: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    for table, (before, after) in records.items():
        one = before == 1
        if after < before:
            gone = "its entry is gone" if one else f"{before - after:,} of its {before:,} entries are gone"
            yield f"{gone} from {CATALOG}.{table}"
        elif after > before:
            yield f"it has {after:,} entries in {CATALOG}.{table}, {before:,} {'was' if one else 'were'} written"
        else:
            yield f"its {'entry was' if one else 'entries were'} edited in {CATALOG}.{table}"


def _of_parts(version: Version, parts: Iterable[UnverifiedShard]) -> Iterator[Finding]:
    doubted = {part.shard: part for part in parts if part.state != "unsealed"}
    if not doubted:
        return
    name = str(version)
    try:
        there = rows_there(version, list(doubted))
        wanted = [s for s, part in doubted.items() if part.state == "changed" and there.get(s, 0) == part.rows]
        known = version.known_fingerprints([s for s in wanted if s in version.shards])
        now = fingerprints_now(version, list(known))
    except EngineError as error:
        yield Finding(name, f"it cannot be read: {error.message}")
        return
    for shard, part in doubted.items():
        rows = there.get(shard, 0)
        if part.state == "unknown":
            if rows:
                yield Finding(name, f"it is a shard of {rows:,} rows that was not published", shard)
        elif rows != part.rows:
            yield Finding(name, f"it has {rows:,} rows, {part.rows:,} were published", shard)
        elif shard not in known:
            yield Finding(
                name, "its files are not those that were published: values were changed, or written anew", shard
            )
        elif known[shard] != now[shard]:
            yield Finding(name, "its values are not those that were published", shard)


def fingerprints_now(version: Version, shards: Sequence[str]) -> dict[str, str]:
    """Content fingerprints of shards, computed from their rows whatever is remembered."""
    sources = {shard: version.shards[shard].source for shard in shards}
    return content_fingerprints(version.warehouse, version.table, version.columns, sources) if shards else {}


def rows_there(version: Version, shards: Sequence[str]) -> dict[str, int]:
    """Rows of shards, counted; one without rows is left out."""
    rows = version.warehouse.rows(
        f"SELECT toString(shard) AS shard, count() AS n FROM {version.table}"
        " WHERE has({s:Array(String)}, toString(shard)) GROUP BY shard",
        {"s": list(shards)},
    )
    return {row["shard"]: row["n"] for row in rows}
