"""Near-duplicates: candidates by hash, decision by pixels, one sample of each group of copies stays.

Everything is decided by a column, `thumbnail` (see `signals.thumbnails`), so that a new shard is compared with all
others and no picture is read twice. Copies that were re-encoded, scaled, changed in brightness, contrast or colour,
mirrored, turned by 90 degrees, cropped by up to some 12 %, padded, bordered, rotated by some degrees or written on are
found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from factory_lib.curation.candidates import DISTANCE, Candidates, candidates, hashes
from factory_lib.curation.hash_duplicates import DISTANCE as HASH_DISTANCE
from factory_lib.curation.hash_duplicates import near_by_hashes
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.nodes import Derived, RowFunction
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.plan.storing import SYSTEM
from factory_lib.progress import track
from factory_lib.query import DatasetQuery
from factory_lib.signals.thumbnails import SIDE, planes_of
from factory_lib.warehouse.arrow_types import POINTER_TYPE
from factory_lib.warehouse.client import warehouse

SCORE = 0.85
"""Correlation of gradients from which on two pictures are copies. Found of 26 photos x 19 edits among 75 others (hard:
crops, text, logo, border, 3 degrees), and how many pairs of 1,705 photos of clothes on plain ground, 96 px:

| score | easy | hard | mirrored, turned | false | pairs of clothes (1 is a copy) |
|---|---|---|---|---|---|
| .83 | 1.000 | .968 | 1.000 | 0 | 3 |
| .85 | 1.000 | .955 | 1.000 | 0 | 1 |
| .87 | 1.000 | .942 | 1.000 | 0 | 1 |
"""

_BLOCK = 1 << 14
MEMBER = "image"
PARTNER = "matched_image"
"""Column of the pointer of the picture that a near-duplicate matches, beside that of its own: pairs can be shown."""


def near_duplicates(
    samples: DatasetQuery,
    by: Literal["pixels", "hashes"] = "pixels",
    *,
    score: float = SCORE,
    distance: int | None = None,
    hashes: Sequence[str] = ("phash", "dhash"),
) -> DatasetQuery:
    """The samples that are near-duplicates of a better one.

    Better is the one with more pixels, then the one whose shard and position come first, so that a new shard removes
    old samples only where it brings a larger picture. A picture with margins of one colour (a border, a pad to a
    square) counts half its pixels: the same without them is better. Copies of copies are one group, of which the best
    stays. Pictures of a single colour have nothing to be compared by, and stay.

    Args:
        samples: with `image_header` and `thumbnail` (or, by hashes, the hashes) as columns; samples without them have
            no duplicates.
        by: "pixels" decides by the thumbnails; "hashes" by perceptual hashes alone, which is quicker and takes pictures
            that are built alike for copies (see `hash_duplicates`).
        score: correlation of the gradients of copies, 0 to 1; see `SCORE` for what it reaches.
        distance: bits in which hashes differ at most: of candidates (default 10), or by hashes (default 6, at most 6).
        hashes: by hashes, the columns of 64-bit hashes; being near in one of them is enough.

    Returns:
        One row for each sample that should go: its `shard`, `position`, `sample_id` and `key`; `duplicate_of`, the
        `sample_id` of the sample of its group that stays. By pixels also `matched`, the `sample_id` of the picture of
        the group that it is most like, `score`, how much, and `alignment`, how one of the two lies on the other; where
        the samples have the pointer `image`, that and the one of the matched picture.

    Raises:
        QueryError: a column is missing, or a threshold is out of range.
    """
    if by not in ("pixels", "hashes"):
        raise QueryError(f"near_duplicates(by={by!r}): there is no such way.", nearest(by, ("pixels", "hashes")))
    if by == "hashes":
        return near_by_hashes(samples, hashes, HASH_DISTANCE if distance is None else distance)
    if not 0 < score <= 1:
        raise QueryError(f"near_duplicates(score={score}): a correlation of copies is above 0 and at most 1.")
    bits = DISTANCE if distance is None else distance
    if not 0 <= bits <= 32:
        raise QueryError(f"near_duplicates(distance={bits}): hashes of 63 bits are compared at 0 to 32 bits.")
    for name in ("thumbnail", "image_header"):
        if name not in samples.columns:
            raise QueryError(
                f"near_duplicates() compares by the column {name!r}, which the samples do not have.",
                f"add_signals({name}) computes it; by='hashes' compares hashes alone.",
            )
    for name, kind in (("thumbnail", "Array(UInt8)"), ("image_header", "Tuple(")):
        if not samples.columns[name].replace("(Nullable(UInt8))", "(UInt8)").startswith(kind):  # from Arrow, too
            raise QueryError(
                f"near_duplicates() compares by the column {name!r} as its signal makes it, this one is"
                f" {samples.columns[name]}."
            )
    has_margins = (fn.length(C.thumbnail) > SIDE * SIDE).cast("UInt8")
    area = C.image_header.width.fill_null(0).cast("UInt64") * C.image_header.height.fill_null(0)
    pixels = fn.intDiv(area, 1 + has_margins)
    shown = [MEMBER] if samples.columns.get(MEMBER) == POINTER_TYPE else []
    given = samples.select("shard", "position", "sample_id", "key", "thumbnail", *shown, pixels=pixels.cast("UInt64"))
    options = {"score": float(score), "distance": int(bits)}
    columns = {**_COLUMNS, **(dict.fromkeys((MEMBER, PARTNER), POINTER_TYPE) if shown else {})}
    return DatasetQuery.of(Derived(given.plan, NEAR_DUPLICATE_ROWS, options, columns=columns))


_COLUMNS = {
    **SYSTEM,
    "duplicate_of": "UInt64",
    "matched": "UInt64",
    "score": "Float32",
    "alignment": "LowCardinality(String)",
}


def _near_duplicate_rows(query: Select, *, score: float, distance: int) -> pa.Table:
    """The rows of `near_duplicates`, found among all rows of a query."""
    samples, thumbnails, owners = _read(query)
    pairs = copies(thumbnails, owners, score, distance)
    gone, kept, matched, strongest = _decided(pairs, _order(samples))
    table = samples.select([name for name in samples.schema.names if name != "pixels"]).take(gone)
    ids = samples.column("sample_id")
    table = table.append_column("duplicate_of", ids.take(kept)).append_column("matched", ids.take(matched))
    table = table.append_column("score", pa.array(pairs.score[strongest]))
    names = np.array(list(_names()), dtype=object)
    table = table.append_column("alignment", pa.array(names[pairs.alignment[strongest]], pa.string()))
    if MEMBER in table.schema.names:
        table = table.append_column(PARTNER, samples.column(MEMBER).take(matched))
    return table


NEAR_DUPLICATE_ROWS = RowFunction(f"{__name__}:NEAR_DUPLICATE_ROWS", "near_duplicates", _near_duplicate_rows)


@dataclass(frozen=True)
class Pairs:
    """Pairs of samples that show the same.

    Attributes:
        one, other: rows of the samples, int64 (pairs,).
        score: correlation of their gradients, float32 (pairs,).
        alignment: index of the alignment, in the order of `alignments()`, uint8 (pairs,).
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    score: NDArray[np.float32]
    alignment: NDArray[np.uint8]


