"""Tables of staged values: whose they are, and how parts pass from one to the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from factory_lib.errors import EngineError
from factory_lib.names import STAGING, VALUES_PREFIX
from factory_lib.owners import Owner
from factory_lib.plan.sqltext import literal, quote
from factory_lib.warehouse.client import Warehouse

UNKNOWN_TABLE = 60
_AT_ONCE = 500


@dataclass(frozen=True)
class StagedTable:
    """A table of values that some run staged.

    Attributes:
        table: its name, without the database.
        run: the run that made it; empty where runs shared a table.
        owner: the process that made it; None where none is named.
    """

    warehouse: Warehouse
    table: str
    run: str
    owner: Owner | None

    @property
    def name(self) -> str:
        """`database.table`, quoted."""
        return f"{STAGING}.{quote(self.table)}"

    @property
    def is_dead(self) -> bool:
        """Whether its process is gone."""
        return self.owner is None or not self.owner.is_alive

    def drop(self, shards: Sequence[str]) -> None:
        """Remove shards, and the table with the last of them; what is gone already is no error."""
        try:
            _alter(self.warehouse, self.name, [f"DROP PARTITION {literal(shard)}" for shard in shards])
            if not self.warehouse.scalar(f"SELECT count() FROM {self.name}"):
                self.warehouse.drop(self.name)
        except EngineError as error:
            if error.code != UNKNOWN_TABLE:
                raise


def staged_tables(warehouse: Warehouse, fingerprint: str, signal: str) -> list[StagedTable]:
    """Tables of values of a signal, of whatever run."""
    prefix = f"{VALUES_PREFIX}{fingerprint[:16]}_"
    rows = warehouse.rows(
        "SELECT name, comment FROM system.tables WHERE database = {d:String} AND startsWith(name, {p:String})",
        {"d": STAGING, "p": prefix},
    )
    # Without a run: as they were named when runs shared a table.
    ours = re.compile(rf"{re.escape(prefix)}(?:([0-9a-f]{{16}})_)?{re.escape(signal)}")
    return [
        StagedTable(warehouse, row["name"], found[1] or "", Owner.of(row["comment"]))
        for row in rows
        if (found := ours.fullmatch(row["name"]))
    ]


def attach(warehouse: Warehouse, into: str, table: str, shards: Sequence[str]) -> None:
    """Have the parts of some shards of another table, by hard link."""
    _alter(warehouse, into, [f"ATTACH PARTITION {literal(shard)} FROM {table}" for shard in shards])


def _alter(warehouse: Warehouse, table: str, commands: Sequence[str]) -> None:
    # The parser bounds the size of a statement.
    for i in range(0, len(commands), _AT_ONCE):
        warehouse.execute(f"ALTER TABLE {table} {', '.join(commands[i : i + _AT_ONCE])}")
