"""`factory accept`: a version that looks wrong is as it should be."""

from __future__ import annotations

import click

from factory_lib.commands.naming import StageName
from factory_lib.commands.options import command
from factory_lib.commands.output import print_json
from factory_lib.commands.unsynced import load_graph, named_stages


@command(
    """
    factory accept basic_filter --because "the new shards are drawings"
    """
)
@click.argument("stage", type=StageName())
@click.option("--because", required=True, help="Why; it stands in the check, for those who read it later.")
@click.option("--module", default="factory_assets.definitions", show_default=True, help="The module with the graph.")
def accept_command(stage: str, because: str, module: str, as_json: bool) -> None:
    """Accept the newest version of a stage whose check `volume` is red.

    What comes after it runs again, and later versions are compared with this one.
    """
    from factory_lib.orchestration.checks.stage_checks import accept
    from factory_lib.orchestration.home import factory_instance

    [key] = named_stages(load_graph(module), [stage])
    with factory_instance() as instance:
        found = accept(instance, key, because)
    if as_json:
        print_json({"stage": stage, "version": found.size.version, "rows": found.size.rows, "because": because})
    else:
        click.echo(f"{found.size.version} is accepted: {found.said}")
