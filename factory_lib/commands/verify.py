"""`factory verify`: whether versions are what was published."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from factory_lib.commands.naming import VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import console, print_json, print_rows, say
from factory_lib.progress import log_lines, reporting
from factory_lib.warehouse.client import warehouse

_NAMED = 20


@command(
    """
    factory verify                 # the latest version of each dataset is read, all others are compared
    factory verify laion.v3
    factory verify laion --all
    """
)
@click.argument("name", metavar="DATASET[.vN]", required=False, type=VersionName())
@click.option("--all", "every", is_flag=True, help="Read all versions, not only the latest.")
@click.option("--no-sources", is_flag=True, help="Do not ask the storage for the files that versions point into.")
@click.option("--accept-gone", is_flag=True, help="Versions whose tables were dropped by hand were meant to go.")
def verify_command(name: str | None, every: bool, no_sources: bool, accept_gone: bool, as_json: bool) -> None:
    """Compare versions with what was published: rows, contents, catalog and tables.

    The latest version of each dataset, or the one that is named, is read; of others the files are compared by their
    checksums. What was changed behind the factory's back is named. Files in storage that changed since are listed
    apart: they are no fault of the versions.

    Exit code 0 when all is as published, 1 when something is not.
    """
    from factory_lib.history import verifying

    for version in verifying.accept_gone(warehouse(), name) if accept_gone else ():
        say(f"{version} is gone, and was meant to go.")
    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        found = verifying.verify(warehouse(), name, every=every, sources=not no_sources)
    if as_json:
        print_json(found)
    else:
        if found.findings:
            print_rows(("version", "shard", "finding"), [(one.version, one.shard, one.what) for one in found.findings])
        else:
            versions = "version is" if len(found.compared) == 1 else "versions are"
            console().print(f"{len(found.compared):,} {versions} as published; {len(found.read):,} of them were read.")
        if found.sources:
            console().print("\nFiles in storage that are not what they were when the version was made")
            print_rows(
                ("version", "file", "what"), [(one.version, one.uri, one.what) for one in found.sources[:_NAMED]]
            )
            if len(found.sources) > _NAMED:
                console().print(f"… and {len(found.sources) - _NAMED:,} more: --json lists them.")
    if found.findings:
        click.get_current_context().exit(1)
