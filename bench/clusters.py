"""What clusters cost: k-means, the cluster of each vector, SemDeDup, one after the other and with their memory.

`python -m bench.clusters [--samples 1000000] [--width 512] [--k 1000] [--iterations 20] [--batch 10000] [--peer faiss]`
makes vectors of length 1 around 10,000 directions and finds k clusters of all of them; SemDeDup goes over the first
200,000 in the clusters found, in a process of its own, so that its peak is that of these alone. `--peer faiss` has
faiss-cpu do the k-means instead. CPU seconds are those that matter where others use the machine, too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bench.datacomp import peak

Matrix = NDArray[np.float32]
T = TypeVar("T")
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

    def step(name: str, work: Callable[[], T]) -> T:
        found, *cost = costs(work)
        table.append((name, *cost))
        return found

    def ours() -> Matrix:
        done = kmeans(vectors, options.k, "cosine", iterations=options.iterations, seed=0, batch=options.batch)
        return done.centroids

    name = f"k-means by {options.peer or 'the factory'}" + (f", batches of {options.batch:,}" if options.batch else "")
    middles = step(
        f"{name}, {options.iterations} passes",
        (lambda: of_faiss(vectors, options.k, options.iterations)) if options.peer else ours,
    )
    which, far = step("the cluster of each", lambda: nearest(vectors, middles, "cosine"))
    print(f"mean distance to the centroid {far.mean():.4f}")
    some = min(COMPARED, len(vectors))
    gone, *cost = of_its_own(vectors[:some], which[:some], far[:some], 0.05)
    table.append((f"SemDeDup of {some:,}, eps .05", *cost))
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


def costs(work: Callable[[], T]) -> tuple[T, float, float, float]:
    """What some work gives, the seconds and CPU seconds that it takes, and the GB that this process has held at most."""
    cpu, wall = time.process_time(), time.perf_counter()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu, peak()


def of_its_own(vectors: Matrix, which: NDArray[np.int64], far: Matrix, eps: float) -> tuple[int, float, float, float]:
    """How many SemDeDup removes in a process of its own, and what that costs."""
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        np.savez(file, vectors=vectors, which=which, far=far)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
            return process.submit(removed_from, file.name, eps).result()


def removed_from(path: str, eps: float) -> tuple[int, float, float, float]:
    """How many SemDeDup removes of the vectors in a file, and what that costs."""
    from factory_lib.curation.clusters.semantic import most_alike

    with np.load(path) as given:
        vectors, which, far = (given[name] for name in ("vectors", "which", "far"))

    def removed() -> int:
        order = np.lexsort((-far, which))
        starts = np.flatnonzero(np.diff(which[order], prepend=-1))
        parts = np.split(order, starts[1:])
        return sum(int((most_alike(vectors[rows])[0] > 1 - eps).sum()) for rows in parts)

    return costs(removed)


def of_faiss(vectors: Matrix, k: int, iterations: int) -> Matrix:
    """Centroids by faiss, from as many passes over all vectors."""
    import faiss

    peer = faiss.Kmeans(vectors.shape[1], k, niter=iterations, seed=0, spherical=True, max_points_per_centroid=10**9)
    peer.train(vectors)
    found: Matrix = peer.centroids
    return found


if __name__ == "__main__":
    main()
