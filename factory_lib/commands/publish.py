"""`factory publish`: a version below an address that a team shares."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from factory_lib.commands.naming import PathOrUri, VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import number, print_json, say, size
from factory_lib.progress import log_lines, reporting


@command(
    """
    factory publish laion.v3 s3://team/datasets
    factory publish clean@icml /nfs/datasets --tag icml
    """
)
@click.argument("version", metavar="DATASET[.vN]", type=VersionName())
@click.argument("uri", type=PathOrUri())
@click.option("--tag", metavar="TAG", help="A tag that it gets there.")
def publish_command(version: str, uri: str, tag: str | None, as_json: bool) -> None:
    """Publish a version: any engine opens it at its address, and nobody can change it.

    URI is a prefix of a bucket, or a folder. Rows are written once, with provenance, fingerprints and recipe. The
    version keeps its number, or gets the next one where another version has it. A publication that was interrupted goes
    on when the same command is given again.
    """
    from factory_lib.catalog import publish

    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        made = publish(version, uri, tag=tag)
    found = made.manifest
    if as_json:
        print_json({"address": made.address, "made": made.made, "uuid": found.uuid, "fingerprint": found.fingerprint})
        return
    if not made.made:
        say("It is published already: nothing was written.")
    click.echo(f"{made.address}: {number(found.rows)} rows in {number(found.shards)} shards, {size(found.size)}.")
