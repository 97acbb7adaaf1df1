"""`factory lineage`: where a version comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from factory_lib.catalog import descent, lineage
from factory_lib.commands.naming import VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import console, print_json
from factory_lib.commands.unsynced import stage_names
from factory_lib.errors import DatasetNotFound, FactoryError, NotFound
from factory_lib.history.drawing import Box, boxes, label, mermaid
from factory_lib.history.lineage import Lineage, put_together

if TYPE_CHECKING:
    from rich.tree import Tree


@command(
    """
    factory lineage laion.v3
    factory lineage laion.v3 --down
    factory lineage training_set --mermaid > lineage.mmd
    """
)
@click.argument("version", type=VersionName())
@click.option("--down", is_flag=True, help="Show what was made of it instead.")
@click.option("--mermaid", "as_mermaid", is_flag=True, help="Print a Mermaid flowchart.")
def lineage_command(version: str, down: bool, as_mermaid: bool, as_json: bool) -> None:
    """Show what a version was made of, up to the sources.

    Many versions of one dataset are shown as one line; --json has them all. Of an asset of the graph that is no
    dataset, such as a model, it is what its last run read.
    """
    if as_mermaid and as_json:
        raise click.UsageError("--mermaid and --json exclude each other.")
    try:
        found = descent(version) if down else lineage(version)
    except DatasetNotFound as error:
        found = _of_asset(version, down, error)
    if as_json:
        print_json({**vars(found), "versions": list(found.versions.values())})
    elif as_mermaid:
        click.echo(mermaid(found))
    else:
        console().print(_tree(found, boxes(found)))


def _of_asset(name: str, down: bool, otherwise: DatasetNotFound) -> Lineage:
    """The lineage of what Dagster made and is no dataset.

    Raises:
        DatasetNotFound: Dagster made no such thing, either.
        NotFound: it made it of no version, or is asked what was made of it.
    """
    from factory_lib.orchestration.behind.made_of import versions_read
    from factory_lib.orchestration.home import factory_instance

    with factory_instance() as instance:
        read = versions_read(instance, name)
    if read is None:
        raise _never_made(name) or otherwise
    if down or not read:
        what = "what was made of it is not recorded" if down else "its last run read no version of a dataset"
        raise NotFound(f"{name!r} is an asset, and no dataset: {what}.", f"factory up shows {name} and its runs.")
    return put_together(name, [lineage(one) for one in read])


def _never_made(name: str) -> NotFound | None:
    """The error of a name that is a stage of the graph that comes with the package, of which nothing was made yet."""
    try:
        stages = stage_names(None)
    except FactoryError:  # a graph that cannot be loaded says nothing of a name
        return None
    if name not in stages:
        return None
    hint = f"Make it: factory run --select +{name}, or in the UI: factory up."
    return NotFound(f"{name!r} is a stage of the graph, and was never made.", hint)


def _tree(found: Lineage, box: Box) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    tree = Tree(Text(_line(found, box)))
    for parent in box.parents:
        tree.add(_tree(found, parent))
    return tree


def _line(found: Lineage, box: Box) -> str:
    name = box.names[0]
    if name in found.sources:
        return f"source {name} ({found.sources[name]})"
    text = label(box.names)
    ancestor = found.versions.get(name)
    facts = []
    if box.kind == "carried over":
        facts.append(f"{box.shards:,} {'shard' if box.shards == 1 else 'shards'} carried over")
    if len(box.names) == 1 and ancestor is not None:
        facts += [f"{ancestor.rows:,} rows"] if ancestor.rows is not None else []
        facts += [ancestor.storage] if ancestor.storage else []
        facts += [f"signals {', '.join(ancestor.signals)}"] if ancestor.signals else []
        facts += [] if ancestor.is_there else ["dropped"]
    if box.is_repeated:
        facts.append("as above")
    if box.is_cut:
        facts.append("made of more: --json has it all")
    return f"{text}  ({'; '.join(facts)})" if facts else text
