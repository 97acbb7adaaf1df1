"""`factory export`: a version in a format that others read."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import click

from factory_lib.commands.naming import PathOrUri, VersionName
from factory_lib.commands.options import OneOf, command
from factory_lib.commands.output import print_json, print_rows, say, size
from factory_lib.progress import log_lines, reporting
from factory_lib.redaction import redact

if TYPE_CHECKING:
    from factory_lib.writing import ExportFormat, ExportReport

_FORMATS = ("webdataset", "parquet", "huggingface", "csv", "coco", "subset", "resharded")
_NAMED = 10
_LISTS = ("members", "columns")


@command(
    """
    factory export laion@icml s3://bucket/icml --format webdataset --samples-per-file 5000 --shuffle 1
    factory export clean.v3 /data/clean --format huggingface --columns caption,width,height
    factory export pool /data/small --format resharded --subset subset.npy
    """
)
@click.argument("name", metavar="DATASET[.vN]", type=VersionName())
@click.argument("uri", type=PathOrUri())
@click.option("--format", "kind", required=True, type=OneOf(_FORMATS), help=f"{', '.join(_FORMATS)}.")
@click.option("--samples-per-file", type=click.IntRange(1), help="At most so many samples a tar or table.")
@click.option("--bytes-per-file", type=click.IntRange(1), help="At most so many bytes of members a tar or table.")
@click.option("--members", metavar="A,B", help="Only these members; none: - [default: all]")
@click.option("--columns", metavar="A,B", help="Only these attributes; none: - [default: all but vectors]")
@click.option("--key", metavar="COLUMN", help="What names the samples. [default: key, or uid]")
@click.option("--shuffle", metavar="SEED", type=int, help="In the order in which training with this seed reads.")
@click.option("--epoch", type=click.IntRange(0), help="Of that order. [default: 0]")
@click.option("--images/--no-images", default=None, help="With the bytes of pictures, for parquet and coco.")
@click.option("--split", metavar="NAME", help="Name of the split, for huggingface. [default: train]")
@click.option("--subset", metavar="URI", type=PathOrUri(), help="The subset file, for resharded.")
@click.option("--workers", type=click.IntRange(1), help="Files that are made at once. [default: one a processor]")
@click.option("--overwrite", is_flag=True, help="Another export that is there may go.")
@click.option(
    "--strict", is_flag=True, default=None, help="Fail where a sample cannot be read, which is left out else."
)
def export_command(
    name: str,
    uri: str,
    kind: str,
    shuffle: int | None,
    epoch: int | None,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Write a version for others to read.

    URI is an empty folder or a prefix of a bucket. The export is whole when it has its provenance.json; one that was
    interrupted goes on when the same command is given again. Samples whose bytes cannot be read are left out, counted
    and named.
    """
    from factory_lib.writing import export

    if epoch is not None and shuffle is None:
        raise click.UsageError("--epoch is of a shuffled order: give --shuffle, too.")
    format = _format(kind, {option: value for option, value in given.items() if value is not None})
    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        made = export(
            name,
            uri,
            format,
            shuffle=shuffle is not None,
            seed=shuffle or 0,
            epoch=epoch or 0,
            workers=workers,
            overwrite=overwrite,
        )
    print_json({**vars(made), "bytes": made.size}) if as_json else _print(made)


def _format(kind: str, given: dict[str, Any]) -> ExportFormat:
    """The format by its name and the options that were given.

    Raises:
        click.UsageError: it does not have one of them.
    """
    from factory_lib import writing

    classes = (getattr(writing, one) for one in writing.__all__)
    found = next(one for one in classes if getattr(one, "name", "") == kind)
    known = {one.name for one in fields(found)}
    for option in given:
        if option not in known:
            raise click.UsageError(f"--{option.replace('_', '-')} means nothing to the format {kind}.")
    lists = {o: [] if v == "-" else v.split(",") for o, v in given.items() if o in _LISTS}
    format: ExportFormat = found(**(given | lists))
    return format


def _print(made: ExportReport) -> None:
    if not made.made:
        say("The same export is there already: nothing was written.")
    click.echo(f"{redact(made.uri)}: {made.samples:,} samples in {len(made.files):,} files, {size(made.size)}.")
    for member, samples in made.without.items():
        click.echo(f"{samples:,} of them have no {member}.")
    for what, count in made.left_out.items():
        click.echo(f"{count:,} {what} were left out.")
    if made.unreadable:
        click.echo(f"{made.unreadable:,} samples could not be read and were left out:")
        print_rows(("key", "reason"), list(made.named.items())[:_NAMED])
        if made.unreadable > _NAMED:
            click.echo(f"… and {made.unreadable - _NAMED:,} more: provenance.json names them.")
