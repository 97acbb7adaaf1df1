"""The inputs of all rows that signals are to be computed of, as a table of hashes beside the rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from factory_lib.build.reuse.identity import HASH, HashedRows, Reads
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.scratch import scratch_table
from factory_lib.warehouse.staging import StagingTable


@dataclass(frozen=True)
class Inputs:
    """A table `shard, position, identity_0 …`: what each row of a staging table gives each signal to read.

    Attributes:
        name: the table, quoted.
        rows: the rows themselves.
        reads: the different sets of what is read, one for each `identity_N`.
        shards: the shards that the rows are in.
        total: number of rows.
    """

    warehouse: Warehouse
    name: str
    rows: HashedRows
    reads: tuple[Reads, ...]
    shards: tuple[str, ...]
    total: int

    def column(self, reads: Reads) -> str:
        """The column that holds the hash of what is read."""
        return f"identity_{self.reads.index(reads)}"


@contextlib.contextmanager
def inputs_of(stage: StagingTable, files: str, all_reads: Sequence[Reads]) -> Iterator[Inputs]:
    """The inputs of all rows of a staging table, for as long as they are needed.

    Args:
        files: a table `shard, uri, etag` of all files that the rows point into.
        all_reads: what the signals read, one for each.
    """
    wh = stage.warehouse
    reads = tuple(dict.fromkeys(all_reads))
    hashes = ", ".join(f"identity_{i} {HASH}" for i in range(len(reads)))
    columns = f"shard String, position UInt32, {hashes}"
    rows = HashedRows(stage.name, files, {})
    with scratch_table(wh, "inputs", columns, engine="MergeTree ORDER BY (shard, position)") as name:
        wh.execute(f"INSERT INTO {name} {rows.by_place(reads)}")
        sizes = stage.shard_rows()
        yield Inputs(wh, name, rows, reads, tuple(sizes), sum(sizes.values()))