def copies(
    thumbnails: NDArray[np.uint8], owners: NDArray[np.int64], score: float = SCORE, distance: int = DISTANCE
) -> Pairs:
    """Pairs of samples whose thumbnails show the same.

    Args:
        thumbnails: uint8 (n, 32, 32), one or two of each sample.
        owners: the sample that each is of, int64 (n,).
        score: see `SCORE`.
        distance: bits in which hashes of candidates differ at most.
    """
    from factory_lib.curation.comparing import EVIDENCE, correlations, structure

    outlines = structure(thumbnails) < EVIDENCE
    trimmed = np.concatenate([[False], owners[1:] == owners[:-1]]) if len(owners) else np.zeros(0, bool)
    # trimmed, one outline fills the square as any other does
    first, same = _equal(thumbnails, _uneven(thumbnails, ~(outlines & trimmed)))
    # what is equal is looked for once
    found = candidates(hashes(thumbnails[first]), distance)
    near = Candidates(first[found.probe], first[found.base], found.alignment, found.distance)
    near = near.where(owners[near.probe] != owners[near.base])
    near = near.where((near.alignment == 0) | ~(outlines[near.probe] | outlines[near.base]))
    scores = correlations(thumbnails, outlines, near, score)
    sure = np.flatnonzero(scores >= score)
    return Pairs(
        one=owners[np.concatenate([same[0], near.probe[sure]])],
        other=owners[np.concatenate([same[1], near.base[sure]])],
        score=np.concatenate([np.ones(len(same[0]), np.float32), scores[sure].clip(max=1)]),
        alignment=np.concatenate([np.zeros(len(same[0]), np.uint8), near.alignment[sure]]),
    )


