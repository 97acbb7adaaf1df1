"""`factory move`: where the versions of a data folder lie."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from factory_lib.commands.options import command
from factory_lib.commands.output import print_json, say, size
from factory_lib.errors import FactoryError
from factory_lib.progress import log_lines, reporting
from factory_lib.settings import settings
from factory_lib.warehouse.client import warehouse

_DISK = "disk"


@command(
    """
    factory move s3://bucket/versions
    factory move disk
    """
)
@click.argument("place")
def move_command(place: str, as_json: bool) -> None:
    """Move the versions of the data folder into a bucket, or back to its disk.

    PLACE is `s3://bucket/prefix`, a prefix that holds nothing, or `disk`. The engine is stopped meanwhile: let nothing
    run. A move that was broken off goes on when it is called again.
    """
    from factory_lib.warehouse.bucket.moving import move_to_bucket, move_to_disk

    found = settings()
    if warehouse().home is None:
        raise FactoryError("The datasets are on a ClickHouse server, which moves them by its own means.")
    if place != _DISK and not place.startswith("s3://"):
        raise click.BadParameter(f"{place!r} is neither s3://bucket/prefix nor {_DISK}.", param_hint="PLACE")
    if found.versions is not None and place not in (_DISK, found.versions):
        raise FactoryError(f"FACTORY_VERSIONS names {found.versions}, not {place}.", "Unset it, or let it name both.")
    warehouse().close()
    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        moved = move_to_disk(found.home) if place == _DISK else move_to_bucket(found.home, place.rstrip("/"))
    if as_json:
        print_json(moved)
        return
    say(f"{moved.versions:,} versions, {size(moved.bytes)} in {moved.files:,} files, were moved to {place}.")
    if place == _DISK and found.versions is not None:
        say("Unset FACTORY_VERSIONS: it still names the bucket.")
