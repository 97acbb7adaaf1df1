"""Groups of duplicates: samples that pairs connect, one of which is kept by a rule.

Whatever finds duplicates says it in the same columns, `GROUP_COLUMNS`: a row for each sample of a group. A group is
told by the smallest `sample_id` in it. That is a hash of where a sample lies and of its name: it does not depend on the
order in which shards arrive, nor on which sample is kept, and a group that gets no other members keeps its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr, Ordering, ordering
from factory_lib.plan.storing import SYSTEM
from factory_lib.query import DatasetQuery
from factory_lib.signals.thumbnails import SIDE
from factory_lib.warehouse.arrow_types import POINTER_TYPE

MEMBER = "image"
PARTNER = "matched_image"
"""Column of the pointer of the picture that a duplicate matches, beside that of its own: pairs can be shown."""

GROUP_COLUMNS = {
    **SYSTEM,
    "group": "UInt64",
    "kept": "Bool",
    "duplicate_of": "Nullable(UInt64)",
    "matched": "UInt64",
    "score": "Float32",
    "by": "LowCardinality(String)",
}
"""What is said of a sample that has duplicates: its group; whether it is the one that is kept, and otherwise the
`sample_id` of the one that is; the sample that it is most like, how much (0 to 1), and what found that."""

OrderKey = str | Expr | Ordering
_RULE, _UP, _DOWN = "keep_", "up", "down"


def shown_pixels(samples: DatasetQuery) -> Expr:
    """How many pixels the pictures of samples show: half of those with margins of one colour (a border, a pad to a
    square), where there are thumbnails to tell. 0 where the size is not known."""
    area = C.image_header.width.fill_null(0).cast("UInt64") * C.image_header.height.fill_null(0)
    if "thumbnail" not in samples.columns:
        return area
    return fn.intDiv(area, 1 + (fn.length(C.thumbnail) > SIDE * SIDE).cast("UInt8"))


@dataclass(frozen=True)
class KeepRule:
    """Which sample of a group is kept: the first in an order.

    Attributes:
        keys: as `order_by` takes them; then the first shard and position.
    """

    keys: tuple[Ordering, ...]

    @classmethod
    def of(cls, samples: DatasetQuery, keep: Sequence[OrderKey]) -> KeepRule:
        """The rule in words of a user; none: most pixels where they are known."""
        keys = list(keep) or ([shown_pixels(samples).desc()] if "image_header" in samples.columns else [])
        return cls(tuple(ordering(key) for key in keys))

    def given(self, samples: DatasetQuery, *names: str) -> DatasetQuery:
        """Samples with what it takes to make groups of them, and some more of their columns."""
        shown = [MEMBER] if samples.columns.get(MEMBER) == POINTER_TYPE else []
        keys = {f"{_RULE}{n}_{_DOWN if key.descending else _UP}": key.expr for n, key in enumerate(self.keys)}
        return samples.select(*SYSTEM, *shown, *(name for name in names if name not in shown), **keys)


def ranks(samples: pa.Table) -> NDArray[np.int64]:
    """The rank of each sample by the rule whose keys stand in its columns, 0 the best; NULL and NaN come last."""
    ordered = sorted(
        (name for name in samples.schema.names if name.startswith(_RULE)), key=lambda n: int(n.split("_")[1])
    )
    ascending = [(name, "descending" if name.endswith(_DOWN) else "ascending") for name in ordered]
    names = ["shard", "position", *(name for name, _ in ascending)]
    keys = pa.table({name: _sortable(samples.column(name)) for name in names})
    # nulls are at the end unless asked otherwise
    order = pc.sort_indices(keys, sort_keys=[*ascending, ("shard", "ascending"), ("position", "ascending")])
    rank = np.empty(len(order), np.int64)
    rank[order.to_numpy()] = np.arange(len(order))
    return rank


def _sortable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column


@dataclass(frozen=True)
class Links:
    """Pairs of samples that are duplicates of each other.

    Attributes:
        one, other: rows of the samples, int64 (links,).
        score: how much they are alike, float32 (links,); 0 of those that only tell what belongs together.
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    score: NDArray[np.float32]


@dataclass(frozen=True)
class Connected:
    """The samples that are linked to any other.

    Attributes:
        rows: their rows, rising, int64 (members,).
        best: row of the sample of their group that is kept.
        first: row of the sample of their group with the smallest id.
        matched: row of the sample that they are most like; of several the best.
        link: which link says so.
    """

    rows: NDArray[np.int64]
    best: NDArray[np.int64]
    first: NDArray[np.int64]
    matched: NDArray[np.int64]
    link: NDArray[np.int64]


def grouped(links: Links, rank: NDArray[np.int64], ids: NDArray[np.uint64]) -> Connected:
    """Groups of samples.

    Args:
        rank: of each sample, 0 the best.
        ids: of each sample.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends, others = np.concatenate([links.one, links.other]), np.concatenate([links.other, links.one])
    number = np.tile(np.arange(len(links.one)), 2)
    strongest_first = np.lexsort((rank[others], -links.score[number], ends))
    rows, at = np.unique(ends[strongest_first], return_index=True)
    chosen = strongest_first[at]
    edges = (np.ones(len(links.one), np.int8), (np.searchsorted(rows, links.one), np.searchsorted(rows, links.other)))
    _, group = connected_components(coo_array(edges, shape=(len(rows), len(rows))), directed=False)
    best, first = (rows[_first(group, key)][group] for key in (rank[rows], ids[rows]))
    return Connected(rows, best, first, others[chosen], number[chosen])


def _first(group: NDArray[np.int32], key: NDArray[np.generic]) -> NDArray[np.int64]:
    """Of each group the place of the member with the smallest key."""
    order = np.argsort(key, kind="stable")
    _, at = np.unique(group[order], return_index=True)
    found: NDArray[np.int64] = order[at]
    return found


def group_table(samples: pa.Table, found: Connected, score: pa.Array, by: pa.Array) -> pa.Table:
    """Rows with `GROUP_COLUMNS` of samples, and the pointers of the pictures where the samples have them.

    Args:
        score, by: of each member.
    """
    names = [name for name in (*SYSTEM, MEMBER) if name in samples.schema.names]
    ids = samples.column("sample_id").combine_chunks()
    kept = found.best == found.rows
    table = samples.select(names).take(found.rows)
    columns = {
        "group": ids.take(found.first),
        "kept": pa.array(kept),
        "duplicate_of": pc.if_else(pa.array(kept), pa.scalar(None, ids.type), ids.take(found.best)),
        "matched": ids.take(found.matched),
        "score": score,
        "by": by,
    }
    if MEMBER in names:
        columns[PARTNER] = samples.column(MEMBER).combine_chunks().take(found.matched)
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def group_columns(samples: DatasetQuery) -> dict[str, str]:
    """`GROUP_COLUMNS`, and the pointers where samples have pictures."""
    shown = (MEMBER, PARTNER) if samples.columns.get(MEMBER) == POINTER_TYPE else ()
    return {**GROUP_COLUMNS, **dict.fromkeys(shown, POINTER_TYPE)}
