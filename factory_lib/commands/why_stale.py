"""`factory why-stale`: what changed since a stage was made last."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from factory_lib.commands.naming import StageName
from factory_lib.commands.options import command
from factory_lib.commands.output import print_json, say
from factory_lib.commands.unsynced import load_graph, named_stages

if TYPE_CHECKING:
    from factory_lib.orchestration.behind.staleness import Staleness

_NAMED = 5


@command(
    """
    factory why-stale clip_embeddings
    factory why-stale training_set --json
    """
)
@click.argument("stage", type=StageName())
@click.option("--module", help="The module with the graph. [default: that of the project here, or the package's own]")
def why_stale_command(stage: str, module: str | None, as_json: bool) -> None:
    """Show what changed since a stage was made last: components of its code, and inputs.

    Components are functions, globals, values of closures, packages, weights of models, declared versions: whatever the
    stage's code reaches, in whatever module.
    """
    from factory_lib.orchestration.behind.staleness import why_stale
    from factory_lib.orchestration.home import factory_instance

    graph = load_graph(module)
    key = named_stages(graph, [stage])[0]
    with factory_instance() as instance:
        found = why_stale(instance, graph, key)
    if as_json:
        print_json({**vars(found), "is_stale": found.is_stale})
    elif not found.is_stale:
        say(f"Nothing changed: {stage} is up to date.")
    else:
        _print(found)


def _print(found: Staleness) -> None:
    if found.is_missing:
        click.echo(f"{found.stage} was never made.")
    if found.never_made:
        click.echo(f"never made{_partitions(found.never_made)}")
    for code in found.code:
        click.echo(f"code changed{_partitions(code.partitions)}")
        if code.components is None:
            was = f"made by code version {code.before[:16]}" if code.before else "made by code that is not recorded"
            click.echo(f"  {was}; what that was made of is not known")
        for one in code.components or ():
            click.echo(f"  {one.kind:<16} {one.name}: {one.change}")
    for given in found.inputs:
        click.echo(f"input {given.parent} changed{_partitions(given.partitions)}")
        click.echo(f"  {given.change}")


def _partitions(partitions: Sequence[str]) -> str:
    """For which partitions, the first of them by name."""
    if not partitions:
        return ""
    more = ", …" if len(partitions) > _NAMED else ""
    return f" for {len(partitions):,} partitions: {', '.join(partitions[:_NAMED])}{more}"
