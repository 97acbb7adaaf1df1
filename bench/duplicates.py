"""What near-duplicates cost: hashes of thumbnails, candidates, comparison, one after the other and with their memory.

`python -m bench.duplicates [--samples 1000000] [--copies 0.1] [--only candidates]` makes thumbnails of random scenes, of
which a share are copies (mirrored, darker, or shifted by a pixel), and finds them. With `--only candidates` the hashes are
random words with planted near ones, so that ten million fit in memory. CPU seconds are those that matter where others
use the machine, too; with two cores to itself wall time is half of them.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

SCENES = 1 << 14


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--copies", type=float, default=0.1)
    parser.add_argument("--only", choices=["all", "candidates"], default="all")
    options = parser.parse_args()
    table: list[tuple[object, ...]] = []

    @contextmanager
    def step(name: str, count: Callable[[], object]) -> Iterator[None]:
        cpu, wall = time.process_time(), time.perf_counter()
        yield
        gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        table.append((name, time.perf_counter() - wall, time.process_time() - cpu, gigabytes, count()))

    from bench.report import print_report

    (run_candidates if options.only == "candidates" else run_all)(options.samples, options.copies, step)
    print_report(
        f"Near-duplicates among {options.samples:,} samples, {options.copies:.0%} copies",
        ["what", "seconds", "CPU s", "peak GB", "pairs"],
        table,
    )


def run_all(samples: int, share: float, step: Callable[..., object]) -> None:
    """Thumbnails to pairs, as `near_duplicates` does it."""
    from factory_lib.curation.duplicates import copies

    thumbnails, originals = thumbnails_of(samples, share)
    found = 0
    with step("all: hashes, candidates, comparison", lambda: found):  # type: ignore[attr-defined]
        pairs = copies(thumbnails, np.arange(samples))
        found = len(pairs.one)
    known = {(int(one), int(other)) for one, other in originals}
    hit = sum(
        (int(a), int(b)) in known or (int(b), int(a)) in known for a, b in zip(pairs.one, pairs.other, strict=True)
    )
    print(f"{hit:,} of {len(known):,} copies are found, {found - hit:,} other pairs")


def run_candidates(samples: int, share: float, step: Callable[..., object]) -> None:
    """Candidates alone, among random hashes."""
    from factory_lib.curation.duplicates.alignments import alignments
    from factory_lib.curation.duplicates.candidates import candidates

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


if __name__ == "__main__":
    main()
