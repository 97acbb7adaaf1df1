"""What curation stages cost, one process each so that peak memory is of one: pairs, clusters, baselines, models.

`python -m bench.stages [--quick] [--only duplicates …]` runs the benches of the stages, each of which prints its table:
verified pairs among a million, Hamming pairs among ten million, k-means and SemDeDup, DataComp's baselines, and models on
photos beside the bare models. `--quick` takes a hundredth of the samples, and of photos 8.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

STAGES: dict[str, tuple[str, int, *tuple[str, ...]]] = {
    "pairs": ("bench.duplicates", 1_000_000),
    "candidates": ("bench.duplicates", 10_000_000, "--only", "candidates"),
    "clusters": ("bench.clusters", 1_000_000),
    "datacomp": ("bench.datacomp", 200_000),
    "models": ("bench.models", 128, "--rounds", "3"),
}
"""Name -> the bench, how many samples it takes, and what else it is told."""

LEAST = 8
"""Samples of a quick run, at least."""


def command(name: str, *, quick: bool) -> list[str]:
    """What runs the bench of a stage."""
    module, samples, *more = STAGES[name]
    return [sys.executable, "-m", module, "--samples", str(max(samples // 100, LEAST) if quick else samples), *more]


def main() -> None:
    """Run the benches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES))
    options = parser.parse_args()
    for name in options.only:
        subprocess.run(command(name, quick=options.quick), check=True)


if __name__ == "__main__":
    main()
