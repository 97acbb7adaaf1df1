"""`factory gc`: what may go from the warehouse, and make it go."""

from __future__ import annotations

import click

from factory_lib.build.unused_tars import find_unused_tars, remove_unused_tars
from factory_lib.commands.options import command
from factory_lib.commands.output import print_json, print_rows, say, size
from factory_lib.view.html import counted
from factory_lib.warehouse.bucket.unnamed import find_unnamed, remove_unnamed
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.policy import Expired, KeepPolicy, drop_versions, expired
from factory_lib.warehouse.retention import drop_tables, find_sweepable, sweep


@command(
    """
    factory gc                       # what killed runs left
    factory gc --keep-last 10 --keep-days 30
    factory gc --keep-last 10 --yes
    """
)
@click.option("--yes", is_flag=True, help="Delete it; otherwise it is only shown.")
@click.option("--keep-last", type=click.IntRange(1), help="Versions, too: all but the newest N of each dataset.")
@click.option("--keep-days", type=click.FloatRange(0), help="Versions, too: all but those younger than D days.")
def gc_command(yes: bool, keep_last: int | None, keep_days: float | None, as_json: bool) -> None:
    """Show what may go, and delete it with --yes.

    That is what killed runs left, tars of new samples that no version points into, objects of a bucket that no version
    has and, asked for, old versions.

    Of versions, what either option keeps is kept; so are the latest of each dataset, tagged ones, whatever these were
    made of, and, without --keep-days, those of the last hour. Others lose nothing: shared parts stay as long as one
    version has them.
    """
    wh = warehouse()
    left = find_sweepable(wh)
    tars = find_unused_tars(wh, say)
    objects = find_unnamed(wh)
    versions: list[Expired] = []
    policy = KeepPolicy(keep_last or 1, keep_days)
    if keep_last is not None or keep_days is not None:
        versions = expired(wh, policy)
    if yes:
        drop_tables(wh, left)
        versions = drop_versions(wh, versions, policy, say)
        sweep(wh, [])
        tars = remove_unused_tars(wh, tars, say)
        objects = remove_unnamed(objects)
    if as_json:
        print_json({"deleted": yes, "leftovers": left, "versions": versions, "tars": tars, "objects": objects})
        return
    rows = [(t.folder, t.reason, size(t.bytes)) for t in tars]
    rows += [(o.place, f"{len(o.objects):,} {o.reason}", size(o.bytes)) for o in objects]
    rows += [(v.version, v.reason, size(v.bytes)) for v in versions] + [
        (t.table, t.reason, size(t.bytes)) for t in left
    ]
    if not rows:
        say("There is nothing to delete.")
        return
    print_rows(("what", "reason", "size"), rows, numbers=("size",))
    total = sum(v.bytes for v in versions) + sum(t.bytes for t in left) + sum(t.bytes for t in tars)
    total += sum(o.bytes for o in objects)
    unnamed = sum(len(one.objects) for one in objects)
    kinds = [(len(versions) + len(left), "table"), (len(tars), "folder"), (unnamed, "object")]
    what = f"{' and '.join(counted(n, kind) for n, kind in kinds if n)}, {size(total)} with what they share with others"
    say(f"Deleted {what}." if yes else f"{what}. Nothing was deleted: --yes does it.")
