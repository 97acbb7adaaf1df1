"""Near-duplicates: candidates by hash, decision by pixels.

Everything is decided by a column, `thumbnail` (see `signals.thumbnails`), so that a new shard is compared with all
others and no picture is read twice. Copies that were re-encoded, scaled, changed in brightness, contrast or colour,
mirrored, turned by 90 degrees, cropped by up to some 12 %, padded, bordered, rotated by some degrees or written on are
found.

A version of what was found remembers it: in the next one only thumbnails that it did not know are compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa

from factory_lib.build.earlier import EarlierRows
from factory_lib.curation.duplicates.candidates import DISTANCE
from factory_lib.curation.duplicates.grouping import (
    KeepRule,
    Links,
    OrderKey,
    group_columns,
    group_table,
    grouped,
    ranks,
)
from factory_lib.curation.duplicates.perceptual import DISTANCE as HASH_DISTANCE
from factory_lib.curation.duplicates.perceptual import near_by_hashes
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.nodes import Derived, RowFunction
from factory_lib.plan.operators import Column
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.progress import track
from factory_lib.query import DatasetQuery
from factory_lib.signals.fingerprint import code_components, digest
from factory_lib.signals.thumbnails import SIDE, planes_of
from factory_lib.warehouse.client import warehouse

if TYPE_CHECKING:
    from factory_lib.curation.duplicates.copies import Compared
    from factory_lib.curation.duplicates.distinct import Pairs, Thumbnails

SCORE = 0.85
"""Correlation of gradients from which on two pictures are copies. Found of 26 photos x 19 edits among 75 others (hard:
crops, text, logo, border, 3 degrees), and how many pairs of 1,705 photos of clothes on plain ground, 96 px:

