"""`factory show`: one version, from its columns to what made it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import click

from factory_lib.commands.naming import VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import console, facts, number, print_json, print_rows, seconds, size, table, when
from factory_lib.history.origins import Origin, origins_of, shards_behind, signal_shards, source_counts
from factory_lib.history.summaries import table_bytes
from factory_lib.history.tampering import Finding
from factory_lib.history.verifying import marks
from factory_lib.tables import cell
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.losses import MEND, NOT_MADE, ShardLoss, read_losses
from factory_lib.warehouse.tags import tags_of
from factory_lib.warehouse.vanished import read_vanished
from factory_lib.warehouse.versions import Version, resolve

_NAMED = 5
_BESIDE = 4
"""Up to this many sample rows stand beside the columns, one below the other they would not fit."""


@command(
    """
    factory show laion
    factory show laion.v3 --rows 10 --shards
    """
)
@click.argument("version", type=VersionName())
@click.option("--rows", default=2, show_default=True, type=click.IntRange(0, 1000), help="Sample rows to show.")
@click.option("--shards", is_flag=True, help="List the shards, too.")
def show_command(version: str, rows: int, shards: bool, as_json: bool) -> None:
    """Show a version: columns, shards, where it comes from, a few rows.

    VERSION is laion (the latest), laion.v3 or laion@icml.
    """
    wh = warehouse()
    found = resolve(wh, version)
    made = origins_of(wh, found)
    wrong = marks(found)
    recorded = read_losses(wh, found.uuid)
    losses = [loss for loss in recorded if loss.files]
    not_made = [loss for loss in recorded if NOT_MADE in loss.lost]
    samples = _sample_rows(found, rows)
    looked_at = [one.get("declared_in", one["uri"]) for one in source_counts(made)]
    gone = {s: at for s, at in read_vanished(wh, looked_at).items() if s in found.shards}
    if as_json:
        not_read = [{**asdict(loss), "is_unread": loss.is_unread} for loss in losses]
        missing = {"not_read": not_read, "not_made": not_made, "gone": gone}
        print_json({**_as_json(found, made, samples, shards), "findings": wrong, **missing})
        return
    _print_head(found, made, wrong)
    _print_losses(losses)
    _print_not_made(not_made)
    _print_gone(gone)
    _print_columns(found, samples)
    _print_provenance(found, made)
    if shards:
        _print_shards(found, made)


def _sample_rows(version: Version, rows: int) -> list[dict[str, Any]]:
    from factory_lib.query import DatasetQuery

    sampled: list[dict[str, Any]] = DatasetQuery(version).limit(rows).to_arrow().to_pylist() if rows else []
    return sampled


def _as_json(version: Version, made: list[Origin], samples: list[dict[str, Any]], shards: bool) -> dict[str, Any]:
    counts = list(version.shard_rows().values())
    names = {origin.uuid: origin.version for origin in made}
    listed = [
        {"shard": s.shard, "rows": s.rows, "made_by": names.get(s.origin), "source": s.source}
        for s in version.shards.values()
    ]
    return {
        "version": str(version),
        "uuid": version.uuid,
        "tags": _tags(version),
        "rows": version.rows,
        "bytes": table_bytes(version.warehouse, [str(version)])[str(version)],
        "columns": dict(version.columns),
        "shards": {"count": len(counts), "rows_min": min(counts, default=0), "rows_max": max(counts, default=0)},
        **({"shard_list": listed} if shards else {}),
        "provenance": version.provenance,
        "signals": signal_shards(made),
        "sources": source_counts(made),
        "shards_behind": len(shards_behind(version)),
        "made_by": {origin.name: len(origin.shards) for origin in made},
        "samples": samples,
    }


def _print_head(version: Version, made: list[Origin], wrong: list[Finding]) -> None:
    counts = list(version.shard_rows().values())
    sizes = (
        f" of {min(counts):,} to {max(counts):,} rows (mean {sum(counts) / len(counts):,.0f})"
        if len(counts) > 1
        else ""
    )
    plural = "shard" if len(counts) == 1 else "shards"
    lines = [
        f"{version}" + "".join(f"  @{tag}" for tag in _tags(version)),
        f"{version.rows:,} rows in {len(counts):,} {plural}{sizes},"
        f" {size(table_bytes(version.warehouse, [str(version)])[str(version)])} on disk",
    ]
    if len(made) > 1:
        own = next((len(o.shards) for o in made if o.uuid == version.uuid), 0)
        others = len(made) - bool(own)
        lines.append(
            f"{own:,} of its shards are its own, {len(counts) - own:,} are carried over from {others:,} others"
        )
    if wrong:
        lines.append("NOT AS PUBLISHED:")
        lines += [f"  {one.shard}: {one.what}" if one.shard else f"  {one.what}" for one in wrong[:_NAMED]]
        if len(wrong) > _NAMED:
            lines.append(f"  … and {len(wrong) - _NAMED:,} more: factory verify {version}")
    console().print("\n".join(lines))


def _print_losses(losses: list[ShardLoss]) -> None:
    if not losses:
        return
    unread = sum(loss.is_unread for loss in losses)
    lines = [f"NOT READ: {unread:,} shards, and parts of {len(losses) - unread:,} more:"]
    lines += [f"  {loss}" for loss in losses[:_NAMED]]
    if len(losses) > _NAMED:
        lines.append(f"  … and {len(losses) - _NAMED:,} more: --json lists them")
    console().print("\n".join([*lines, f"  {MEND}"]))


def _print_not_made(losses: list[ShardLoss]) -> None:
    """Samples of which there is no new sample, and the first reasons."""
    if losses:
        lines = [f"NOT MADE: {sum(loss.lost[NOT_MADE] for loss in losses):,} new samples, in {len(losses):,} shards:"]
        reasons = [f"{loss.shard}: {problem}" for loss in losses for problem in loss.problems]
        lines += [f"  {reason}" for reason in reasons[:_NAMED]]
        if len(reasons) > _NAMED:
            lines.append("  … and more: --json lists the first of each shard")
        console().print("\n".join(lines))


def _print_gone(gone: dict[str, str]) -> None:
    if gone:
        more = f" and {len(gone) - _NAMED:,} more" if len(gone) > _NAMED else ""
        named = ", ".join(f"{shard} since {at}" for shard, at in list(gone.items())[:_NAMED])
        console().print(f"GONE AT THE SOURCE: {len(gone):,} shards, whose samples are still here: {named}{more}")


def _print_columns(version: Version, samples: list[dict[str, Any]]) -> None:
    beside = samples if len(samples) <= _BESIDE else []
    headings = ("column", "type", *(f"sample {i + 1}" for i in range(len(beside))))
    rows = [(name, ch_type, *(cell(s[name]) for s in beside)) for name, ch_type in version.columns.items()]
    out = console()
    out.print()
    out.print(table(headings, rows))
    if samples and not beside:
        out.print()
        out.print(table(list(version.columns), [[cell(v) for v in sample.values()] for sample in samples]))


def _print_provenance(version: Version, made: list[Origin]) -> None:
    out = console()
    out.print()
    record = version.provenance
    if record is None:
        out.print("Where it comes from was not recorded.")
        return
    told = [
        ("made", f"{when(record.created)}, in {seconds(record.seconds)}"),
        ("made of", ", ".join(p["name"] for p in record.parents)),
        ("query", record.python),
        ("stored as", f"{record.storage}, {size(record.bytes_added)} added"),
        ("rows", f"{number(record.rows_in)} read, {number(record.rows)} in this version" if record.parents else ""),
        ("values", f"{record.reused:,} taken over, {record.computed:,} computed" if record.signals else ""),
        ("code", ", ".join(f"{name} {value}" for name, value in record.code.items())),
        *_context_facts(record.context),
        ("behind", _behind(version)),
        *_signal_facts(made, len(version.shards)),
        *_source_facts(made),
    ]
    out.print(facts(told))


def _context_facts(context: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the maker of a version said of it; of several numbers, the reasons that removed something, a line each."""
    for name, said in sorted(context.items()):
        if isinstance(said, Mapping):
            lines = [f"{n:,} {reason}" for reason, n in said.items() if n]
            yield from zip([name, *[""] * len(lines)], lines, strict=False)
        else:
            yield name, str(said)


