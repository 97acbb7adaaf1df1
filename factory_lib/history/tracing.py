"""The history of one sample: where its bytes are, what each stage computed of it, and which one dropped it, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from factory_lib.history.finding import find_sample
from factory_lib.history.lineage import lineage
from factory_lib.history.relatives import Child, children_of, parent_of
from factory_lib.history.sample_history import Failure, Mention, Stop, pointers_of, sample_history
from factory_lib.history.spans import Span, spans
from factory_lib.plan.storing import SYSTEM
from factory_lib.tables import arrow_table
from factory_lib.warehouse.versions import Version


@dataclass(frozen=True)
class Value:
    """A value of the sample that a stage brought.

    Attributes:
        signal: fingerprint of the signal that computed it; empty for other columns.
    """

    column: str
    value: Any
    signal: str = ""


@dataclass(frozen=True)
class Step:
    """One stage of the history of a sample.

    Attributes:
        version: the version that the stage made.
        is_there: whether the sample is in it; None where it cannot be told, as the version was dropped.
        shard, position: where in it.
        python: the query that made it.
        values: columns that the stage brought, or whose value it changed.
        failures: the conditions that the sample did not meet, where the stage dropped it.
        reason: why it is not there, where no condition says it.
        mentions: tables beside, in which it stands.
    """

    version: str
    is_there: bool | None
    shard: str = ""
    position: int | None = None
    python: str = ""
    values: Sequence[Value] = ()
    failures: Sequence[Failure] = ()
    reason: str = ""
    mentions: Sequence[Mention] = ()


@dataclass(frozen=True)
class Trace:
    """A sample, from the source to a version.

    Attributes:
        version: the version asked about.
        pointers: member -> uri, offset and size of its bytes.
        steps: stage by stage, the source first.
        spans: how it fared over the versions of the dataset, the oldest first.
        parent: the history of the sample that it was made of; None where it was made of none.
        children: samples that were made of it.
    """

    version: str
    sample_id: int
    key: str
    pointers: Mapping[str, Any]
    steps: Sequence[Step]
    spans: Sequence[Span]
    parent: Trace | None = None
    children: Sequence[Child] = ()

    @property
    def is_kept(self) -> bool:
        """Whether the sample is in the version asked about."""
        return bool(self.steps and self.steps[-1].is_there)

    @property
    def dropped_by(self) -> str | None:
        """The version in whose making it went; None when it is there, or nothing is left that could tell."""
        last = max((i for i, step in enumerate(self.steps) if step.is_there), default=None)
        return None if self.is_kept or last is None else self.steps[last + 1].version

    def _repr_html_(self) -> str:
        from factory_lib.history.shown import trace_page

        return trace_page(self)

    def to_arrow(self) -> pa.Table:
        """One row a step, the source first; values are JSON text."""
        return arrow_table(Step, self.steps)


def trace(version: Version, sample: str) -> Trace:
    """The history of a sample up to a version.

    Args:
        sample: its key or `sample_id`. It need not be in the version: it may have been dropped on the way.

    Raises:
        NotFound: it is not in the version nor in what that was made of.
        QueryError: several samples have that key.
    """
    place = find_sample(version, lineage(version), sample)
    stops = list(sample_history(version, place))
    rows = [stop.row for stop in reversed(stops) if stop.row]
    own = stops[0].row
    parent = parent_of(version.warehouse, stops)
    return Trace(
        version=str(version),
        sample_id=place.sample_id,
        key=place.key,
        pointers={name: value for row in rows for name, value in pointers_of(row).items()},
        steps=[_step(stop) for stop in reversed(stops)],
        spans=spans(version, place.sample_id, [place.shard, *([own["shard"]] if own else [])]),
        parent=None if parent is None else trace(parent[0], str(parent[1])),
        children=children_of(version.warehouse, place.sample_id),
    )


def _step(stop: Stop) -> Step:
    """What a stage did to the sample: what it brought, compared with what it was made of."""
    record, before, row = stop.record, stop.base_row or {}, stop.row or {}
    signals = {s["name"]: s["fingerprint"] for s in record.signals} if record else {}
    values = [
        Value(name, value, signals.get(name, signals.get(name.removesuffix("_error"), "")))
        for name, value in row.items()
        if name not in SYSTEM and name not in pointers_of(row) and (name not in before or before[name] != value)
    ]
    return Step(
        version=stop.name,
        is_there=stop.is_there,
        shard=row.get("shard", ""),
        position=row.get("position"),
        python=record.python if record else "",
        values=[v for v in values if not (v.value is None and v.column.endswith("_error"))],
        failures=stop.failures,
        reason=stop.reason,
        mentions=stop.mentions,
    )
