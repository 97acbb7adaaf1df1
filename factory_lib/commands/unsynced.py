"""`factory unsynced`: which stages of the asset graph are behind, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from factory_lib.commands.naming import StageName
from factory_lib.commands.options import command
from factory_lib.commands.output import number, print_json, print_rows, say
from factory_lib.errors import NotFound, nearest

if TYPE_CHECKING:
    from dagster import AssetKey

    from factory_lib.orchestration.dagster_internals import AssetGraph

_NAMED = 3


@command(
    """
    factory unsynced
    factory unsynced basic_filter training_set --json
    """
)
@click.argument("stages", nargs=-1, type=StageName())
@click.option("--module", help="The module with the graph. [default: that of the project here, or the package's own]")
def unsynced_command(stages: tuple[str, ...], module: str | None, as_json: bool) -> None:
    """Show which stages of the graph are behind, and why.

    A partition is behind when it was never made, when other code made it, or when what it was made of changed.
    """
    from factory_lib.orchestration.behind.unsynced import unsynced
    from factory_lib.orchestration.home import factory_instance

    graph = load_graph(module)
    keys = named_stages(graph, stages) or None
    with factory_instance() as instance:
        found = unsynced(instance, graph, keys)
    rows = [
        {
            "stage": b.asset.to_user_string(),
            "reason": b.reason,
            "partitions": [p for p in b.partitions if p is not None],
        }
        for b in found
    ]
    if as_json:
        print_json(rows)
    elif not rows:
        say("Everything is up to date.")
    else:
        print_rows(("stage", "behind", "partitions"), [(r["stage"], r["reason"], _partitions(r)) for r in rows])


def named_stages(graph: AssetGraph, stages: Sequence[str]) -> list[AssetKey]:
    """The stages of these names.

    Raises:
        NotFound: there is no such stage; the hint names the nearest.
    """
    known = {key.to_user_string(): key for key in graph.materializable_asset_keys}
    for stage in stages:
        if stage not in known:
            raise NotFound(f"The graph has no stage {stage!r}.", nearest(stage, known))
    return [known[stage] for stage in stages]


def stage_names(module: str | None) -> list[str]:
    """The names of all stages of a module's graph.

    Raises:
        FactoryError: it cannot be loaded.
    """
    return sorted(key.to_user_string() for key in load_graph(module).materializable_asset_keys)


def load_graph(module: str | None) -> AssetGraph:
    """The asset graph of a module, or of the project in this folder.

    Raises:
        FactoryError: it cannot be loaded; the message says why.
    """
    from factory_lib.orchestration.code_location import load_definitions

    return load_definitions(module).resolve_asset_graph()


def _partitions(row: Mapping[str, object]) -> str:
    """How many partitions, and the first of them; a dash for a stage without partitions."""
    partitions = row["partitions"]
    assert isinstance(partitions, list)
    if not partitions:
        return "–"
    more = ", …" if len(partitions) > _NAMED else ""
    return f"{number(len(partitions))}: {', '.join(partitions[:_NAMED])}{more}"