def _behind(version: Version) -> str:
    behind = shards_behind(version)
    more = ", …" if len(behind) > _NAMED else ""
    named = f"{', '.join(behind[:_NAMED])}{more}"
    return f"{len(behind):,} of {len(version.shards):,} shards were made by other code: {named}" if behind else ""


def _signal_facts(made: list[Origin], shards: int) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for signal in signal_shards(made):
        where = "" if signal["shards"] == shards else f", in {signal['shards']:,} of {shards:,} shards"
        older = " (older)" if signal["name"] in seen else ""
        yield "signal" if not seen else "", f"{signal['name']} {signal['fingerprint'][:16]}{where}{older}"
        seen.add(signal["name"])


def _source_facts(made: list[Origin]) -> Iterator[tuple[str, str]]:
    for source in source_counts(made):
        counts = "".join(f", {n:,} {name.replace('_', ' ')}" for name, n in source["counts"].items() if n)
        name = f"{source['name']}: " if "name" in source else ""
        yield "source", f"{name}{source['uri']} ({source['format']}): {source['samples']:,} samples{counts}"
        problems = source["problems"]
        for problem in problems[:5]:
            yield "", f"  {problem}"
        if len(problems) > 5:
            yield "", f"  … {len(problems) - 5:,} more problems: --json lists them"


def _print_shards(version: Version, made: list[Origin]) -> None:
    names = {origin.uuid: origin.name for origin in made}
    rows = [(s.shard, number(s.rows), names.get(s.origin, ""), s.source) for s in version.shards.values()]
    console().print()
    print_rows(("shard", "rows", "made by", "files"), rows, numbers=("rows",))


def _tags(version: Version) -> list[str]:
    return sorted(t.tag for t in tags_of(version.warehouse, version.dataset).values() if t.uuid == version.uuid)
