"""How many of the nearest an index finds, beside reading all rows."""

from __future__ import annotations

import time
from dataclasses import dataclass

from factory_lib.errors import QueryError
from factory_lib.progress import track
from factory_lib.query import DatasetQuery


@dataclass(frozen=True)
class IndexRecall:
    """What searches by an index give.

    Attributes:
        recall: share of the k nearest that are among the k found, 0 to 1.
        k, queries: how many were looked for, and how often.
        exact_seconds, index_seconds: of a search over all rows, and of one by the index, the median.
    """

    recall: float
    k: int
    queries: int
    exact_seconds: float
    index_seconds: float


def index_recall(
    samples: DatasetQuery, column: str = "clip", *, k: int = 10, queries: int = 50, seed: int = 0
) -> IndexRecall:
    """Search for the vectors of some samples, by reading all rows and by the index.

    Args:
        samples: a version that was saved with an index.
        column: of vectors.
        k: how many are looked for.
        queries: how many samples, drawn by the seed.

    Raises:
        QueryError: there is no index, or no sample.
    """
    drawn = samples.select("sample_id", vector=column).sample(queries, seed=seed).to_arrow().to_pylist()
    if not drawn:
        raise QueryError("index_recall(): there are no samples.")
    found = 0
    seconds: tuple[list[float], list[float]] = ([], [])
    with track("searching by reading all and by the index", len(drawn)) as progress:
        for one in drawn:
            results = []
            for by_index in (False, True):
                began = time.perf_counter()
                near = samples.search(column, vector=one["vector"], k=k, approximate=by_index)
                results.append(set(near.select("sample_id").to_arrow().column(0).to_pylist()))
                seconds[by_index].append(time.perf_counter() - began)
            found += len(results[0] & results[1])
            progress.advance()
    exact, indexed = (sorted(some)[len(some) // 2] for some in seconds)
    wanted = len(drawn) * min(k, samples.count())
    return IndexRecall(found / wanted, k, len(drawn), exact, indexed)
