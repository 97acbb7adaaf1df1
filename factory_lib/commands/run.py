"""`factory run`: materialize shards of stages, in this process."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from factory_lib.commands.failing import CommandFailed
from factory_lib.commands.naming import PathOrUri, StageName
from factory_lib.commands.options import command
from factory_lib.commands.output import number, print_json, say, seconds, table
from factory_lib.sources.grouping import grouping_advice

if TYPE_CHECKING:
    from dagster import AssetKey, DagsterInstance, Definitions
    from rich.console import Console

    from factory_lib.orchestration.runs.cost import StageCost
    from factory_lib.orchestration.runs.running import GraphOutcome, GraphState
    from factory_lib.orchestration.source.shards import ShardSource

_NAMED = 20


@command(
    """
    factory run
    factory run --select image_signals+ --shards 00003,00007..00010
    factory run --select group:curation --force --dry-run
    """
)
@click.option(
    "--select",
    metavar="SELECTION",
    type=StageName(),
    help="Only these stages: names, image_signals+, group:curation, a or b.",
)
@click.option("--shards", metavar="A,B..D", help="Only these shards: names, ranges of names, or all.")
@click.option("--source", metavar="URI", type=PathOrUri(), help="Where the shards are; remembered for the next time.")
@click.option("--force", is_flag=True, help="Make them although they are not behind.")
@click.option("--dry-run", is_flag=True, help="Only say what would be made, why, and what it would cost.")
@click.option("--module", help="The module with the graph. [default: that of the project here, or the package's own]")
def run_command(
    select: str | None,
    shards: str | None,
    source: str | None,
    force: bool,
    dry_run: bool,
    module: str | None,
    as_json: bool,
) -> None:
    """Make what is behind of the asset graph: all of it, some stages, some shards.

    It does what the UI does, in this process, and the UI shows the runs. Shards are looked up at the source first. A
    run that is interrupted is canceled; what was made stays, and the next run goes on.
    """
    from rich.console import Console

    from factory_lib.orchestration.code_location import load_definitions
    from factory_lib.orchestration.home import factory_instance

    definitions = load_definitions(module)
    console = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
    with factory_instance() as instance:
        asked = _WantedRun.of(instance, definitions, select, shards, source, force)
        changes = asked.state.changes
        if changes.new and (advice := grouping_advice(changes.listing.shards)):
            say(advice)
        costs = asked.costs(instance, definitions)
        if dry_run:
            print_json({"source": _changes(asked.state), "plan": costs}) if as_json else _print_plan(asked, costs)
            return
        if not as_json:
            _say_head(asked, costs)
        outcome = asked.run(instance, definitions, None if as_json else console)
    if as_json:
        print_json(_result(outcome, costs))
    _finish(asked, outcome, quiet=as_json)


class _WantedRun:
    """What was asked for, looked up in the graph and at the source."""

    def __init__(
        self,
        state: GraphState,
        stages: list[str] | None,
        shards: list[str] | None,
        source: ShardSource | None,
        force: bool,
    ) -> None:
        self.state, self.stages, self.shards, self.source, self.force = state, stages, shards, source, force

    @staticmethod
    def of(
        instance: DagsterInstance,
        definitions: Definitions,
        select: str | None,
        shards: str | None,
        uri: str | None,
        force: bool,
    ) -> _WantedRun:
        from factory_lib.orchestration.runs.running import state_of
        from factory_lib.orchestration.runs.selecting import select_shards, select_stages
        from factory_lib.orchestration.source.shards import ShardSource
        from factory_lib.settings import settings

        found = settings()
        mapping = found.mapping if uri == found.source else {}
        source = ShardSource.mapped(uri, found.tars_per_shard, mapping) if uri else None
        stages = select_stages(definitions.resolve_asset_graph(), select) if select else None
        state = state_of(instance, definitions, source)
        known = list(dict.fromkeys(name for names in state.partitions.values() for name in names))
        return _WantedRun(state, stages, select_shards(known, shards) if shards else None, source, force)

    @property
    def keys(self) -> list[AssetKey] | None:
        """The stages, as Dagster names them; None for all."""
        from dagster import AssetKey

        return None if self.stages is None else [AssetKey.from_user_string(name) for name in self.stages]

    def costs(self, instance: DagsterInstance, definitions: Definitions) -> list[StageCost]:
        """What it would cost."""
        from factory_lib.orchestration.runs.cost import estimated

        graph = definitions.resolve_asset_graph()
        return estimated(
            instance,
            graph,
            self.state.behind,
            self.state.partitions,
            chosen=self.keys,
            shards=self.shards,
            force=self.force,
        )

    def run(self, instance: DagsterInstance, definitions: Definitions, console: Console | None) -> GraphOutcome:
        """Do it, followed where there is a console."""
        from factory_lib.commands.graph_progress import followed
        from factory_lib.orchestration.runs.running import run_graph
        from factory_lib.settings import remember_source

        if self.source is not None:
            remember_source(self.source.uri)
        with followed(console) if console is not None else nullcontext() as telling:
            return run_graph(
                instance,
                definitions,
                source=self.source,
                stages=self.stages,
                shards=self.shards,
                force=self.force,
                telling=telling,
            )


def _changes(state: GraphState) -> dict[str, Any]:
    counts = {name: len(getattr(state.changes, name)) for name in ("new", "changed", "vanished", "removed")}
    listing = state.changes.listing
    several = {"by_source": state.changes.counts, "away": dict(listing.away)}
    return {**counts, **several} if len(listing.prefixes) > 1 else counts


def _print_plan(asked: _WantedRun, costs: Sequence[StageCost]) -> None:
    from factory_lib.commands.output import console

    _say_head(asked, ())
    if not costs:
        say(_nothing(asked))
        return
    headings = ("stage", "why", "shards", "samples", "values", "time")
    console().print(table(headings, [_row(one) for one in costs], numbers=headings[2:]))
    say(_total(costs))


def _row(one: StageCost) -> tuple[str, ...]:
    time = "not known" if one.seconds is None else seconds(one.seconds)
    return one.stage, one.reason, number(one.partitions), number(one.samples), number(one.values), time


def _say_head(asked: _WantedRun, costs: Sequence[StageCost]) -> None:
    if asked.state.changes or asked.state.changes.listing.away:
        say(f"At the source: {asked.state.changes}.")
    for one in costs:
        shards = "" if one.partitions is None else f" for {one.partitions:,} shards"
        values = f", up to {one.values:,} values" if one.values else ""
        time = f", about {seconds(one.seconds)}" if one.seconds is not None else ""
        say(f"  {one.stage}: {one.reason}{shards}{values}{time}")
    if costs:
        say(_total(costs))


def _total(costs: Sequence[StageCost]) -> str:
    from factory_lib.orchestration.runs.cost import FOLLOWS

    sure = [one.seconds for one in costs if one.reason != FOLLOWS and one.seconds is not None]
    more = [one.seconds for one in costs if one.reason == FOLLOWS and one.seconds is not None]
    unknown = len({one.stage for one in costs if one.seconds is None})
    parts = [f"About {seconds(sum(sure))} by what the last runs took"] if sure else []
    parts += [f"up to {seconds(sum(more))} more for what follows"] if more else []
    parts += [f"{unknown} stages never ran: what they take is not known"] if unknown else []
    return "; ".join(parts) + "."


def _nothing(asked: _WantedRun) -> str:
    if asked.stages is None and asked.shards is None:
        return "Nothing is behind."
    return "Nothing is behind of what was asked for. --force makes it again."


def _result(outcome: GraphOutcome, costs: Sequence[StageCost]) -> dict[str, Any]:
    behind = [
        {
            "stage": b.asset.to_user_string(),
            "reason": b.reason,
            "partitions": [p for p in b.partitions if p is not None],
        }
        for b in outcome.behind
    ]
    return {"runs": outcome.runs, "errors": outcome.errors, "behind": behind, "plan": costs}


def _finish(asked: _WantedRun, outcome: GraphOutcome, *, quiet: bool) -> None:
    """Say what came of it.

    Raises:
        CommandFailed: something failed, or could not be made.
    """
    if problems := [*outcome.errors, *outcome.stopped]:
        lines = "\n".join(f"  {line}" for line in problems[:_NAMED])
        failed = f"{len(outcome.errors)} of {len(outcome.runs)} runs failed:" if outcome.errors else "Stopped:"
        raise CommandFailed(f"{failed}\n{lines}")
    left = [one for one in outcome.behind if asked.shards is None or set(asked.shards) & set(map(str, one.partitions))]
    if left and not outcome.runs:
        first = left[0].asset.to_user_string()
        raise CommandFailed(
            f"{first} is behind, but what it is made of was never made.",
            f"factory run --select '+{first}' makes it, too.",
        )
    if quiet:
        return
    if not outcome.runs:
        say(_nothing(asked))
        return
    made: dict[str, int] = {}
    for run in outcome.runs:
        for stage, n in run.made.items():
            made[stage] = made.get(stage, 0) + n
    took = sum(run.seconds for run in outcome.runs)
    for stage, n in made.items():
        click.echo(f"{stage}" + (f": {n:,} shards" if n > 1 else ""))
    say(f"{len(outcome.runs)} runs, {seconds(took)}.")
