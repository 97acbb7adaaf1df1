"""Reports in notebooks: what differs, where something comes from, whether it could be made again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from factory_lib.history.drawing import Box, boxes, label
from factory_lib.tables import cell
from factory_lib.view.html import Markup, bad, counted, head, note, page, table, tree

if TYPE_CHECKING:
    from factory_lib.history.comparing import Difference
    from factory_lib.history.lineage import Lineage
    from factory_lib.history.reproducing import Reproduction
    from factory_lib.history.tracing import Step, Trace

_LISTED = 20


def difference_page(found: Difference) -> str:
    """What differs between two versions, by shard and by column, and what explains it."""
    title = head(f"{found.before} and {found.after}")
    if found.is_empty:
        return page(title, note("The same samples, with the same values in the same columns."))
    totals = [("added", found.added), ("removed", found.removed), ("changed", found.changed), ("moved", found.moved)]
    totals.append(("in other shards", found.resharded.samples))
    columns = [(f"+ {name}", kind) for name, kind in found.columns_added.items()]
    columns += [(f"- {name}", kind) for name, kind in found.columns_dropped.items()]
    columns += [(f"~ {name}", f"{new}, was {old}") for name, (old, new) in found.columns_retyped.items()]
    changed = [(name, f"{n:,}") for name, n in sorted(found.columns.items(), key=lambda item: -item[1])]
    shards = [
        (s.shard, *(f"{n:,}" for n in (s.rows_before, s.rows_after, s.added, s.removed, s.changed, s.moved)))
        for s in found.shards[:_LISTED]
    ]
    more = len(found.shards) - _LISTED
    return page(
        title,
        note(f"samples: {', '.join(f'{n:,} {word}' for word, n in totals if n) or 'the same'}"),
        note(f"{len(found.shards):,} of {counted(len(found.shards) + found.shards_alike, 'shard')} differ"),
        _table(("column", "type"), columns, numbers=()),
        _table(("column", "changed"), changed, numbers=("changed",)),
        _table(("shard", *_COUNTED), shards, numbers=_COUNTED),
        note(f"… and {counted(more, 'shard')} more: to_arrow() has all" if more > 0 else ""),
        _reasons(found),
    )


_COUNTED = ("before", "after", "added", "removed", "changed", "moved")


def _reasons(found: Difference) -> Markup:
    rows = [
        (one.kind, one.text, one.before or "", one.after or "", f"{one.shards:,}", one.version or "")
        for one in found.reasons[:_LISTED]
    ]
    return _table(("because of", "what", "was", "is", "shards", "in"), rows, numbers=("shards",))


def lineage_page(found: Lineage) -> str:
    """Where a version comes from, or what comes from it, as a tree; many versions of a dataset are one line."""
    return page(_tree(found, boxes(found)))


def _tree(found: Lineage, box: Box) -> Markup:
    name = box.names[0]
    if name in found.sources:
        return tree(f"source {name} ({found.sources[name]})", ())
    one = found.versions.get(name) if len(box.names) == 1 else None
    facts = [f"{counted(box.shards, 'shard')} carried over"] if box.kind == "carried over" else []
    if one is not None:
        facts += [counted(one.rows, "row")] if one.rows is not None else []
        facts += [one.storage] if one.storage else []
        facts += [f"signals {', '.join(one.signals)}"] if one.signals else []
        facts += [] if one.is_there else ["dropped"]
    facts += ["as above"] if box.is_repeated else []
    facts += ["made of more: to_arrow() has it all"] if box.is_cut else []
    text = label(box.names)
    return tree(f"{text} ({'; '.join(facts)})" if facts else text, [_tree(found, parent) for parent in box.parents])


def trace_page(found: Trace) -> str:
    """One sample on its way to a version."""
    rows = [(step.version, _state(step, found.dropped_by), _said(step)) for step in found.steps]
    headings = [("version", ""), ("where", ""), ("what", "")]
    of = found.parent
    made = [note(f"made of sample {of.sample_id}, key {of.key}")] if of is not None else []
    made += [note(f"of it: {one.key}, {one.operation}, in {', '.join(one.versions)}") for one in found.children]
    return page(head(f"sample {found.sample_id}, key {found.key}"), *made, table(headings, rows))


def _state(step: Step, dropped_by: str | None) -> str | Markup:
    if step.version == dropped_by:
        return bad("dropped")
    if step.is_there is None:
        return "the version was deleted"
    return f"shard {step.shard}, position {step.position}" if step.is_there else "not there"


def _said(step: Step) -> str:
    why = [*(f"does not meet {one.condition}" for one in step.failures), *([step.reason] if step.reason else [])]
    return "; ".join(why) or ", ".join(f"{value.column} = {cell(value.value)}" for value in step.values)


def reproduction_page(found: Reproduction) -> str:
    """Whether a version could be made again: the shards that are not equal, and why."""
    others = [one for one in found.shards if one.verdict != "equal"]
    rows = [(one.shard or "–", one.made_by, one.verdict, one.reason) for one in others[:_LISTED]]
    return page(
        head(f"{found.version}: {counted(len(found.shards), 'shard')} made again, {len(others):,} not equal"),
        _table(("shard", "made by", "verdict", "why"), rows, numbers=()),
        note(f"could not be pinned: {'; '.join(found.unpinned)}" if found.unpinned else ""),
    )


def _table(headings: tuple[str, ...], rows: Sequence[Sequence[str]], numbers: tuple[str, ...]) -> Markup:
    """A table; nothing where there are no rows."""
    return table([(name, "") for name in headings], rows, numbers) if rows else Markup("")
