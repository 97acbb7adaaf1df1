"""A lineage as a picture: many versions of one dataset become one box."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from factory_lib.history.lineage import Ancestor, Kind, Lineage, Link

_SINGLE = 3
"""Up to this many versions of a dataset are drawn one by one where something comes from them."""
_DEPTH = 60
"""So many generations are drawn."""


@dataclass(frozen=True)
class Box:
    """Versions of one dataset, or a source, that something comes from in the same way.

    Attributes:
        names: names of the versions, or the URI of the source.
        kind: how what is drawn above comes from it; None at the top.
        shards: how many shards came from it.
        parents: what it comes from itself; empty, too, where `is_repeated`.
        is_repeated: it was drawn before, with what it comes from.
        is_cut: it comes from more than is drawn.
    """

    names: tuple[str, ...]
    kind: Kind | None
    shards: int
    parents: tuple[Box, ...] = field(default=())
    is_repeated: bool = False
    is_cut: bool = False


def boxes(found: Lineage) -> Box:
    """The lineage as a tree with the version itself at the top."""
    drawn: set[tuple[str, ...]] = set()

    def box(names: tuple[str, ...], kind: Kind | None, shards: int, depth: int) -> Box:
        if names in drawn or depth == _DEPTH:
            more = bool(parents.keys() & set(names))
            return Box(names, kind, shards, is_repeated=more and names in drawn, is_cut=more and names not in drawn)
        drawn.add(names)
        return Box(names, kind, shards, tuple(box(*group, depth + 1) for group in _groups(found, parents, names)))

    parents: dict[str, list[Link]] = {}
    for link in found.links:
        turned = replace(link, parent=link.child, child=link.parent) if found.down else link
        parents.setdefault(turned.child, []).append(turned)
    return box((found.version,), None, 0, 0)


def _groups(
    found: Lineage, parents_of: Mapping[str, Sequence[Link]], names: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Kind, int]]:
    """What versions come from, few versions of a dataset one by one, many together."""
    by_dataset: dict[tuple[Kind, str], dict[str, int]] = {}
    for link in (one for name in names for one in parents_of.get(name, ())):
        if link.parent not in names:
            known = by_dataset.setdefault((link.kind, _dataset(found, link)), {})
            known[link.parent] = known.get(link.parent, 0) + link.shards
    for (kind, _), parents in sorted(by_dataset.items(), key=lambda item: item[0][0] == "carried over"):
        ordered = sorted(parents, key=_by_number)
        if len(ordered) > _SINGLE:
            yield tuple(ordered), kind, sum(parents.values())
        else:
            yield from (((name,), kind, parents[name]) for name in ordered)


def label(names: Iterable[str]) -> str:
    """Versions of one dataset in a few words: `laion.v1 … v9 (9 versions)`."""
    listed = list(names)
    if len(listed) == 1:
        return listed[0]
    return f"{listed[0]} … {listed[-1].rpartition('.')[2]} ({len(listed):,} versions)"


def mermaid(found: Lineage) -> str:
    """The lineage as a Mermaid flowchart, from the sources on the left to what was made of them on the right."""
    ids: dict[tuple[str, ...], str] = {}
    lines = ["flowchart LR"]

    def visit(box: Box) -> None:
        if box.names not in ids:
            ids[box.names] = f"n{len(ids)}"
            lines.append(f"    {ids[box.names]}{_shape(found, box)}")
        for parent in box.parents:
            visit(parent)
            style = "-. carried over .->" if parent.kind == "carried over" else "-->"
            ends = (box, parent) if found.down else (parent, box)
            lines.append(f"    {ids[ends[0].names]} {style} {ids[ends[1].names]}")

    visit(boxes(found))
    return "\n".join(lines)


def _shape(found: Lineage, box: Box) -> str:
    name = box.names[0]
    if name in found.sources:
        return f'[("{_escaped(name)}<br/>{_escaped(found.sources[name])}")]'
    text = _escaped(label(box.names))
    ancestor = found.versions.get(name)
    if len(box.names) == 1 and ancestor is not None and ancestor.rows is not None:
        text += f"<br/>{ancestor.rows:,} rows"
    return f'["{text}"]'


def _escaped(text: str) -> str:
    """Text that Mermaid takes as it is."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def _dataset(found: Lineage, link: Link) -> str:
    ancestor: Ancestor | None = found.versions.get(link.parent)
    return ancestor.dataset if ancestor else link.parent


def _by_number(name: str) -> tuple[str, int]:
    dataset, _, number = name.rpartition(".v")
    return (dataset, int(number)) if number.isdigit() else (name, 0)
