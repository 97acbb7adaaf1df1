"""`factory sql`: SQL on the warehouse, reading only."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from factory_lib.commands.failing import instead_of
from factory_lib.commands.formats import write
from factory_lib.commands.options import OneOf, command
from factory_lib.commands.output import console, say, table
from factory_lib.owners import replacing
from factory_lib.tables import cell
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.user_sql import read

if TYPE_CHECKING:
    import pyarrow as pa

_SHOWN = 100
"""Rows of a table unless told otherwise."""

_BINARY = ("arrow", "parquet")


@command(
    """
    factory sql "SELECT shard, count() FROM laion.v3 GROUP BY shard"
    factory sql "SELECT key, caption FROM laion.v3" --format parquet -o captions.parquet
    factory sql "SHOW TABLES FROM laion"
    """
)
@click.argument("query")
@click.option("--limit", type=click.IntRange(1), help=f"Rows at most. [default: {_SHOWN} in a table, else all]")
@click.option(
    "--format",
    "form",
    type=OneOf(["table", "json", "jsonl", "csv", "arrow", "parquet"]),
    help="What to print. [default: table; with -o what its name ends in]",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write to this file.")
@click.option("--setting", multiple=True, metavar="NAME=VALUE", help="A ClickHouse setting for this query.")
def sql_command(
    query: str, limit: int | None, form: str | None, output: Path | None, setting: tuple[str, ...], as_json: bool
) -> None:
    """Run SQL that reads.

    QUERY is one statement, or "-" for standard input. Every version is a table: laion.v3. Nothing can be changed: the
    engine itself refuses to. Nothing is read but the warehouse: no files, addresses, dictionaries or other programs.
    """
    form = _form(form, output, as_json)
    if output is None and form in _BINARY and sys.stdout.isatty():
        raise click.UsageError(f"{form} is not for terminals: write it to a file with -o.")
    text = sys.stdin.read() if query == "-" else query
    rows = read(warehouse(), text, dict(_setting(one) for one in setting))
    if form == "table":
        _print_table(rows.schema, _first(rows, limit or _SHOWN + 1), None if limit else _SHOWN)
        return
    with _target(output) as target:
        write(form, rows.schema, _first(rows, limit), target)


def _form(form: str | None, output: Path | None, as_json: bool) -> str:
    if as_json and form not in (None, "json"):
        raise click.UsageError(f"--json and --format {form} exclude each other.")
    endings = {".json": "json", ".jsonl": "jsonl", ".csv": "csv", ".arrow": "arrow", ".parquet": "parquet"}
    if form is None and output is not None and not as_json:
        form = endings.get(output.suffix)
        if form is None:
            raise click.UsageError(f"{output.name!r} does not say what to write: give --format.")
    form = form or ("json" if as_json else "table")
    if form == "table" and output is not None:
        raise click.UsageError("A table is for reading: give --format csv, json, jsonl, arrow or parquet with -o.")
    return form


def _setting(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found or not name:
        raise click.UsageError(f"--setting {text!r}: write NAME=VALUE.")
    return name, value


@contextlib.contextmanager
def _target(output: Path | None) -> Iterator[BinaryIO]:
    """Where to write: a file that appears under its name when it is whole, or standard output."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if not output.parent.is_dir():
        raise click.UsageError(f"There is no folder {output.parent}. {instead_of(output.parent)}".strip())
    try:
        with replacing(output) as beside, open(beside, "wb") as file:
            yield file
    except OSError as error:  # also that of a disk that ran full, which names no file
        raise OSError(error.errno, error.strerror, str(output)) from None


def _first(rows: pa.RecordBatchReader, limit: int | None) -> Iterator[pa.RecordBatch]:
    """The batches up to a number of rows; what comes after them is not read."""
    left = limit
    for batch in rows:
        yield batch if left is None else batch.slice(0, left)
        if left is not None and (left := left - batch.num_rows) <= 0:
            return


def _print_table(schema: pa.Schema, batches: Iterator[pa.RecordBatch], shown: int | None) -> None:
    """Print rows; of more than `shown` only so many, and a word that there are more."""
    import pyarrow as pa

    found = pa.Table.from_batches(batches, schema)
    rows = found if shown is None else found.slice(0, shown)
    numbers = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    values = zip(*(column.to_pylist() for column in rows.columns), strict=True)
    cells = ([v if isinstance(v, str) else cell(v) for v in row] for row in values)
    console().print(table(schema.names, cells, numbers=numbers))
    if rows.num_rows < found.num_rows:
        say(f"These are the first {shown} rows. More: --limit N; all: --format csv, json, jsonl, arrow or parquet.")
