"""`factory reproduce`: a version made again from what was recorded of it, and compared."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import click

from factory_lib.catalog import reproduce
from factory_lib.commands.naming import VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import console, number, print_json, print_rows, say, seconds
from factory_lib.progress import log_lines, reporting

_NAMED = 20
"""Equal shards are counted; so many of the others are listed."""


@command(
    """
    factory reproduce most_similar.v1
    factory reproduce training_set --json
    """
)
@click.argument("version", type=VersionName())
def reproduce_command(version: str, as_json: bool) -> None:
    """Make a version again from its provenance, and compare.

    Each shard is made by the query that made it, from the versions and sources that it was made of, under a name that
    goes again; values of signals are computed anew. Says which shards are equal, and what could not be pinned.

    Exit code 0 when all shards are equal, 1 when some differ or cannot be made again.
    """
    from factory_lib.signals.declared import project_folders

    # Signals are imported by name: those of the project, too.
    sys.path += [folder for folder in project_folders() if folder not in sys.path]
    with nullcontext() if sys.stderr.isatty() else reporting(log_lines(say)):
        found = reproduce(version, say)
    if as_json:
        counts = {v.replace(" ", "_"): found.count(v) for v in ("equal", "different", "not reproducible")}
        print_json({**vars(found), "is_equal": found.is_equal, **counts})
    else:
        _print(found)
    if not found.is_equal:
        click.get_current_context().exit(1)


def _print(found: object) -> None:
    from factory_lib.history.reproducing import Reproduction

    assert isinstance(found, Reproduction)
    total = len(found.shards)
    plural = "shard" if total == 1 else "shards"
    counts = [(v, found.count(v)) for v in ("equal", "different", "not reproducible")]
    shown = ", ".join(f"{n:,} {verdict}" for verdict, n in counts if n)
    out = console()
    if found.is_equal:
        out.print(f"{found.version}: {number(total)} {plural} made again, all equal, in {seconds(found.seconds)}")
    else:
        out.print(f"{found.version}: {number(total)} {plural}: {shown}, in {seconds(found.seconds)}")
    others = [shard for shard in found.shards if shard.verdict != "equal"]
    if others:
        rows = [
            (
                one.shard or "–",
                one.made_by,
                one.verdict,
                *(number(n) if n else "" for n in (one.added, one.removed, one.changed, one.moved)),
                ", ".join(f"{name} {n:,}" for name, n in one.columns.items()),
                one.reason,
            )
            for one in others[:_NAMED]
        ]
        figures = ("added", "removed", "changed", "moved")
        out.print()
        print_rows(("shard", "made by", "verdict", *figures, "columns", "why"), rows, numbers=figures)
        if len(others) > _NAMED:
            out.print(f"… and {len(others) - _NAMED:,} more: --json lists them.")
    if found.unpinned:
        out.print()
        out.print("Could not be pinned")
        for text in found.unpinned:
            out.print(f"  {text}")
