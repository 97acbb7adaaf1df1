"""Samples that stand in a reference, such as the pictures of an evaluation: a training set must not have them.

By pixels as near-duplicates are found, or by vectors: the largest cosine to any vector of the reference. A product of
matrices gives all cosines of a block; the database takes many times as long for the same, vector by vector.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from factory_lib.curation.duplicates.candidates import DISTANCE
from factory_lib.curation.duplicates.grouping import MEMBER, PARTNER
from factory_lib.curation.duplicates.pixels import SCORE, alignment_names, check_thumbnails, read_thumbnails
from factory_lib.curation.vectors import check_vectors, cosines
from factory_lib.errors import ColumnNotFound, QueryError, nearest
from factory_lib.plan.expressions import C, lit
from factory_lib.plan.nodes import Derived, RowFunction
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.plan.storing import SYSTEM
from factory_lib.progress import track
from factory_lib.query import DatasetQuery
from factory_lib.signals.vectors import ODD, Vectors, left_out, read_vectors
from factory_lib.warehouse.arrow_types import POINTER_TYPE
from factory_lib.warehouse.client import warehouse

logger = logging.getLogger(__name__)

HELD = 1 << 28
"""Numbers of reference vectors that are held at once, 1 GiB: for a larger reference the samples are read repeatedly."""

_BLOCK = 1 << 11
_REFERENCES = 1 << 13

Matrix = NDArray[np.float32]


def reference_matches(
    samples: DatasetQuery, reference: DatasetQuery, by: str = "thumbnail", *, score: float | None = None
) -> DatasetQuery:
    """The samples that stand in a reference, too.

    Args:
        reference: any query, such as `DatasetQuery("imagenet_val")`.
        by: a column that both have: "thumbnail" is compared by pixels, as `near_duplicates` does; any other one has to
            hold vectors, which are compared by cosine. Empty vectors, and those with NaN or infinite numbers or of
            length 0, match nothing; how many there are is logged.
        score: above which a sample stands in the reference; of pixels from `SCORE` on. Of vectors it depends on their
            model and has to be said: DataComp takes .604169 for the descriptors of ISC 2021.

    Returns:
        One row for each such sample: its `shard`, `position`, `sample_id` and `key`; `reference` and `reference_key`,
        the `sample_id` and the key of the sample of the reference that it is most like, `score`, how much; by pixels
        also `alignment`. Where both have the pointer `image`, that and the one of the reference.

    Raises:
        ColumnNotFound, QueryError: one has no such column, or of another kind, or no score is said; when it runs,
            vectors differ in their number of dimensions.
    """
    for query in (samples, reference):
        if by not in query.columns:
            raise ColumnNotFound(
                f"reference_matches() compares by the column {by!r}, which {query.plan.label} does not have.",
                nearest(by, query.columns),
            )
    pointers = [query.columns.get(MEMBER) == POINTER_TYPE for query in (samples, reference)]
    shown = [MEMBER] if all(pointers) else []
    columns = {**_COLUMNS, **(dict.fromkeys((MEMBER, PARTNER), POINTER_TYPE) if shown else {})}
    if by == "thumbnail":
        for query in (samples, reference):
            check_thumbnails(query, "reference_matches")
        least, kind, function = SCORE if score is None else score, "Array(UInt8)", REFERENCE_PIXELS
        columns["alignment"] = "LowCardinality(String)"
    else:
        for query in (samples, reference):
            check_vectors(query, by, "reference_matches()")
        if score is None:
            raise QueryError(
                f"reference_matches(by={by!r}) needs score=: which cosine says that two are the same depends on the"
                " model of the vectors.",
                "0.604169 is DataComp's, for the descriptors of ISC 2021.",
            )
        least, kind, function = score, "Array(Float32)", REFERENCE_VECTORS
    if not 0 < least <= 1:
        raise QueryError(f"reference_matches(score={least}): that of what is the same is above 0 and at most 1.")
    marked = [
        query.select(*SYSTEM, *shown, compared=C[by].cast(kind), is_reference=lit(number).cast("UInt8"))
        for number, query in enumerate((samples, reference))
    ]
    options = {"by": by, "score": float(least)}
    return DatasetQuery.of(Derived(marked[0].union(marked[1]).plan, function, options, columns=columns))


_COLUMNS = {**SYSTEM, "reference": "UInt64", "reference_key": "String", "score": "Float32"}


def _in_reference_by_pixels(query: Select, *, by: str, score: float) -> pa.Table:
    """The rows of `reference_matches`, by thumbnails."""
    from factory_lib.curation.duplicates.copies import copies_in

    sides = (_side(query, number).rename({"compared": "thumbnail"}) for number in (0, 1))
    (samples, given), (others, reference) = map(read_thumbnails, sides)
    found = copies_in(reference, given, score, DISTANCE)
    table = _matched(samples.take(found.one), others.take(found.other), pa.array(found.score))
    return table.append_column("alignment", pa.array(alignment_names()[found.alignment], pa.string()))


def _side(query: Select, number: int) -> Select:
    """The samples (0) or the reference (1)."""
    return query.filter(C.is_reference == number)


def _in_reference_by_vectors(query: Select, *, by: str, score: float) -> pa.Table:
    """The rows of `reference_matches`, by vectors."""
    compared = _Counted(by, "the samples"), _Counted(by, "the reference")
    rendering = Rendering()
    nothing = warehouse().query(rendering.select(query.head(0)), rendering.params, rendering.settings)
    found = [_matched(nothing, nothing, pa.array([], pa.float32()))]
    for others, reference in _pieces(compared[1].batches(_side(query, 1))):
        width = reference.shape[1]
        for samples, vectors in compared[0].batches(_side(query, 0)):
            if vectors.shape[1] != width:
                raise QueryError(
                    f"Column {by!r} of the samples has vectors of {vectors.shape[1]:,} numbers, that of the reference"
                    f" of {width:,}.",
                    "Compute both by the same model.",
                )
            rows, at, cosine = nearest_above(vectors, reference, score)
            found.append(_matched(samples.take(rows), others.take(at), pa.array(cosine)))
    for one in compared:
        one.tell()
    return _best(pa.concat_tables(found))


REFERENCE_PIXELS = RowFunction(f"{__name__}:REFERENCE_PIXELS", "reference_matches", _in_reference_by_pixels)
REFERENCE_VECTORS = RowFunction(f"{__name__}:REFERENCE_VECTORS", "reference_matches", _in_reference_by_vectors)


def nearest_above(
    vectors: Matrix, reference: Matrix, score: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], Matrix]:
    """The vectors whose largest cosine to any of a reference is above a score.

    Args:
        vectors, reference: of unit length, (n, dimension) and (m, dimension).

    Returns:
        Rows of the vectors, rising, of each the first row of the reference with that cosine, and the cosine.
    """
    rows, places, most = [], [], []
    for start in range(0, len(vectors), _BLOCK):
        block = vectors[start : start + _BLOCK]
        best = np.full(len(block), -2, np.float32)
        at = np.zeros(len(block), np.int64)
        for first in range(0, len(reference), _REFERENCES):
            products = cosines(block, reference[first : first + _REFERENCES])
            here = products.argmax(axis=1)
            value = products[np.arange(len(block)), here]
            better = value > best
            best[better], at[better] = value[better], here[better] + first
        above = np.flatnonzero(best > np.float32(score))
        rows.append(above + start)
        places.append(at[above])
        most.append(best[above])
    return np.concatenate(rows), np.concatenate(places), np.concatenate(most)


class _Counted:
    """Reads vectors, all of the length of the first, and counts those that can't be compared.

    Args:
        column: the column that they are of.
        whose: whose, in words.

    Attributes:
        width: their length, 0 until there is one.
    """

    def __init__(self, column: str, whose: str) -> None:
        self._column, self._whose = column, whose
        self._faults: list[NDArray[np.uint8]] = []
        self.width = 0

    def batches(self, query: Select) -> Iterator[tuple[pa.Table, Matrix]]:
        """Rows without their vectors, and these, of unit length; counted anew each time.

        Raises:
            QueryError: they differ in length.
        """
        self._faults = []
        rendering = Rendering()
        stream = warehouse().stream(rendering.select(query), rendering.params, rendering.settings)
        with track(f"reading vectors of {self._whose}") as progress:
            for batch in stream:
                vectors = self._read(batch.column("compared"))
                progress.advance(batch.num_rows)
                if len(vectors.matrix):
                    table = pa.Table.from_batches([batch.drop_columns(["compared", "is_reference"])])
                    yield table.take(vectors.rows), vectors.matrix

    def tell(self) -> None:
        """Log how many could not be compared."""
        faults = np.concatenate([np.zeros(0, np.uint8), *self._faults])
        if told := left_out(faults):
            logger.warning(
                "%s of %s in %s have no vector in %r that can be compared (%s): they match nothing.",
                f"{np.count_nonzero(faults):,}",
                f"{len(faults):,}",
                self._whose,
                self._column,
                told,
            )

    def _read(self, column: pa.Array) -> Vectors:
        self.width = self.width or (pc.max(column.value_lengths()).as_py() or 0)
        found = read_vectors(column, self.width, unit=True)
        odd = found.lengths[found.faults == ODD]
        if len(odd):
            few, many = sorted((self.width, int(odd[0])))
            raise QueryError(
                f"Column {self._column!r} of {self._whose} has vectors of {few:,} and of {many:,} numbers.",
                "Compute all of them by one model.",
            )
        self._faults.append(found.faults)
        return found


def _pieces(batches: Iterator[tuple[pa.Table, Matrix]]) -> Iterator[tuple[pa.Table, Matrix]]:
    """Vectors of a reference, as many at once as are held, in the order of their ids."""
    tables: list[pa.Table] = []
    vectors: list[Matrix] = []
    for table, some in batches:
        tables.append(table)
        vectors.append(some)
        if sum(one.size for one in vectors) >= HELD:
            yield _piece(tables, vectors)
            tables, vectors = [], []
    if tables:
        yield _piece(tables, vectors)


def _piece(tables: list[pa.Table], vectors: list[Matrix]) -> tuple[pa.Table, Matrix]:
    table = pa.concat_tables(tables)
    order = np.argsort(table.column("sample_id").to_numpy(), kind="stable")
    return table.take(order), np.concatenate(vectors)[order]


def _matched(samples: pa.Table, others: pa.Table, score: pa.Array) -> pa.Table:
    """Rows of `reference_matches`."""
    names = [name for name in (*SYSTEM, MEMBER) if name in samples.schema.names]
    table = samples.select(names).append_column("reference", others.column("sample_id"))
    table = table.append_column("reference_key", others.column("key")).append_column("score", score)
    return table.append_column(PARTNER, others.column(MEMBER)) if MEMBER in names else table


def _best(found: pa.Table) -> pa.Table:
    """The best match of each sample: of several pieces of a reference each may have one."""
    order = found.sort_by([("sample_id", "ascending"), ("score", "descending"), ("reference", "ascending")])
    ids = order.column("sample_id").to_numpy()
    first = np.ones(len(ids), np.bool_)
    first[1:] = ids[1:] != ids[:-1]
    return order.filter(pa.array(first))
