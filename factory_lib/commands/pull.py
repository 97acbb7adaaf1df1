"""`factory pull`: a version that is published elsewhere, opened here."""

from __future__ import annotations

import click

from factory_lib.commands.naming import PathOrUri
from factory_lib.commands.options import command
from factory_lib.commands.output import number, print_json


@command(
    """
    factory pull s3://team/datasets/laion.v3
    factory pull s3://team/datasets/laion@icml --as theirs
    """
)
@click.argument("address", type=PathOrUri())
@click.option("--as", "dataset", metavar="DATASET", help="The dataset that it is a version of here. [default: its own]")
def pull_command(address: str, dataset: str | None, as_json: bool) -> None:
    """Open a published version: it is read where it lies, and nothing of it is copied.

    ADDRESS names a version, a tag, or a dataset, of which the latest is meant. `factory ls URI` shows what there is.
    """
    from factory_lib.catalog import pull

    found = pull(address, dataset)
    if as_json:
        print_json({"version": str(found), "uuid": found.uuid, "rows": found.rows, "shards": len(found.shards)})
    else:
        click.echo(f"{found}: {number(found.rows)} rows in {number(len(found.shards))} shards.")
