"""`factory backup` and `factory restore`: a data folder as it was at one moment."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import click

from factory_lib.commands.options import Folder, FolderOrUri, command
from factory_lib.commands.output import console, print_json, print_rows, say, size
from factory_lib.progress import log_lines, reporting
from factory_lib.settings import settings
from factory_lib.warehouse.client import warehouse

if TYPE_CHECKING:
    from factory_lib.history.backups import Backup


@command("factory backup /backups/laion")
@click.argument("folder", metavar="DIR", type=Folder())
@click.option("--no-verify", is_flag=True, help="Do not open and read what was taken.")
def backup_command(folder: Path, no_verify: bool, as_json: bool) -> None:
    """Back up the data folder into DIR, while it is in use.

    DIR gets a folder for each backup: all versions, the catalog, Dagster's runs and events, models. On one file system
    files are hard links; elsewhere they are copied, those of the backup before not again. Each backup stands by itself:
    remove old ones as you like.

    Exit code 0 when the backup is what was published, 1 when something in it is not.
    """
    from factory_lib.history.backups import backup

    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        made = backup(warehouse(), folder, check=not no_verify)
    _print(made, f"{made.folder} holds {made.versions:,} versions, {size(made.copied_bytes)} were copied.", as_json)


@command("FACTORY_HOME=restored factory restore /backups/laion")
@click.argument("source", metavar="DIR", type=FolderOrUri())
def restore_command(source: Path | str, as_json: bool) -> None:
    """Restore a backup into the data folder, which must be missing or empty, and verify it.

    DIR is a backup, or a folder of backups, of which the newest is taken; or the bucket that FACTORY_VERSIONS named for
    a data folder that is lost. The data folder is FACTORY_HOME.

    Exit code 0 when all is as it was published, 1 when something is not.
    """
    from factory_lib.history.backups import restore, restore_from_bucket

    home = settings().home
    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        made = restore(source, home) if isinstance(source, Path) else restore_from_bucket(source, home)
    _print(made, f"{home} is {Path(made.folder).name}: {made.versions:,} versions.", as_json)


def _print(made: Backup, text: str, as_json: bool) -> None:
    from factory_lib.history.backups import as_json as plain

    if as_json:
        print_json(plain(made))
    else:
        console().print(text)
        if made.findings:
            print_rows(("version", "shard", "finding"), [(one.version, one.shard, one.what) for one in made.findings])
    if made.findings:
        click.get_current_context().exit(1)
