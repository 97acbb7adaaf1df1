"""Makes the datasets of two graphs of one source, and prints what of the second differs: `HOME SOURCE PROJECT`.

A process of its own: which models the bundled graph asks is read when it loads.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import dagster as dg
import pyarrow as pa

from factory_assets.definitions import defs
from factory_lib import DatasetQuery
from factory_lib.orchestration.runs.running import run_graph
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.settings import settings
from factory_lib.testing import engine_folder

STAGES = (
    "samples", "image_signals", "clip_embeddings", "photo_signals", "basic_filter", "quality_filter", "near_duplicates",
    "photo_centroids", "photo_clusters", "semantic_duplicates", "duplicates", "deduplicated", "clip_score_filter",
    "training_set", *(["private_set"] if settings().derived else []),
)  # fmt: skip


def made_by(definitions: dg.Definitions, source: str) -> dict[str, pa.Table]:
    """Dataset -> its newest version, once the graph ran."""
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = run_graph(instance, definitions, source=ShardSource(uri=source), stages=STAGES)
    assert (outcome.errors, outcome.behind, outcome.stopped) == ([], [], []), outcome
    return {name: DatasetQuery(name).order_by("shard", "position").to_arrow() for name in STAGES}


def main(home: str, source: str, project: str) -> None:
    """Print rows, and the columns that differ, of each dataset."""
    with engine_folder(Path(home)):
        first = made_by(defs(), source)
        second = made_by(dg.load_from_defs_folder(path_within_project=Path(project)), source)
    found = {}
    for name, table in first.items():
        other = second[name]
        columns = {*table.column_names, *other.column_names}
        differ = [c for c in columns if not {c} <= {*table.column_names} & {*other.column_names}]
        differ += [c for c in columns - {*differ} if table[c].to_pylist() != other[c].to_pylist()]
        found[name] = {"rows": [table.num_rows, other.num_rows], "differ": sorted(differ)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
