"""`factory diff`: what differs between two versions, and why."""

from __future__ import annotations

from collections.abc import Sequence

import click

from factory_lib.catalog import diff, version
from factory_lib.commands.naming import VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import console, number, plain, print_json, table
from factory_lib.history.comparing import Difference
from factory_lib.history.matching import ShardDifference
from factory_lib.history.reasons import Reason
from factory_lib.warehouse.versions import Version

_LISTED_SHARDS = 20
_LISTED_REASONS = 12


@command(
    """
    factory diff laion.v3 laion.v4
    factory diff laion@icml laion --json
    """
)
@click.argument("before", type=VersionName())
@click.argument("after", type=VersionName())
@click.option("--shards", is_flag=True, help=f"List all shards that differ, not the first {_LISTED_SHARDS}.")
def diff_command(before: str, after: str, shards: bool, as_json: bool) -> None:
    """Compare two versions: samples and columns, and what explains it.

    Says which samples were added, removed and changed, by shard and by column.

    Samples are matched by sample_id within their shard. Shards that both versions share are not read.
    """
    first, second = version(before), version(after)
    found = diff(first, second)
    if as_json:
        print_json(_as_json(found))
        return
    _print_totals(found, first, second)
    _print_shards(found.shards if shards else found.shards[:_LISTED_SHARDS], len(found.shards))
    _print_reasons(found.reasons, found.is_empty)


def _as_json(found: Difference) -> dict[str, object]:
    totals = {name: getattr(found, name) for name in ("added", "removed", "changed", "moved")}
    return {**plain(found), **totals, "columns": found.columns, "is_same": found.is_empty}


def _print_totals(found: Difference, first: Version, second: Version) -> None:
    out = console()
    out.print(f"{first}: {first.rows:,} rows    {second}: {second.rows:,} rows")
    out.print()
    if found.is_empty:
        out.print("The same samples, with the same values in the same columns.")
        return
    totals = [("added", found.added), ("removed", found.removed), ("changed", found.changed), ("moved", found.moved)]
    totals.append(("in other shards", found.resharded.samples))
    shown = [f"{n:,} {word}" for word, n in totals if n]
    out.print(f"samples  {', '.join(shown) or 'the same'}")
    plural = "shard differs" if len(found.shards) == 1 else "shards differ"
    out.print(f"shards   {len(found.shards):,} {plural}, {found.shards_alike:,} alike")
    for name, ch_type in found.columns_added.items():
        out.print(f"column   + {name} {ch_type}")
    for name, ch_type in found.columns_dropped.items():
        out.print(f"column   - {name} {ch_type}")
    for name, (old, new) in found.columns_retyped.items():
        out.print(f"column   ~ {name} is {new}, was {old}")
    if found.columns:
        out.print()
        rows = sorted(found.columns.items(), key=lambda item: -item[1])
        out.print(table(("column", "changed"), [(n, number(k)) for n, k in rows], numbers=("changed",)))


def _print_shards(shards: Sequence[ShardDifference], total: int) -> None:
    if not shards:
        return
    headings = ("shard", "before", "after", "added", "removed", "changed", "moved", "columns")
    rows = [
        (
            s.shard,
            *(number(n) for n in (s.rows_before, s.rows_after, s.added, s.removed, s.changed, s.moved)),
            ", ".join(f"{name} {n:,}" for name, n in s.columns.items()),
        )
        for s in shards
    ]
    out = console()
    out.print()
    out.print(table(headings, rows, numbers=headings[1:7]))
    if len(shards) < total:
        out.print(f"… and {total - len(shards):,} more: --shards lists them.")


def _print_reasons(why: Sequence[Reason], is_same: bool) -> None:
    if not why:
        return
    out = console()
    out.print()
    out.print("Made differently all the same" if is_same else "Because of")
    for reason in why[:_LISTED_REASONS]:
        shards = "1 shard" if reason.shards == 1 else f"{reason.shards:,} shards"
        where = f", in {reason.version}" if reason.version else ""
        out.print(f"  {reason.kind:<8} {reason.text} ({shards}{where})")
        if reason.kind in ("query", "made"):
            for mark, text in (("-", reason.before), ("+", reason.after)):
                if text:
                    out.print(f"           {mark} {text}")
    if len(why) > _LISTED_REASONS:
        out.print(f"  … and {len(why) - _LISTED_REASONS:,} more: --json lists them.")
