"""Semantic duplicates, as SemDeDup finds them (Abbas et al., 2023, arXiv:2303.09540; facebookresearch/SemDeDup).

Vectors of length 1 are compared within their cluster alone. The samples of a cluster are put in an order, M_j is the
largest cosine of sample j with any before it, and j goes where M_j > 1 - eps: also where that one goes itself, so that
it does not matter who is looked at first. What comes first thus stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from factory_lib.curation.duplicates.grouping import MEMBER, PARTNER, group_columns
from factory_lib.curation.vectors import check_vectors, cosines, width_of
from factory_lib.errors import QueryError, nearest
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.nodes import Derived, RowFunction
from factory_lib.plan.operators import Expr
from factory_lib.plan.select import Select
from factory_lib.progress import done, track
from factory_lib.query import DatasetQuery
from factory_lib.signals.vectors import left_out, read_vectors
from factory_lib.warehouse.arrow_types import POINTER_TYPE

Keep = Literal["hard", "easy", "random"]

BLOCK = 1 << 11
"""Samples of a cluster that are compared at once with all before them."""


def semantic_duplicates(
    samples: DatasetQuery,
    vector: str,
    *,
    eps: float,
    cluster: str | None = None,
    keep: Keep = "hard",
    seed: int = 0,
) -> DatasetQuery:
    """The samples whose vector is nearly that of another one of their cluster, which comes before them.

    A sample without a vector or a cluster has no duplicates, and a cluster of one sample none either.

    Args:
        samples: with both columns.
        vector: the column of vectors; they are scaled to length 1.
        eps: samples go whose cosine with one before them is above 1 - eps, 0 to 2.
        cluster: the column that `cluster_of()` made; default `<vector>_cluster`.
        keep: what comes first, and stays: "hard" the farthest from the centroid, as published; "easy" the nearest;
            "random" by a hash of `sample_id`. Equally far ones come by shard and position.
        seed: of that hash.

    Returns:
        One row for each sample that should go and each that stays for some: its `shard`, `position`, `sample_id` and
        `key`; `cluster`; `group`, the smallest `sample_id` of those that one stays for; `kept`, whether it is that
        one; `duplicate_of`, otherwise that one's `sample_id`, found from partner to partner; `matched`, that of the
        sample that it is most like, of one that goes the one before it, which may go itself; `score`, their cosine;
        `by`, the column of vectors. Where the samples have the pointer `image`, that and `matched_image`.

    Raises:
        QueryError: a column is missing or of another kind, or an argument is out of range.
    """
    cluster = cluster or f"{vector}_cluster"
    check_vectors(samples, vector, "semantic_duplicates()")
    if not {"cluster", "distance"} <= _fields(samples.columns.get(cluster, "")):
        there = samples.columns
        raise QueryError(
            f"semantic_duplicates() reads the clusters in the column {cluster!r}, "
            + (f"which is {there[cluster]}." if cluster in there else "which the samples do not have."),
            f"add_signals(cluster_of(centroids, {vector!r})) makes them. {nearest(cluster, there)}".strip(),
        )
    if not 0 <= eps <= 2:
        raise QueryError(f"semantic_duplicates(eps={eps}): 1 - eps is a cosine, so that eps lies between 0 and 2.")
    if keep not in _ORDERS:
        raise QueryError(f"semantic_duplicates(keep={keep!r}): there is no such order.", nearest(keep, _ORDERS))
    number = C[cluster].cluster
    shown = [MEMBER] if samples.columns.get(MEMBER) == POINTER_TYPE else []
    given = samples.filter(number.not_null(), fn.length(C[vector]) > 0).select(
        "shard", "position", "sample_id", "key", *shown,
        cluster=fn.assumeNotNull(number),
        rank=_ORDERS[keep](C[cluster].distance, int(seed)),
        vector=C[vector].cast("Array(Float32)"),
    )  # fmt: skip
    columns = {**group_columns(samples), "cluster": "UInt32"}
    options = {"eps": float(eps), "by": vector}
    return DatasetQuery.of(Derived(given.plan, SEMANTIC_DUPLICATE_ROWS, options, columns=columns))


_ORDERS: dict[Keep, Callable[[Expr, int], Expr]] = {
    "hard": lambda distance, _: -distance,
    "easy": lambda distance, _: distance,
    "random": lambda _, seed: fn.sipHash64(C.sample_id, seed),
}
"""What comes first in a cluster: what is smallest by this."""


def _fields(ch_type: str) -> set[str]:
    inside = ch_type.removeprefix("Tuple(").removesuffix(")")
    return {part.split()[0] for part in inside.split(", ") if part} if inside != ch_type else set()


def _semantic_duplicate_rows(query: Select, *, eps: float, by: str) -> pa.Table:
    """The rows of `semantic_duplicates`, found among all rows of a query."""
    rows = DatasetQuery.of(query.in_row_order())
    width, count = width_of(rows, "vector", "semantic_duplicates()")
    found = [pa.table({"shard": pa.array([], pa.string()), "position": pa.array([], pa.uint32())})]
    faults = [np.zeros(0, np.uint8)]
    with track("comparing vectors within clusters", count) as progress:
        for table in whole_clusters(rows.order_by("cluster", "rank").to_batches()):
            vectors = read_vectors(table.column("vector").combine_chunks(), width, unit=True)
            faults.append(vectors.faults)
            found += _duplicates(table.drop_columns(["vector", "rank"]).take(vectors.rows), vectors.matrix, eps)
            progress.advance(len(table))
    every = np.concatenate(faults)
    if told := left_out(every):
        done(f"semantic duplicates: vectors left out, {told}", int(np.count_nonzero(every)), count)
    table = pa.concat_tables(found, promote_options="permissive")
    table = table.append_column("by", pa.repeat(by, len(table)))
    return table.sort_by([("shard", "ascending"), ("position", "ascending")])


SEMANTIC_DUPLICATE_ROWS = RowFunction(
    f"{__name__}:SEMANTIC_DUPLICATE_ROWS", "semantic_duplicates", _semantic_duplicate_rows
)


def whole_clusters(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Rows that come in the order of their clusters, some clusters at once, each of them whole.

    The rows are read once, whatever they are computed from, and no more of them are held than those of a batch and of
    the cluster that it begins with.

    Args:
        batches: with a column `cluster`.
    """
    held: list[pa.RecordBatch] = []
    last = None
    for batch in batches:
        if not batch.num_rows:
            continue
        clusters = batch.column("cluster").to_numpy()
        begins = int(np.searchsorted(clusters, clusters[-1]))
        if held and clusters[-1] != last:
            yield pa.Table.from_batches([*held, batch.slice(0, begins)])
            held = []
        elif begins:
            yield pa.Table.from_batches([batch.slice(0, begins)])
        held.append(batch.slice(begins))
        last = clusters[-1]
    if held:
        yield pa.Table.from_batches(held)


