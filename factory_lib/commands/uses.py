"""`factory uses`: which versions have values of a signal, or point into a file."""

from __future__ import annotations

import click

from factory_lib.catalog import use_list
from factory_lib.commands.naming import SignalOrFile
from factory_lib.commands.options import command
from factory_lib.commands.output import number, print_json, print_rows


@command(
    """
    factory uses clip_embedding
    factory uses s3://bucket/shards/00003.tar
    """
)
@click.argument("thing", type=SignalOrFile())
def uses_command(thing: str, as_json: bool) -> None:
    """Show which versions computed a signal or carry it over, or point into a file.

    A signal is named or given by its fingerprint, a file or a folder by its URI. What was made of these versions:
    factory lineage --down.
    """
    found = use_list(thing)
    if as_json:
        print_json(found)
        return
    rows = [(use.version + ("" if use.is_there else " (dropped)"), use.what, number(use.shards)) for use in found]
    print_rows(("version", "file" if "/" in thing else "fingerprint", "shards"), rows)
