"""The graph with models that look at photos, in a process whose environment named them when the graph was loaded.

Called with the folder of the shards and a tar: prints how many runs there were at first, with the tar among the shards,
and when nothing is new.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dagster as dg

from factory_lib.orchestration.code_location import load_definitions
from factory_lib.orchestration.runs.running import run_graph
from factory_lib.orchestration.source.shards import ShardSource

STAGES = [
    "samples", "image_signals", "clip_embeddings", "photo_signals", "basic_filter", "quality_filter", "near_duplicates",
    "photo_centroids", "photo_clusters", "semantic_duplicates", "duplicates", "deduplicated",
]  # fmt: skip


def main() -> None:
    """Run the stages three times."""
    shards, new = map(Path, sys.argv[1:])
    definitions = load_definitions()
    with dg.DagsterInstance.ephemeral() as instance:

        def runs() -> int:
            outcome = run_graph(instance, definitions, source=ShardSource(uri=str(shards)), stages=STAGES)
            assert (outcome.errors, outcome.behind) == ([], []), outcome
            return len(outcome.runs)

        first = runs()
        new.rename(shards / new.name)
        print(json.dumps([first, runs(), runs()]))


if __name__ == "__main__":
    main()
