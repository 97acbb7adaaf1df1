"""What became of the samples, for a person: funnel, versions, nearest images, the model, what to type next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from factory_assets.demo.rendered.truth import FilterScore, score_duplicates, score_filter
from factory_lib.curation.funnel import FunnelStep, funnel
from factory_lib.errors import DatasetNotFound
from factory_lib.query import DatasetQuery
from factory_lib.sources.account import lines
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.losses import MEND, read_losses
from factory_lib.warehouse.versions import Version, resolve

if TYPE_CHECKING:
    from factory_assets.demo.run import DemoSource
    from factory_lib.orchestration.runs.running import GraphOutcome

STAGES = (
    "samples",
    "image_signals",
    "clip_embeddings",
    "photo_signals",
    "basic_filter",
    "quality_filter",
    "duplicates",
    "deduplicated",
    "clip_score_filter",
    "training_set",
)
_SHOWN_LOSSES = 5
BASIC_FAULTS = ("broken", "too_small", "uninformative", "unsafe")
EXEMPLAR = "a large red circle on plain paper"


def print_report(source: DemoSource, outcome: GraphOutcome, seconds: float, console: Console) -> None:
    """Print the whole report."""
    chain = [resolve(warehouse(), name) for name in STAGES]
    if not outcome.runs:
        console.print("Nothing was behind: the source, the code and the models are as they were.\n")
    print_ingest(chain[0], console)
    steps = _steps(chain)
    truth = pq.read_table(source.truth) if source.truth else None
    print_funnel(steps, scores(chain, truth) if truth else {}, console)
    print_versions(steps, chain, console)
    print_nearest(chain[-1], source, console)
    print_model(chain[-1], console)
    console.print(f"\nDone in {seconds:.0f} s. Next:")
    console.print("  make dev                          the graph, its runs and the pictures in the Dagster UI")
    console.print("  .venv/bin/factory show training_set      columns, rows and provenance of the result")
    columns = [name for name in ("key", "caption", "clip_score") if name in DatasetQuery(chain[-1]).columns]
    console.print(f'  .venv/bin/factory sql "SELECT {", ".join(columns)} FROM {chain[-1]} LIMIT 5"', markup=False)


def figures() -> list[FunnelStep]:
    """The funnel of the latest versions: what each stage was given and kept, and why samples went."""
    return _steps([resolve(warehouse(), name) for name in STAGES])


def _steps(chain: Sequence[Version]) -> list[FunnelStep]:
    first, *rest = funnel(chain, findings=("duplicates",))
    return [replace(first, remark=_not_read(chain[0])), *rest]


def print_ingest(samples: Version, console: Console) -> None:
    """What the source held, what of it was odd, and what became of each of its files and columns."""
    record = samples.provenance
    for source in record.sources if record else []:
        counts = ", ".join(f"{n:,} {name.replace('_', ' ')}" for name, n in source["counts"].items())
        console.print(f"\n{source['samples']:,} samples, {len(source['shards'])} shards ({source['format']})")
        for line in lines(source.get("account", [])):
            console.print(f"  {line}", markup=False, soft_wrap=True)
        if counts:
            console.print(f"  noted while reading: {counts}", soft_wrap=True)
    losses = [loss for loss in read_losses(samples.warehouse, samples.uuid) if loss.files]
    known = {f"{loss.shard}: {problem}" for loss in losses for problem in loss.problems}
    for problem in [p for source in (record.sources if record else []) for p in source["problems"] if p not in known][
        :5
    ]:
        console.print(f"  {problem}", style="yellow", markup=False)
    for loss in losses[:_SHOWN_LOSSES]:
        console.print(f"  NOT READ {loss}", style="red" if loss.is_unread else "yellow", markup=False, soft_wrap=True)
    if len(losses) > _SHOWN_LOSSES:
        console.print(
            f"  … and {len(losses) - _SHOWN_LOSSES:,} more shards: factory show {samples} --json", markup=False
        )
    if losses:
        console.print(f"  {MEND}", soft_wrap=True)


def _not_read(samples: Version) -> str:
    """How many shards, or parts of them, are missing at the start."""
    losses = read_losses(samples.warehouse, samples.uuid)
    unread, damaged = (sum(bool(loss.files) and loss.is_unread is state for loss in losses) for state in (True, False))
    said = [f"{unread:,} shards could not be read"] * bool(unread) + [f"{damaged:,} are damaged"] * bool(damaged)
    return f"{', '.join(said)}: see above." if said else ""


def scores(chain: Sequence[Version], truth: pa.Table) -> dict[str, FilterScore]:
    """How right each filter was, against the truth of the rendered images."""
    keys = {v.dataset: DatasetQuery(v).select("key").to_arrow()["key"] for v in chain}
    return {
        "basic_filter": score_filter(truth, keys["photo_signals"], keys["basic_filter"], BASIC_FAULTS),
        "deduplicated": score_duplicates(truth, keys["quality_filter"], keys["deduplicated"]),
        "clip_score_filter": score_filter(truth, keys["deduplicated"], keys["clip_score_filter"], ["mismatched"]),
    }


def print_funnel(steps: Sequence[FunnelStep], known: Mapping[str, FilterScore], console: Console) -> None:
    """Rows in and kept by stage, with the reasons."""
    table = Table(title="Funnel", title_justify="left")
    for name in ("stage", "rows in", "kept", "share", *(("precision", "recall") if known else ()), "why samples went"):
        table.add_column(name, justify="left" if name in ("stage", "why samples went") else "right")
    for step in steps:
        dataset = step.version.partition(".")[0]
        score = known.get(dataset)
        rated = (
            (_percent(score.precision if score else None), _percent(score.recall if score else None)) if known else ()
        )
        why = "\n".join(f"{n:>5,}  {reason}" for reason, n in step.reasons.items() if n)
        why = "\n".join(part for part in (why, step.remark) if part)
        kept = (f"{step.rows:,}", _percent(step.kept))
        if step.is_finding:
            kept, why = ("", ""), f"{step.rows:,}  have copies; the next stage keeps one of each group"
        table.add_row(step.version, f"{step.rows_in:,}", *kept, *rated, why)
    console.print()
    console.print(table)
    if known:
        console.print(
            "Precision: share of the removed samples that deserved it; recall: share of those deserving it that went,"
            "\nby the known truth of the rendered images, which no stage reads."
        )


def print_versions(steps: Sequence[FunnelStep], chain: Sequence[Version], console: Console) -> None:
    """The versions with what they cost."""
    table = Table(title="Versions", title_justify="left")
    for name in ("version", "rows", "stored as", "MB added", "seconds", "values computed", "reused"):
        table.add_column(name, justify="left" if name in ("version", "stored as") else "right")
    for step, version in zip(steps, chain, strict=True):
        record = version.provenance
        if record is not None:
            numbers = (
                f"{record.bytes_added / 1e6:.2f}",
                f"{record.seconds:.1f}",
                f"{record.computed:,}",
                f"{record.reused:,}",
            )
            table.add_row(step.version, f"{step.rows:,}", step.storage, *numbers)
    console.print()
    console.print(table)


def print_nearest(training_set: Version, source: DemoSource, console: Console) -> None:
    """The five images nearest to an exemplar: a described one for rendered images, else the first of the set."""
    from factory_lib.signals import clip

    if "clip" not in DatasetQuery("clip_embeddings").columns:
        return
    embedded = DatasetQuery("clip_embeddings").join(DatasetQuery(training_set), on="sample_id", how="semi")
    named = [name for name in ("caption", "key") if name in embedded.columns]  # a caption may be NULL
    first = embedded.limit(1).select("sample_id", *named).to_arrow().to_pylist()
    if source.truth is not None:
        near, what = embedded.search(text=EXEMPLAR, encoder=clip.encode_text, k=5), repr(EXEMPLAR)
    elif first:
        near = embedded.search(sample=first[0]["sample_id"], k=5)
        what = f"the first image ({_name(first[0])!r})"
    else:
        return
    table = Table(title=f"Five images nearest to {what}", title_justify="left")
    for name in ("distance", named[0], "where its bytes are"):
        table.add_column(name, justify="right" if name == "distance" else "left")
    for row in near.select("distance", "image", *named).to_arrow().to_pylist():
        pointer = row["image"]
        place = f"{pointer['uri'].rsplit('/', 1)[-1]} [{pointer['offset']:,} + {pointer['size']:,}]"
        table.add_row(f"{row['distance']:.3f}", _name(row), place)
    console.print()
    console.print(table)


def _name(row: Mapping[str, Any]) -> str:
    return str(row.get("caption") or row["key"])


def print_model(training_set: Version, console: Console) -> None:
    """The trained model's score, from the newest event of its asset."""
    import dagster as dg

    from factory_lib.orchestration.home import factory_instance

    with factory_instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("trained_model"))
    if event is None or event.asset_materialization is None:
        raise DatasetNotFound("No model was trained.", "Run the graph again: make demo.")
    numbers = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    if "accuracy" not in numbers:
        console.print(f"\nNo model was trained: {numbers['why']}", soft_wrap=True)
        return
    line = (
        f"\nModel trained on {numbers['samples']:,} pairs of {numbers['trained_on']}: {_accuracy(numbers)} of"
        f" {numbers['test_pairs']:,} unseen images, drawn before any filter, are nearest to their own caption (chance"
        f" {numbers['chance']:.1%}, AUC {numbers['auc']:.3f})"
    )
    if "baseline_accuracy" in numbers:
        line += (
            f"; the same model on as many uncurated samples: {_accuracy(numbers, 'baseline_')}."
            f" The gain by curation is {numbers['compared_with_baseline']}"
        )
    console.print(line + ".", soft_wrap=True)


def _accuracy(numbers: Mapping[str, Any], of: str = "") -> str:
    value, low, high = (numbers[f"{of}accuracy{end}"] for end in ("", "_low", "_high"))
    return f"{value:.1%} ({low:.1%} to {high:.1%})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.1%}"
