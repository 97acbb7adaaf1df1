"""`factory search`: the samples that are most like a text, a picture or a sample."""

from __future__ import annotations

from typing import Any

import click

from factory_lib.catalog import version
from factory_lib.commands.naming import PathOrUri, VersionName
from factory_lib.commands.options import command
from factory_lib.commands.output import print_json, print_rows
from factory_lib.query import DatasetQuery
from factory_lib.tables import cell
from factory_lib.warehouse.arrow_types import is_pointer


@command(
    """
    factory search clip_embeddings --text "a red dress"
    factory search clip_embeddings --image exemplar.jpg -k 50 --json
    factory search laion.v3 --sample 000012345 --column photo
    """
)
@click.argument("version_name", metavar="VERSION", type=VersionName())
@click.option("--text", metavar="WORDS", help="Look for what these words say.")
@click.option("--image", metavar="URI", type=PathOrUri(), help="Look for what is like this picture.")
@click.option("--sample", metavar="KEY", help="Look for what is like the sample with this key or sample_id.")
@click.option("--column", default="clip", show_default=True, help="Column of vectors that are compared.")
@click.option("-k", "--count", "k", default=10, show_default=True, type=click.IntRange(1), help="How many to show.")
@click.option(
    "--approximate", is_flag=True, help="Find most of them by the index of the version, instead of reading all."
)
def search_command(
    version_name: str,
    text: str | None,
    image: str | None,
    sample: str | None,
    column: str,
    k: int,
    approximate: bool,
    as_json: bool,
) -> None:
    """Show the samples whose vectors are nearest to that of a text, a picture or a sample.

    VERSION has a column of vectors. A text and a picture are encoded by the model that made the column. The distance is
    1 - cosine: 0 is the same, 1 has nothing in common.
    """
    query = DatasetQuery(version(version_name))
    found = query.search(column, text=text, image=image, sample=sample, k=k, approximate=approximate)
    pointers = [name for name, kind in query.columns.items() if is_pointer(kind)]
    told = [name for name in ("caption",) if name in query.columns]
    rows: list[dict[str, Any]] = (
        found.select("distance", "key", *told, "shard", "position", "sample_id", *pointers).to_arrow().to_pylist()
    )
    if as_json:
        print_json(rows)
        return
    shown = ("distance", "key", *told, "shard", *pointers)
    cells = ([f"{row['distance']:.3f}", *(cell(row[name]) for name in shown[1:])] for row in rows)
    print_rows(shown, cells, numbers=("distance",))
