"""What clusters cost: k-means, the cluster of each vector, SemDeDup, one after the other and with their memory.

`python -m bench.clusters [--samples 1000000] [--width 512] [--k 1000] [--iterations 20] [--batch 10000] [--peer faiss]`
makes vectors of length 1 around 10,000 directions and finds k clusters of all of them; SemDeDup goes over the first
200,000 in the clusters found. `--peer faiss` has faiss-cpu do the k-means instead. CPU seconds are those that matter where
others use the machine, too.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
DIRECTIONS = 10_000
COMPARED = 200_000
BLOCK = 1 << 16


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--iterations", type=int, default=20)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--peer", choices=["faiss"])
    options = parser.parse_args()
    from bench.report import print_report
    from factory_lib.curation.clusters.kmeans import kmeans
    from factory_lib.curation.clusters.nearest import nearest

    vectors = vectors_of(options.samples, options.width)
    table: list[tuple[object, ...]] = []

    def step(name: str, work: Callable[[], object]) -> object:
        cpu, wall = time.process_time(), time.perf_counter()
        found = work()
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        table.append((name, time.perf_counter() - wall, time.process_time() - cpu, gigabytes))
        return found

    def ours() -> Matrix:
        done = kmeans(vectors, options.k, "cosine", iterations=options.iterations, seed=0, batch=options.batch)
        return done.centroids

    name = f"k-means by {options.peer or 'the factory'}" + (f", batches of {options.batch:,}" if options.batch else "")
    middles = step(
        f"{name}, {options.iterations} passes",
        (lambda: of_faiss(vectors, options.k, options.iterations)) if options.peer else ours,
    )
    assert isinstance(middles, np.ndarray)
    which, far = step("the cluster of each", lambda: nearest(vectors, middles, "cosine"))  # type: ignore[misc]
    print(f"mean distance to the centroid {far.mean():.4f}")
    some = min(COMPARED, len(vectors))
    gone = step(f"SemDeDup of {some:,}, eps .05", lambda: removed(vectors[:some], which[:some], far[:some], 0.05))
    print(f"{gone:,} of {some:,} go")
    title = f"Clusters: {options.samples:,} vectors of {options.width}, k = {options.k:,}"
    print_report(title, ["what", "seconds", "CPU s", "peak GB"], table)


def vectors_of(samples: int, width: int) -> Matrix:
    """Vectors of length 1 around directions of their own; a tenth is nearly the vector before it."""
    random = np.random.default_rng(0)
    directions = random.standard_normal((DIRECTIONS, width), np.float32)
    found = np.empty((samples, width), np.float32)
    for start in range(0, samples, BLOCK):
        some = found[start : start + BLOCK]
        some[:] = directions[random.integers(0, DIRECTIONS, len(some))]
        some += 0.7 * random.standard_normal(some.shape, np.float32)
        some[9::10] = some[8::10][: len(some[9::10])] + 0.1 * random.standard_normal(some[9::10].shape, np.float32)
        some /= np.linalg.norm(some, axis=1, keepdims=True)
    return found


def removed(vectors: Matrix, which: NDArray[np.int64], far: Matrix, eps: float) -> int:
    """How many SemDeDup removes."""
    from factory_lib.curation.clusters.semantic import most_alike

    order = np.lexsort((-far, which))
    starts = np.flatnonzero(np.diff(which[order], prepend=-1))
    parts = np.split(order, starts[1:])
    return sum(int((most_alike(vectors[rows])[0] > 1 - eps).sum()) for rows in parts)


def of_faiss(vectors: Matrix, k: int, iterations: int) -> Matrix:
    """Centroids by faiss, from as many passes over all vectors."""
    import faiss

    peer = faiss.Kmeans(vectors.shape[1], k, niter=iterations, seed=0, spherical=True, max_points_per_centroid=10**9)
    peer.train(vectors)
    found: Matrix = peer.centroids
    return found


if __name__ == "__main__":
    main()
