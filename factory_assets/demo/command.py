"""`factory demo`: the whole graph on rendered images, or on the user's own shards."""

from __future__ import annotations

import click

from factory_lib.commands.options import command, mapping_options


@command(
    """
    factory demo
    factory demo --source s3://bucket/shards --clip openai/clip-vit-base-patch32
    """
)
@click.option("--source", metavar="URI", help="Run on these shards: a folder, or a URI such as s3://bucket/shards.")
@click.option("--clip", metavar="CHECKPOINT", help="Judge captions by this CLIP: a folder, a hub id, or tinyclip.")
@mapping_options
def demo_command(source: str | None, clip: str | None, as_json: bool, **mapping: str | None) -> None:
    """Materialize the whole asset graph and show what became of the samples.

    Without --source, images are rendered and captioned: some are broken, too small, unsafe, mismatched or duplicates of
    others, and the report says how many of these each filter found.
    """
    import os

    from rich.console import Console

    if clip:
        from factory_lib.signals.checkpoint import resolve

        resolve(clip)  # what cannot be had is an error now, not after the ingest
        os.environ["FACTORY_CLIP"] = clip

    from factory_assets.demo.run import demonstrate

    console = Console(highlight=False, stderr=as_json)
    wide = console if console.is_terminal else Console(highlight=False, width=140, stderr=as_json)
    demonstrate(source, wide, {name: value for name, value in mapping.items() if value}, as_json=as_json)