def _uneven(thumbnails: NDArray[np.uint8], of: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Those thumbnails that are not of one colour: with a standard deviation above one grey level."""
    blocks = range(0, len(thumbnails), _BLOCK)
    spread = [thumbnails[start : start + _BLOCK].std(axis=(1, 2), dtype=np.float32) for start in blocks]
    return np.flatnonzero((np.concatenate(spread) > 1) & of) if spread else np.zeros(0, np.int64)


def _equal(
    thumbnails: NDArray[np.uint8], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The first of all equal thumbnails among some, and pairs of a first one with the others."""
    weights = np.random.default_rng(0).integers(0, 2**63, SIDE * SIDE // 8, dtype=np.uint64) | np.uint64(1)
    numbers = np.empty(len(rows), np.uint64)
    for start in range(0, len(rows), _BLOCK):
        block = np.ascontiguousarray(thumbnails[rows[start : start + _BLOCK]])
        numbers[start : start + len(block)] = (block.reshape(len(block), -1).view(np.uint64) * weights).sum(axis=1)
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    leader = rows[first[inverse]]
    follows = leader != rows
    return rows[np.sort(first)], (leader[follows], rows[follows])


def _read(query: Select) -> tuple[pa.Table, NDArray[np.uint8], NDArray[np.int64]]:
    """The samples without their thumbnails, the thumbnails, and which sample each is of.

    They come in row order: which of equal pairs is told, and the last digits of scores, depend
    on it, and the engine gives rows in any.
    """
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
    return table, np.concatenate(planes or [none[0]]), np.concatenate(owners or [none[1]])


def _order(samples: pa.Table) -> NDArray[np.int64]:
    """The rank of each sample, 0 the best: most pixels, then first shard and position."""
    shards = samples.column("shard").cast(pa.string()).combine_chunks().dictionary_encode()
    names = pc.rank(shards.dictionary, sort_keys="ascending", tiebreaker="dense").to_numpy()
    pixels = samples.column("pixels").to_numpy().astype(np.int64)
    order = np.lexsort((samples.column("position").to_numpy(), names[shards.indices.to_numpy()], -pixels))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank


_Rows = NDArray[Any]


def _decided(pairs: Pairs, rank: NDArray[np.int64]) -> tuple[_Rows, _Rows, _Rows, _Rows]:
    """Which samples go, which of their group stays, which other they are most like, and in which pair."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs.one), np.int8), (pairs.one, pairs.other)), shape=(len(rank), len(rank)))
    _, group = connected_components(graph, directed=False)
    by_rank = np.argsort(rank)
    _, first = np.unique(group[by_rank], return_index=True)
    best = by_rank[first][group]
    ends, others = np.concatenate([pairs.one, pairs.other]), np.concatenate([pairs.other, pairs.one])
    number = np.tile(np.arange(len(pairs.one)), 2)
    strongest_first = np.lexsort((rank[others], -pairs.score[number], ends))
    gone, at = np.unique(ends[strongest_first], return_index=True)
    chosen = strongest_first[at]
    goes = best[gone] != gone
    return gone[goes], best[gone[goes]], others[chosen[goes]], number[chosen[goes]]


def _names() -> list[str]:
    from factory_lib.curation.alignments import alignments

    return list(alignments())