def _duplicates(table: pa.Table, vectors: NDArray[np.float32], eps: float) -> Iterator[pa.Table]:
    """The duplicates of some clusters, a table each.

    Args:
        table: rows of whole clusters, those of each in the order of what stays first.
        vectors: of the rows, of length 1.
    """
    clusters = table.column("cluster").to_numpy()
    starts = np.flatnonzero(np.diff(clusters, prepend=-1))
    for start, end in zip(starts, [*starts[1:], len(clusters)], strict=True):
        most, partner = most_alike(vectors[start:end])
        goes = np.flatnonzero(most > 1 - eps)
        if len(goes):
            yield _groups(table.slice(start, end - start), most, partner, goes)


def most_alike(vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """How much each vector is like the most alike one before it, and which that is: SemDeDup's M.

    Args:
        vectors: float32 (n, width), of length 1, in the order of what stays first.

    Returns:
        The cosine, float32 (n,), and the place, int64 (n,); -inf and -1 for the first.
    """
    most = np.full(len(vectors), -np.inf, np.float32)
    partner = np.full(len(vectors), -1, np.int64)
    for start in range(0, len(vectors), BLOCK):
        some = vectors[start : start + BLOCK]
        for first in range(0, start + len(some), BLOCK):
            scores = cosines(some, vectors[first : first + BLOCK])
            if first == start:
                scores[np.triu_indices(len(some))] = -np.inf
            best = scores.argmax(1)
            values = np.take_along_axis(scores, best[:, None], 1)[:, 0]
            rows = slice(start, start + len(some))
            better = values > most[rows]
            most[rows] = np.where(better, values, most[rows])
            partner[rows] = np.where(better, best + first, partner[rows])
    return most, partner


def _groups(
    cluster: pa.Table, most: NDArray[np.float32], partner: NDArray[np.int64], goes: NDArray[np.int64]
) -> pa.Table:
    """The rows of the samples of a cluster that go, and of those that stay for them."""
    stays = np.arange(len(partner))
    stays[goes] = partner[goes]
    while not np.array_equal(further := stays[stays], stays):
        stays = further
    kept = np.unique(stays[goes])
    child = _most_alike_behind(most, partner, goes)[kept]
    most, partner = most.copy(), partner.copy()
    most[kept], partner[kept] = most[child], child
    rows = np.sort(np.concatenate([goes, kept]))
    ids = cluster.column("sample_id").combine_chunks()
    numbers = ids.to_numpy()
    least = np.full(len(stays), np.iinfo(np.uint64).max, np.uint64)
    np.minimum.at(least, stays[rows], numbers[rows])
    is_kept = pa.array(stays[rows] == rows)
    columns = {
        "group": pa.array(least[stays[rows]]),
        "kept": is_kept,
        "duplicate_of": pc.if_else(is_kept, pa.scalar(None, ids.type), ids.take(stays[rows])),
        "matched": ids.take(partner[rows]),
        "score": pa.array(most[rows]),
    }
    if MEMBER in cluster.schema.names:
        columns[PARTNER] = cluster.column(MEMBER).combine_chunks().take(partner[rows])
    found = cluster.take(rows)
    for name, column in columns.items():
        found = found.append_column(name, column)
    return found


def _most_alike_behind(
    most: NDArray[np.float32], partner: NDArray[np.int64], goes: NDArray[np.int64]
) -> NDArray[np.int64]:
    """For each sample of a cluster the one that goes and is most like it, of those whose partner it is; else -1."""
    order = goes[np.argsort(most[goes], kind="stable")]
    found = np.full(len(partner), -1, np.int64)
    found[partner[order]] = order  # of several the last one is written
    return found
