"""Finds one sample in the versions of a dataset and in what they were made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from factory_lib.errors import NotFound, QueryError
from factory_lib.history.lineage import Lineage
from factory_lib.plan.sqltext import literal
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.versions import Version, versions

_AT_ONCE = 20
"""Versions that are searched in one statement."""


@dataclass(frozen=True)
class Place:
    """Where a sample is in a version."""

    version: str
    shard: str
    position: int
    sample_id: int
    key: str


def find_sample(version: Version, ancestry: Lineage, text: str) -> Place:
    """A sample by its key or `sample_id`: in a version, what it was made of, or an earlier version of its dataset.

    Raises:
        NotFound: it is in none of them.
        QueryError: several samples have that key.
    """
    wh = version.warehouse
    searched: set[tuple[str, str]] = set()
    for group in _groups([version, *_others(version, ancestry)]):
        places = _search(wh, group, text, searched)
        if not places:
            continue
        first = [p for p in places if p.version == places[0].version]
        ids = list(dict.fromkeys(p.sample_id for p in first))
        if len(ids) > 1:
            shown = ", ".join(f"{p.sample_id} (shard {p.shard})" for p in first[:5])
            raise QueryError(
                f"{len(ids)} samples of {places[0].version} have the key {text!r}: {shown}.", "Give the id."
            )
        return places[0]
    raise NotFound(
        f"No sample has the key or id {text!r}, in {version}, in what it was made of, or in earlier versions of"
        f" {version.dataset}.",
        f"Keys look like {_some_key(version)!r}." if version.rows else "",
    )


def _others(version: Version, ancestry: Lineage) -> Iterator[Version]:
    """Versions besides the one named: those whose rows it has, then earlier ones of its dataset, then those that were
    looked up on the way: what bears the same name there may be something else.
    """
    wh = version.warehouse
    line = list(_line(str(version), ancestry))
    known = {name: ancestry.versions[name] for name in [*line, *ancestry.versions] if name in ancestry.versions}
    ancestors = [
        Version(one.dataset, int(name.rpartition(".v")[2]), one.uuid, wh)
        for name, one in known.items()
        if one.is_there and name != str(version)
    ]
    before = [one for one in ancestors if str(one) in set(line)]
    earlier = reversed(versions(wh, version.dataset))
    listed = {str(version)}
    for candidate in (*before, *earlier, *ancestors):
        if str(candidate) not in listed:
            listed.add(str(candidate))
            yield candidate


def _line(name: str, ancestry: Lineage) -> Iterator[str]:
    """The versions that gave a version its rows: what it carried shards over from, and the first that its query reads.

    `kept.v2` -> `kept.v2`, `kept.v1` (carried over), `laion.v3` (filtered), `laion.v2` (carried over) …
    """
    seen: set[str] = set()
    todo = [name]
    while todo:
        child = todo.pop(0)
        if child in seen:
            continue
        seen.add(child)
        yield child
        made = [link.parent for link in ancestry.links if link.child == child and link.kind == "made of"]
        carried = [link.parent for link in ancestry.links if link.child == child and link.kind == "carried over"]
        todo += [*carried, *made[:1]]


def _groups(candidates: Iterable[Version]) -> Iterator[list[Version]]:
    """The first alone, as samples mostly are there; the others in groups."""
    group: list[Version] = []
    for i, candidate in enumerate(candidates):
        group.append(candidate)
        if i == 0 or len(group) == _AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _search(wh: Warehouse, group: Sequence[Version], text: str, searched: set[tuple[str, str]]) -> list[Place]:
    """Where the sample is in versions, in their order; shards that were searched in another version are left out."""
    parts: list[str] = []
    for version in group:
        new = [name for name, shard in version.shards.items() if (shard.origin, name) not in searched]
        searched |= {(version.shards[name].origin, name) for name in new}
        if new:
            shards = f" AND shard IN ({', '.join(map(literal, new))})" if len(new) < len(version.shards) else ""
            parts.append(
                f"SELECT {len(parts)} AS rank, {literal(str(version))} AS version, toString(shard) AS shard, position,"
                f" sample_id, key FROM {version.table} WHERE {_condition(text)}{shards}"
            )
    if not parts:
        return []
    query = (
        f"SELECT version, shard, position, sample_id, key FROM ({' UNION ALL '.join(parts)}) ORDER BY rank LIMIT 100"
    )
    return [Place(**row) for row in wh.rows(query, {"k": text})]


def _condition(text: str) -> str:
    by_key = "key = {k:String}"
    return f"({by_key} OR sample_id = {int(text)})" if text.isdigit() and int(text) < 2**64 else by_key


def _some_key(version: Version) -> str:
    return str(version.warehouse.scalar(f"SELECT key FROM {version.table} LIMIT 1"))
