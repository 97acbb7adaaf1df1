"""Scratch tables: there for as long as a block of code needs them; those of a killed process are swept."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Mapping

from factory_lib.names import STAGE_PREFIX, STAGING
from factory_lib.owners import owner
from factory_lib.plan.sqltext import literal, quote
from factory_lib.warehouse.client import Warehouse


@contextlib.contextmanager
def scratch_table(
    warehouse: Warehouse,
    kind: str,
    columns: str = "",
    *,
    engine: str = "Memory",
    select: str = "",
    settings: Mapping[str, object] | None = None,
) -> Iterator[str]:
    """A table for the length of a block.

    Args:
        kind: what it holds, in a word that is part of its name.
        columns: their declarations (SQL text); empty for those of the rows.
        select: SQL text of the rows that it is made of; empty for none.
        settings: ClickHouse settings for making it.

    Yields:
        Its name in SQL, `database.table`.
    """
    name = f"{STAGING}.{quote(f'{STAGE_PREFIX}{kind}_{uuid.uuid4().hex[:16]}')}"
    declared, rows = f"({columns})" if columns else "", f"EMPTY AS {select}" if select else ""
    definition = warehouse.deployment.definition(f"ENGINE = {engine}")
    try:
        warehouse.execute(
            f"CREATE TABLE {name} {declared} {definition} COMMENT {literal(owner())} {rows}", settings=settings
        )
        if select:
            warehouse.execute(f"INSERT INTO {name} {select}", settings=settings)
        yield name
    finally:
        warehouse.drop(name)