| score | easy | hard | mirrored, turned | false | pairs of clothes (1 is a copy) |
|---|---|---|---|---|---|
| .83 | 1.000 | .968 | 1.000 | 0 | 3 |
| .85 | 1.000 | .955 | 1.000 | 0 | 1 |
| .87 | 1.000 | .942 | 1.000 | 0 | 1 |
"""

MATCHES = "matches"
"""Column of all samples that one is a copy of: `sample_id`, `score` and `alignment` each."""


def near_duplicates(
    samples: DatasetQuery,
    by: Literal["pixels", "hashes"] = "pixels",
    *,
    score: float = SCORE,
    distance: int | None = None,
    hashes: Sequence[str] = ("phash", "dhash"),
    keep: Sequence[OrderKey] = (),
) -> DatasetQuery:
    """Groups of samples that are near-duplicates of each other.

    Copies of copies are one group. Pictures of a single colour have nothing to be compared by, and are in none.

    Args:
        samples: with `thumbnail` (or, by hashes, the hashes) as a column; samples without it have no duplicates.
        by: "pixels" decides by the thumbnails; "hashes" by perceptual hashes alone, which is quicker and takes pictures
            that are built alike for copies (see `perceptual`).
        score: correlation of the gradients of copies, 0 to 1; see `SCORE` for what it reaches.
        distance: bits in which hashes differ at most: of candidates (default 10), or by hashes (default 6, at most 6).
        hashes: by hashes, the columns of 64-bit hashes; being near in one of them is enough.
        keep: which sample of a group is kept, the first in this order, as `order_by` takes it. Nothing: the one that
            shows most pixels, where `image_header` is a column. Then the one whose shard and position come first.

    Returns:
        One row for each sample of a group, see `GROUP_COLUMNS`; where the samples have the pointer `image`, that and
        the one of the matched picture. By pixels also `alignment`, how one of the two lies on the other, and `matches`,
        all samples that this one was found to be a copy of.

    Raises:
        QueryError: a column is missing, or a threshold is out of range.
    """
    if by not in ("pixels", "hashes"):
        raise QueryError(f"near_duplicates(by={by!r}): there is no such way.", nearest(by, ("pixels", "hashes")))
    if by == "hashes":
        return near_by_hashes(samples, hashes, HASH_DISTANCE if distance is None else distance, keep)
    if not 0 < score <= 1:
        raise QueryError(f"near_duplicates(score={score}): a correlation of copies is above 0 and at most 1.")
    bits = DISTANCE if distance is None else distance
    if not 0 <= bits <= 32:
        raise QueryError(f"near_duplicates(distance={bits}): hashes of 63 bits are compared at 0 to 32 bits.")
    check_thumbnails(samples, "near_duplicates")
    rule = KeepRule.of(samples, keep)
    options = {"score": float(score), "distance": int(bits)}
    columns = {**group_columns(samples), "alignment": "LowCardinality(String)", MATCHES: _MATCHES}
    given = rule.given(samples, "thumbnail")
    return DatasetQuery.of(Derived(given.plan, NEAR_DUPLICATE_GROUPS, options, columns=columns))


def check_thumbnails(samples: DatasetQuery, verb: str) -> None:
    """
    Raises:
        QueryError: there is no column `thumbnail`, or it is of another kind.
    """
    if "thumbnail" not in samples.columns:
        raise QueryError(
            f"{verb}() compares by the column 'thumbnail', which the samples do not have.",
            "add_signals(thumbnail) computes it; near_duplicates(by='hashes') compares hashes alone.",
        )
    kind = samples.columns["thumbnail"]
    if kind.replace("(Nullable(UInt8))", "(UInt8)") != "Array(UInt8)":  # from Arrow, too
        raise QueryError(f"{verb}() compares by the column 'thumbnail' as its signal makes it, this one is {kind}.")


_MATCHES = "Array(Tuple(sample_id UInt64, score Float32, alignment String))"


def _near_duplicate_groups(query: Select, earlier: EarlierRows | None, *, score: float, distance: int) -> pa.Table:
    """The rows of `near_duplicates`, found among all rows of a query."""
    from factory_lib.curation.duplicates.copies import copies

    samples, given = read_thumbnails(query)
    pairs = copies(given, score, distance, None if earlier is None else _compared(earlier))
    ids = samples.column("sample_id").to_numpy()
    found = grouped(Links(pairs.one, pairs.other, pairs.score), ranks(samples), ids)
    table = group_table(samples, found, pa.array(pairs.score[found.link]), pa.array(["pixels"] * len(found.rows)))
    names = alignment_names()
    table = table.append_column("alignment", pa.array(names[pairs.alignment[found.link]], pa.string()))
    return table.append_column(MATCHES, _matches(pairs, found.rows, ids))


def _code() -> str:
    from factory_lib.curation.duplicates.copies import copies

    return digest(code_components(copies))


NEAR_DUPLICATE_GROUPS = RowFunction(
    f"{__name__}:NEAR_DUPLICATE_GROUPS", "near_duplicates", _near_duplicate_groups, remembered_by=_code
)


def read_thumbnails(query: Select) -> tuple[pa.Table, Thumbnails]:
    """The samples without their thumbnails, and the thumbnails.

    They come in row order: which of equal pairs is told depends on it, and the engine gives rows in any.
    """
    from factory_lib.curation.duplicates.distinct import Thumbnails

    rendering = Rendering()
    stream = warehouse().stream(rendering.select(query.in_row_order()), rendering.params, rendering.settings)
    batches, planes, owners, count = [], [], [], 0
    with track("reading thumbnails") as progress:
        for batch in stream:
            found, rows = planes_of(batch.column("thumbnail"))
            planes.append(found)
            owners.append(rows + count)
            batches.append(batch.drop_columns(["thumbnail"]))
            count += batch.num_rows
            progress.advance(batch.num_rows)
    table = pa.Table.from_batches(batches, batches[0].schema if batches else stream.schema)
    none = np.zeros((0, SIDE, SIDE), np.uint8), np.zeros(0, np.int64)
    return table, Thumbnails(np.concatenate(planes or [none[0]]), np.concatenate(owners or [none[1]]))


def alignment_names() -> np.ndarray[tuple[int], np.dtype[np.object_]]:
    """The names of the alignments, in the order of `alignments()`."""
    from factory_lib.curation.duplicates.alignments import alignments

    return np.array(list(alignments()), dtype=object)


def _matches(pairs: Pairs, rows: np.ndarray, ids: np.ndarray) -> pa.Array:
    """What each of some samples was found to be a copy of."""
    ends, others = np.concatenate([pairs.one, pairs.other]), np.concatenate([pairs.other, pairs.one])
    order = np.lexsort((ids[others], ends))
    number = np.tile(np.arange(len(pairs.one)), 2)[order]
    starts = np.searchsorted(ends[order], [*rows, np.iinfo(np.int64).max])
    values = pa.StructArray.from_arrays(
        [
            pa.array(ids[others[order]], pa.uint64()),
            pa.array(pairs.score[number]),
            pa.array(alignment_names()[pairs.alignment[number]], pa.string()),
        ],
        ["sample_id", "score", "alignment"],
    )
    return pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), values)


def _compared(earlier: EarlierRows) -> Compared:
    """What an earlier version found, by the thumbnails that its samples had."""
    from factory_lib.curation.duplicates.copies import Compared
    from factory_lib.curation.duplicates.distinct import Pairs

    names = ("shard", "position", "sample_id", "thumbnail")
    samples, given = read_thumbnails(earlier.input.select({name: Column(name) for name in names}))
    rows, numbers = given.numbers()
    distinct, inverse = np.unique(numbers, return_inverse=True)
    ids = samples.column("sample_id").to_numpy()[rows]
    by_id = np.argsort(ids)

    rendering = Rendering()
    wanted = earlier.rows.select({name: Column(name) for name in ("sample_id", MATCHES)})
    found = warehouse().query(rendering.select(wanted), rendering.params, rendering.settings)
    lists = found.column(MATCHES).combine_chunks()
    values = lists.flatten()
    ones = found.column("sample_id").to_numpy()[lists.value_parent_indices().to_numpy()]
    places = [
        inverse[by_id[np.searchsorted(ids, end, sorter=by_id)]] for end in (ones, values.field("sample_id").to_numpy())
    ]
    numbers_of = {name: number for number, name in enumerate(alignment_names())}
    alignment = np.array([numbers_of[name] for name in values.field("alignment").to_pylist()], np.uint8)
    pairs = Pairs(places[0], places[1], values.field("score").to_numpy(), alignment)
    return Compared(distinct, pairs.where(places[0] != places[1]))
