"""Why two versions differ: what made their shards, compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from factory_lib.fingerprints.components import other_way
from factory_lib.history.comparing import Difference, compare, differing_shards
from factory_lib.history.origins import KnownVersion, Origin, known_versions, origins
from factory_lib.plan.codec import UnknownRecipe
from factory_lib.plan.difference import Change, changes
from factory_lib.plan.identity import identity
from factory_lib.plan.recorded import recorded
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.versions import Version

_NAMED_FILES = 5
_Makers = tuple[dict[str, Origin], dict[str, Origin]]
"""Shard -> the version that made it, in the first of two versions and in the second."""
_FOLLOWED = 30
"""Pairs of versions upstream that are looked at."""


@dataclass(frozen=True)
class Reason:
    """One thing that explains a difference.

    Attributes:
        kind: query, signal, files, parents, code, or made (shards that only one version has).
        text: what it is, in a few words.
        shards: how many differing shards it concerns.
        before, after: what it was in the two versions, where that can be said.
        version: the version in whose making it differs, where that is one that the versions were made of.
    """

    kind: str
    text: str
    shards: int
    before: str = ""
    after: str = ""
    version: str = ""


def explained(before: Version, after: Version) -> Difference:
    """How two versions differ, and why."""
    return replace(compare(before, after), reasons=reasons(before, after))


def reasons(before: Version, after: Version) -> list[Reason]:
    """What explains the shards that are not the same in two versions; what concerns most shards comes first.

    Where they were made of different versions of a dataset, what explains the difference of these follows.
    """
    shards = differing_shards(before, after)
    made = _made(before, shards), _made(after, shards)
    own = _direct(before, after, shards, made)
    files = {reason.text for reason in own if reason.kind == "files"}
    found = [*own]
    for first, second, differing, makers in _upstream(before, after, made):
        found += [
            replace(reason, version=str(second))
            for reason in _direct(first, second, differing, makers)
            if reason.kind not in ("parents", "code", "made") and reason.text not in files
        ]
        files |= {reason.text for reason in found if reason.kind == "files"}
    return found


def _upstream(
    before: Version, after: Version, made: _Makers
) -> Iterator[tuple[Version, Version, Sequence[str], _Makers]]:
    """Pairs of versions of one dataset that two versions, or what these were made of, were made of; nearest first.

    Each with the shards that differ, and the versions that made them.
    """
    todo, seen = [made], {(before.uuid, after.uuid)}
    while todo and len(seen) <= _FOLLOWED:
        sides = [{uuid for origin in side.values() for uuid in _parents(origin).values()} for side in todo.pop(0)]
        known = known_versions(before.warehouse, [*sides[0], *sides[1]])
        newest = [_newest(before.warehouse, side, known) for side in sides]
        for dataset in sorted(newest[0].keys() & newest[1].keys()):
            pair = newest[0][dataset], newest[1][dataset]
            ids = pair[0].uuid, pair[1].uuid
            if ids[0] != ids[1] and ids not in seen:
                seen.add(ids)
                shards = differing_shards(*pair)
                makers = _made(pair[0], shards), _made(pair[1], shards)
                yield *pair, shards, makers
                todo.append(makers)


def _newest(warehouse: Warehouse, uuids: Iterable[str], known: Mapping[str, KnownVersion]) -> dict[str, Version]:
    """Dataset -> the newest of these versions that is there."""
    found: dict[str, Version] = {}
    for uuid in uuids:
        if uuid in known and known[uuid].is_there:
            dataset, _, number = known[uuid].name.rpartition(".v")
            version = Version(dataset, int(number), uuid, warehouse)
            if dataset not in found or found[dataset].number < version.number:
                found[dataset] = version
    return found


def _direct(before: Version, after: Version, shards: Sequence[str], made: _Makers) -> list[Reason]:
    """What explains the difference in the making of two versions themselves."""
    if path := _path(before.warehouse, before.uuid, made[1].values()):
        return [Reason("query", f"{o.name} was made by", len(shards), after=_python(o)) for o in path]
    counted: dict[Reason, int] = {}
    queries = _Queries(before.warehouse, [*made[0].values(), *made[1].values()])
    for shard in shards:
        for reason in _pair(made[0].get(shard), made[1].get(shard), queries):
            counted[reason] = counted.get(reason, 0) + 1
    found = [replace(reason, shards=n) for reason, n in counted.items()]
    return sorted([*found, *_files(before, after, shards)], key=lambda r: (r.kind == "code", -r.shards))


def _made(version: Version, shards: Sequence[str]) -> dict[str, Origin]:
    """Shard -> the version that made it."""
    by_origin: dict[str, list[str]] = {}
    for shard in shards:
        if shard in version.shards:
            by_origin.setdefault(version.shards[shard].origin, []).append(shard)
    return {shard: origin for origin in origins(version.warehouse, by_origin) for shard in origin.shards}


def _path(warehouse: Warehouse, start: str, made: Iterable[Origin]) -> list[Origin]:
    """The versions on the way from one to what was made of it; none when nothing was."""
    level = {origin.uuid: [origin] for origin in made}
    seen = set(level)
    while level:
        above: dict[str, list[Origin]] = {}
        for path in level.values():
            for uuid in _parents(path[0]).values():
                if uuid == start:
                    return path
                above.setdefault(uuid, path)
        found = origins(warehouse, dict.fromkeys(above.keys() - seen, ()))
        seen |= above.keys()
        level = {origin.uuid: [origin, *above[origin.uuid]] for origin in found}
    return []


class _Queries:
    """Compares the queries that made versions: all are read at once, and each two compared once."""

    def __init__(self, warehouse: Warehouse, makers: Iterable[Origin]) -> None:
        self._recipes = provenance.read_recipes(warehouse, {maker.uuid for maker in makers})
        self._identities = {uuid: identity(recipe) for uuid, recipe in self._recipes.items() if "nodes" in recipe}
        self._known: dict[tuple[str, str], list[Change] | None] = {}

    def reasons(self, old: Origin, new: Origin) -> list[Reason]:
        """In what the queries that made two versions differ."""
        pair = self._identities.get(old.uuid), self._identities.get(new.uuid)
        if pair[0] is None or pair[1] is None:
            return [Reason("query", "the queries were not recorded such that they can be compared", 0)]
        if pair[0] == pair[1]:
            return []
        key = pair[0], pair[1]
        if key not in self._known:
            self._known[key] = self._changes(old.uuid, new.uuid)
        found = self._known[key]
        if found is None:
            return [Reason("query", "a query holds what this release does not know", 0)]
        # Signals are told of by what they were computed by.
        told = [change for change in found if not change.text.startswith("signal ")]
        if not found and not any(_signals(old, new)):
            text = "the query differs in how its verbs follow each other"
            return [Reason("query", text, 0, _python(old), _python(new))]
        return [Reason("query", one.text, 0, one.before, one.after) for one in told]

    def _changes(self, before: str, after: str) -> list[Change] | None:
        try:
            return changes(recorded(self._recipes[before]), recorded(self._recipes[after]))
        except UnknownRecipe:
            return None


def _pair(old: Origin | None, new: Origin | None, queries: _Queries) -> Iterator[Reason]:
    """What differs between the makers of a shard; counts of shards are filled in later."""
    if new is None or old is None:
        origin = new or old
        assert origin is not None
        text = f"only in {'the second' if new else 'the first'}, made by {origin.name}"
        yield Reason("made", text, 0, after=_python(origin))
        return
    if old.uuid == new.uuid:
        return
    first, second = old.provenance, new.provenance
    if first is None or second is None:
        yield Reason("query", "what made them was not recorded", 0)
        return
    yield from queries.reasons(old, new)
    yield from _signals(old, new)
    versions = _parent_names(old), _parent_names(new)
    for dataset in versions[0].keys() | versions[1].keys():
        names = versions[0].get(dataset, ""), versions[1].get(dataset, "")
        if names[0] != names[1]:
            yield Reason("parents", f"made of {names[1] or 'no ' + dataset} instead of {names[0] or 'none'}", 0, *names)
    for name in first.code.keys() | second.code.keys():
        values = first.code.get(name, ""), second.code.get(name, "")
        if values[0] != values[1] and name != "changed":
            yield Reason("code", f"{name} {values[1][:12]} instead of {values[0][:12]}", 0, *values)


def _signals(old: Origin, new: Origin) -> Iterator[Reason]:
    assert old.provenance is not None
    assert new.provenance is not None
    first = {s["name"]: s for s in old.provenance.signals}
    second = {s["name"]: s for s in new.provenance.signals}
    for name in sorted(first.keys() | second.keys()):
        if name not in second or name not in first:
            yield Reason("signal", f"{name}: only {'after' if name in second else 'before'}", 0)
            continue
        prints = first[name]["fingerprint"], second[name]["fingerprint"]
        if prints[0] != prints[1]:
            parts = first[name].get("components", {}), second[name].get("components", {})
            told = other_way(*parts)
            changed = sorted(n for n in parts[0].keys() | parts[1].keys() if parts[0].get(n) != parts[1].get(n))
            which = f": {told}" if told else f": {', '.join(changed)} changed" if changed else ""
            yield Reason("signal", f"{name} was computed by other code{which}", 0, *prints)


def _files(before: Version, after: Version, shards: Sequence[str]) -> list[Reason]:
    """Files behind the shards that are new, gone, or changed under their names."""
    both = [s for s in shards if s in before.shards and s in after.shards]
    touched = [s for s in both if before.shards[s].source != after.shards[s].source]
    if not touched:
        return []
    first, second = (
        provenance.etags(v.warehouse, [v.shards[s].source for s in touched if v.shards[s].source])
        for v in (before, after)
    )
    kinds = {
        "new": sorted(second.keys() - first.keys()),
        "gone": sorted(first.keys() - second.keys()),
        "changed": sorted(u for u in first.keys() & second.keys() if first[u] != second[u]),
    }
    found = []
    for kind, uris in kinds.items():
        if uris:
            more = f" and {len(uris) - _NAMED_FILES} more" if len(uris) > _NAMED_FILES else ""
            text = f"{len(uris):,} source files {kind}: {', '.join(uris[:_NAMED_FILES])}{more}"
            found.append(Reason("files", text, len(touched)))
    return found


def _python(origin: Origin) -> str:
    return origin.provenance.python if origin.provenance else "not recorded"


def _parents(origin: Origin) -> dict[str, str]:
    return {p["name"]: p["uuid"] for p in origin.provenance.parents} if origin.provenance else {}


def _parent_names(origin: Origin) -> dict[str, str]:
    """Dataset -> the version of it that was read."""
    return {name.partition(".")[0]: name for name in _parents(origin)}
