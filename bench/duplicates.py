"""What near-duplicates cost: hashes of thumbnails, candidates, comparison, one after the other and with their memory.

`python -m bench.duplicates [--samples 1000000] [--copies 0.1] [--only candidates] [--new 0.05]` makes thumbnails of
random scenes, of which a share are copies (mirrored, darker, or shifted by a pixel), and finds them; with `--new` once
more with so many of them being new and the others known. With `--only candidates` the hashes are random words with
planted near ones, so that ten million fit in memory; with `--only reference` unit vectors are compared with those of a
reference, by products of matrices and by the database. CPU seconds are those that matter where others use the machine,
too; with two cores to itself wall time is half of them.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

SCENES = 1 << 14


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--copies", type=float, default=0.1)
    parser.add_argument("--only", choices=list(RUNS), default="all")
    parser.add_argument("--new", type=float, default=0.0)
    options = parser.parse_args()
    table: list[tuple[object, ...]] = []

    @contextmanager
    def step(name: str, count: Callable[[], object]) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        table.append((name, time.perf_counter() - wall, time.process_time() - cpu, gigabytes, count()))

    from bench.report import print_report

    RUNS[options.only](options, step)
    print_report(
        f"Near-duplicates among {options.samples:,} samples, {options.copies:.0%} copies",
        ["what", "seconds", "CPU s", "peak GB", "pairs"],
        table,
    )


def run_all(options: argparse.Namespace, step: Callable[..., object]) -> None:
    """Thumbnails to pairs, as `near_duplicates` does it."""
    from factory_lib.curation.duplicates.copies import Compared, copies
    from factory_lib.curation.duplicates.distinct import Thumbnails

    samples = options.samples
    planes, originals = thumbnails_of(samples, options.copies)
    given = Thumbnails(planes, np.arange(samples))
    found = 0
    with step("all: hashes, candidates, comparison", lambda: found):  # type: ignore[attr-defined]
        pairs = copies(given, 0.85, 10)
        found = len(pairs.one)
    if options.new:
        known = np.random.default_rng(1).permutation(samples)[: round(samples * (1 - options.new))]
        distinct, rows = np.unique(given.numbers()[1][known], return_index=True)
        place = np.full(samples, -1)
        place[known[rows]] = np.arange(len(distinct))
        of_known = pairs.between(place[pairs.one], place[pairs.other])
        before = Compared(distinct, of_known.where((of_known.one >= 0) & (of_known.other >= 0)))
        with step(f"{options.new:.0%} of them new", lambda: found):  # type: ignore[attr-defined]
            again = copies(given, 0.85, 10, before)
            found = len(again.one)
        same = np.array_equal(pairs.one, again.one) and np.array_equal(pairs.other, again.other)
        print(f"the same pairs as all at once: {same}")
    known = {(int(one), int(other)) for one, other in originals}
    hit = sum(
        (int(a), int(b)) in known or (int(b), int(a)) in known for a, b in zip(pairs.one, pairs.other, strict=True)
    )
    print(f"{hit:,} of {len(known):,} copies are found, {found - hit:,} other pairs")


def run_candidates(options: argparse.Namespace, step: Callable[..., object]) -> None:
    """Candidates alone, among random hashes."""
    from factory_lib.curation.duplicates.alignments import alignments
    from factory_lib.curation.duplicates.candidates import candidates

    samples, share = options.samples, options.copies
    random = np.random.default_rng(0)
    words = random.integers(0, 2**63, (len(alignments()), samples), dtype=np.uint64)
    words <<= np.uint64(1)
    copied = int(samples * share)
    words[random.integers(0, len(words), copied), samples - copied + np.arange(copied)] = words[0, :copied]
    for _ in range(4):
        words[0, :copied] ^= np.uint64(2) << random.integers(0, 63, copied, dtype=np.uint64)
    found = 0
    with step("candidates", lambda: found):  # type: ignore[attr-defined]
        pairs = candidates(words)
        found = len(pairs)
    low = np.minimum(pairs.probe, pairs.base)
    print(f"{int((np.maximum(pairs.probe, pairs.base) - low == samples - copied).sum()):,} of {copied:,} are found")


def run_reference(options: argparse.Namespace, step: Callable[..., object]) -> None:
    """Cosines to a reference of a hundredth as many vectors of 512 numbers: by matrices, and by the database."""
    from factory_lib import DatasetQuery, sql_text
    from factory_lib.curation.duplicates.references import nearest_above

    random = np.random.default_rng(0)
    numbers = [random.normal(size=(n, 512)).astype(np.float32) for n in (options.samples, options.samples // 100)]
    vectors, reference = (of / np.linalg.norm(of, axis=1, keepdims=True) for of in numbers)
    vectors[:: options.samples // 100] = reference[0]
    found = 0
    with step("products of matrices", lambda: found):  # type: ignore[attr-defined]
        found = len(nearest_above(vectors, reference, 0.604169)[0])
    for name, of in (("bench_pool", vectors), ("bench_reference", reference)):
        lists = pa.FixedSizeListArray.from_arrays(pa.array(of.ravel()), 512)
        DatasetQuery.from_arrow(pa.table({"vector": lists})).save(name)
    pool, others = (DatasetQuery(name).mutate(one=1) for name in ("bench_pool", "bench_reference"))
    both = pool.select("one", "sample_id", "vector").join(others.select("one", other="vector"), on="one")
    with step("dotProduct in the database", lambda: found):  # type: ignore[attr-defined]
        most = both.group_by("sample_id").agg(most=sql_text("max(dotProduct(vector, other))"))
        found = most.filter("most > 0.604169").count()


def thumbnails_of(samples: int, share: float) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Thumbnails of scenes like no other, and pairs (original, copy)."""
    from PIL import Image

    random = np.random.default_rng(0)
    thumbnails = np.empty((samples, 32, 32), np.uint8)
    copied = int(samples * share)
    fresh = samples - copied
    spread = np.asarray(Image.fromarray(np.eye(8, dtype=np.float32)).resize((8, 32), Image.Resampling.BICUBIC))
    for start in range(0, fresh, SCENES):
        count = min(SCENES, fresh - start)
        coarse = random.integers(0, 256, (count, 8, 8)).astype(np.float32)
        thumbnails[start : start + count] = (spread @ coarse @ spread.T).clip(0, 255).astype(np.uint8)
    of = random.choice(fresh, copied, replace=False)
    for place, edit in enumerate((lambda t: t[:, :, ::-1], lambda t: (t * 0.7).astype(np.uint8), _shifted)):
        mine = np.arange(place, copied, 3)
        thumbnails[fresh + mine] = edit(thumbnails[of[mine]])
    return thumbnails, np.stack([of, fresh + np.arange(copied)], 1)


def _shifted(thumbnails: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = np.concatenate([thumbnails[:, :, 1:], thumbnails[:, :, -1:]], 2)
    return found


RUNS = {"all": run_all, "candidates": run_candidates, "reference": run_reference}

if __name__ == "__main__":
    main()
