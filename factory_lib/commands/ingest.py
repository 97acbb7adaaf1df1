"""`factory ingest`: samples in storage become a dataset."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from factory_lib.build.session import ledger_of
from factory_lib.commands.naming import DatasetName, PathOrUri
from factory_lib.commands.options import command, mapping_options
from factory_lib.commands.output import print_json, say, seconds, size
from factory_lib.errors import SourceError
from factory_lib.progress import log_lines, reporting
from factory_lib.redaction import without_credentials
from factory_lib.renamed import told
from factory_lib.sources.account import lines
from factory_lib.sources.grouping import grouping_advice

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery

_SHOWN_PROBLEMS = 10


@command(
    """
    factory ingest s3://bucket/laion --name laion
    factory ingest /data/pool --name pool --metadata /data/scores.parquet --shards 00000,00001
    factory ingest /data/late --name laion --overwrite-shards
    """
)
@click.argument("uri", type=PathOrUri())
@click.option("--name", required=True, type=DatasetName(), help="The dataset that gets a new version.")
@click.option(
    "--overwrite-shards", is_flag=True, help="Overwrite or add these shards: the latest version's others stay."
)
@click.option("--merge", is_flag=True, hidden=True)
@click.option("--shards", metavar="A,B", help="Only these shards.")
@click.option("--tars-per-shard", type=click.IntRange(1), help="How many tars make a shard. [default: 1]")
@click.option(
    "--unpack-to",
    metavar="URI",
    type=PathOrUri(),
    help="Where what cannot be pointed at is unpacked to: archives, parquet.",
)
@mapping_options
def ingest_command(
    uri: str,
    name: str,
    overwrite_shards: bool,
    merge: bool,
    shards: str | None,
    tars_per_shard: int | None,
    unpack_to: str | None,
    as_json: bool,
    **given: str | None,
) -> None:
    """Make a version of samples in storage.

    URI is a path, s3://…, or whatever else fsspec opens, with WebDataset tars, img2dataset output, a DataComp pool, zip
    archives, tables, or images; several by a pattern such as {000..012}, or a TOML file that declares several sources.
    Images stay where they are: rows point at them.
    """
    from factory_lib.names import check_dataset_name
    from factory_lib.query import DatasetQuery
    from factory_lib.sources import open_source
    from factory_lib.sources.mapping import from_words

    check_dataset_name(name)
    if merge:
        say(told("--merge", "--overwrite-shards"))
    mapping = from_words({option: value for option, value in given.items() if value})
    source = open_source(uri, tars_per_shard=tars_per_shard, unpack_to=unpack_to, **mapping)
    if not shards and (advice := grouping_advice(source.shards())):
        say(advice)
    wanted = None if shards is None else [shard.strip() for shard in shards.split(",") if shard.strip()]
    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        query = DatasetQuery.from_source(source, shards=wanted)
        if not query.count():
            raise SourceError(f"{without_credentials(uri)} gave no samples: no version was made.", _problems(query))
        version = query.save(name, mode="overwrite_shards" if overwrite_shards or merge else "new")
    record = version.provenance
    assert record is not None
    result: dict[str, Any] = {"version": str(version), "rows": version.rows, "shards": len(version.shards)}
    result |= _read_of(record.sources) | {"bytes_added": record.bytes_added, "seconds": record.seconds}
    print_json(result) if as_json else _print(result)


def _read_of(sources: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What was read: of one source, or of several, each below its name."""
    read = [
        {
            **({"name": one["name"]} if "name" in one else {}),
            "samples_read": one["samples"],
            "format": one["format"],
            "counts": one["counts"],
            "problems": one["problems"],
            "account": one["account"],
        }
        for one in sources
    ]
    if "name" not in read[0]:
        return read[0]
    return {"samples_read": sum(one["samples_read"] for one in read), "format": "several", "sources": read}


def _problems(query: DatasetQuery) -> str:
    """What went wrong while a source was read, in a line."""
    written = ledger_of(query.plan.source)
    problems = [p for source in written.sources for p in source["problems"]] if written else []
    more = f" (and {len(problems) - 1:,} more problems)" if len(problems) > 1 else ""
    return f"{problems[0]}{more}" if problems else ""


def _print(result: dict[str, Any]) -> None:
    rate = result["samples_read"] / max(result["seconds"], 1e-9)
    click.echo(result["version"])
    say(
        f"{result['samples_read']:,} samples read ({result['format']}) in {seconds(result['seconds'])}, {rate:,.0f}/s;"
        f" {result['rows']:,} rows in {result['shards']:,} shards, {size(result['bytes_added'])} added."
    )
    for read in result.get("sources", [result]):
        if "name" in read:
            say(f"  {read['name']} ({read['format']}): {read['samples_read']:,} samples")
        _print_odd(read, result["version"])


def _print_odd(read: Mapping[str, Any], version: str) -> None:
    """What became of files and columns of a source, and what was odd about it."""
    for line in lines(read["account"]):
        say(f"  {line}")
    for name, n in read["counts"].items():
        if n:
            say(f"  {n:,} {name.replace('_', ' ')}")
    problems = read["problems"]
    for problem in problems[:_SHOWN_PROBLEMS]:
        say(f"  {problem}")
    if len(problems) > _SHOWN_PROBLEMS:
        say(f"  … {len(problems) - _SHOWN_PROBLEMS} more problems: factory show {version} --json lists them.")
