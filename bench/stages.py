"""What curation stages cost, one process each so that peak memory is of one: pairs, clusters, baselines, models.

`python -m bench.stages [--quick] [--only duplicates …]` runs the benches of the stages, each of which prints its table:
Hamming and verified pairs among a million, Hamming pairs among ten million, k-means and SemDeDup, DataComp's baselines, and
models on photos beside the bare models. `--quick` takes a hundredth.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

STAGES = {
    "pairs": ["bench.duplicates", "--samples", "1000000"],
    "candidates": ["bench.duplicates", "--samples", "10000000", "--only", "candidates"],
    "clusters": ["bench.clusters", "--samples", "1000000"],
    "datacomp": ["bench.datacomp"],
    "models": ["bench.models", "--samples", "128", "--rounds", "3"],
}


def main() -> None:
    """Run the benches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES))
    options = parser.parse_args()
    for name in options.only:
        module, *arguments = STAGES[name]
        if options.quick:
            arguments = [str(int(one) // 100) if one.isdigit() and int(one) >= 10_000 else one for one in arguments]
        subprocess.run([sys.executable, "-m", module, *arguments], check=True)


if __name__ == "__main__":
    main()
