"""Runs the demonstration: makes or takes a source, materializes the graph, reports."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from factory_lib.commands.output import print_json
from factory_lib.errors import FactoryError
from factory_lib.settings import remember_source, settings

if TYPE_CHECKING:
    from factory_lib.orchestration.runs.running import GraphOutcome

SAMPLES, SHARDS, SEED = 6000, 12, 7


@dataclass(frozen=True)
class DemoSource:
    """What the demonstration runs on.

    Attributes:
        uri: folder or URI of the shards.
        truth: parquet that says what each rendered sample really is; None for the user's own shards.
        mapping: what of them becomes which column.
    """

    uri: str
    truth: Path | None
    mapping: Mapping[str, str] = field(default_factory=dict)


def demonstrate(
    uri: str | None, console: Console, mapping: Mapping[str, str] | None = None, *, as_json: bool = False
) -> None:
    """Run the graph on shards at a URI, or on rendered images, and print what became of them.

    Args:
        console: where progress goes, and the report.
        mapping: what of the shards becomes which column, as in `factory_lib.settings.Settings`.
        as_json: print what became of them on stdout, as JSON, in place of the report.

    Raises:
        FactoryError: a stage failed; what was made before stays.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if uri is None:  # models of photos have nothing to say of rendered pictures
        os.environ.setdefault("FACTORY_MODELS", "none")
    started = time.monotonic()
    source = DemoSource(uri, None, mapping or {}) if uri else rendered_source(console)
    outcome = materialize(source, console)
    failed = FactoryError("Something failed: " + "; ".join(outcome.errors), "factory up shows the runs.")
    if outcome.errors and outcome.behind:
        raise failed
    from factory_assets.demo.report import figures, print_report

    seconds = time.monotonic() - started
    if as_json:
        print_json({"source": source.uri, "seconds": seconds, "runs": outcome.runs, "funnel": figures()})
    else:
        print_report(source, outcome, seconds, console)
    if outcome.errors:  # shards that cannot be read; the others came through the whole graph
        raise failed


def rendered_source(console: Console) -> DemoSource:
    """Rendered, captioned images in the data folder; they are drawn at the first call."""
    from factory_assets.demo.rendered.folder import truth_path, write_folder

    folder = settings().home / "demo" / "shards"
    truth = truth_path(folder)
    if not truth.exists():
        console.print(f"Drawing {SAMPLES:,} captioned images into {folder} …")
        with _bar(console) as bar:
            task = bar.add_task("images", total=SAMPLES)
            write_folder(
                folder, SAMPLES, SHARDS, SEED, workers=settings().workers, progress=lambda n: bar.advance(task, n)
            )
    return DemoSource(str(folder), truth)


def materialize(source: DemoSource, console: Console) -> GraphOutcome:
    """Run what is behind of the graph, through Dagster, with a progress bar."""
    console.print("Loading the asset graph …")
    from factory_lib.commands.graph_progress import followed
    from factory_lib.orchestration.code_location import PACKAGE, load_definitions
    from factory_lib.orchestration.home import factory_instance
    from factory_lib.orchestration.runs.running import run_graph
    from factory_lib.orchestration.source.shards import ShardSource

    definitions = load_definitions(PACKAGE)
    origin = ShardSource.mapped(source.uri, settings().tars_per_shard, source.mapping)
    origin.open()
    remember_source(source.uri, source.mapping)
    with factory_instance() as instance, followed(console) as telling:
        return run_graph(instance, definitions, source=origin, telling=telling)


@contextmanager
def _bar(console: Console) -> Iterator[Progress]:
    columns = (
        TextColumn("  {task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield bar
