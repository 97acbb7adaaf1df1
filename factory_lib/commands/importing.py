"""`factory import`: an export becomes a dataset again."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from factory_lib.commands.naming import DatasetName, PathOrUri
from factory_lib.commands.options import command
from factory_lib.commands.output import number, print_json, say
from factory_lib.progress import log_lines, reporting


@command(
    """
    factory import /data/exports/laion
    factory import s3://team/exports/laion --name theirs
    """
)
@click.argument("uri", type=PathOrUri())
@click.option("--name", type=DatasetName(), help="The dataset that gets a new version. [default: the one exported]")
@click.option("--unpack-to", metavar="URI", type=PathOrUri(), help="Where bytes go that lie in tables.")
def import_command(uri: str, name: str | None, unpack_to: str | None, as_json: bool) -> None:
    """Make a version of what `factory export` wrote.

    URI is the folder or prefix of an export as parquet, huggingface, webdataset or resharded. Samples and pointers
    are those of the version that was exported; `factory show` says which one it was.
    """
    from factory_lib.writing.importing import import_samples

    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        found = import_samples(uri, name, unpack_to=unpack_to)
    if as_json:
        print_json({"version": str(found), "uuid": found.uuid, "rows": found.rows, "shards": len(found.shards)})
    else:
        click.echo(f"{found}: {number(found.rows)} rows in {number(len(found.shards))} shards.")
