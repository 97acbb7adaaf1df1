"""`factory demo`: the whole graph on rendered images, or on the user's own shards."""

from __future__ import annotations

import click


@click.command("demo")
@click.option("--source", metavar="URI", help="Run on these shards: a folder, or a URI such as s3://bucket/shards.")
def demo_command(source: str | None) -> None:
    """Materialize the whole asset graph and show what became of the samples.

    Without --source, images are rendered and captioned: some are broken, too small, unsafe, mismatched or duplicates of
    others, and the report says how many of these each filter found.
    """
    from rich.console import Console

    from factory_lib.demo.run import demonstrate

    console = Console(highlight=False)
    demonstrate(source, console if console.is_terminal else Console(highlight=False, width=140))
