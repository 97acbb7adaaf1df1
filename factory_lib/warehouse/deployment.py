"""What differs between ClickHouses: the embedded engine, one server, a cluster of replicas, ClickHouse Cloud.

Everything else sends the same statements to all of them. Which one it is, the server says (`asked`); how they differ:

* **A cluster** has databases of the engine Replicated: Keeper puts their statements into one order, so that of two
  renames to the same name one fails on every replica. `ON CLUSTER` alone runs a statement host by host, and of two
  writers each could win on some of them: it only makes the databases. Tables there are ReplicatedMergeTree, and take
  neither an UUID of the client's (unless a setting allows it), nor `CREATE … AS SELECT`, nor several renames at once.
* A table in memory is every replica's own: what a later statement reads is on the medium of all of them.
* ReplicatedMergeTree refuses `table_readonly` (NOT_IMPLEMENTED): a version is kept by grants there, and by its seal,
  which shows what somebody changed all the same.
* **Cloud** makes replicated tables of MergeTree by itself (SharedMergeTree, in a database Shared), and spreads requests
  over replicas: reads wait for what was written before (`select_sequential_consistency`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory_lib.errors import EngineError
from factory_lib.names import CATALOG
from factory_lib.plan.sqltext import literal, quote

OWN_DATABASES = frozenset(["Atomic", "Ordinary", "Replicated", "Shared"])
"""Engines of databases that hold their tables themselves."""

OWN_TABLES = ("MergeTree", "Memory", "Log")
"""What the engines of tables that hold their rows themselves end in."""

ACCESS_DENIED = 497
_READONLY = "table_readonly"
_KIND = (
    "SELECT (SELECT value FROM system.settings WHERE name = 'cloud_mode') AS cloud,"
    f" (SELECT engine FROM system.databases WHERE name = '{CATALOG}') AS catalog"
)
_CLUSTERS = (
    "SELECT cluster FROM system.clusters"
    " WHERE (SELECT count() FROM system.macros WHERE macro IN ('shard', 'replica')) = 2"
    # Each Replicated database is listed as a cluster, too.
    " AND cluster NOT IN (SELECT name FROM system.databases WHERE engine = 'Replicated')"
    " GROUP BY cluster HAVING uniqExact(shard_num) = 1 AND count() > 1 AND max(is_local) ORDER BY count() DESC, cluster"
)


@dataclass(frozen=True)
class Deployment:
    """A kind of ClickHouse, as far as statements differ.

    Attributes:
        kind: its name.
        replicated: whether each replica runs what the others do, told by Keeper: see `cluster`.
        cluster: the cluster of its replicas; empty where there is none, or where the user may not see it.
        readonly_tables: whether the engine itself can refuse changes to a table.
        one_memory: whether a table in memory is there for every statement.
        reading: settings of what reads.
        writing: settings of what writes.
    """

    kind: str
    replicated: bool = False
    cluster: str = ""
    readonly_tables: bool = True
    one_memory: bool = True
    reading: Mapping[str, object] = field(default_factory=dict)
    writing: Mapping[str, object] = field(default_factory=dict)

    def create_database(self, name: str) -> str:
        """The statement that makes a database where there is none.

        Raises:
            EngineError: it has to be made on all replicas, and the user may not see which these are.
        """
        if not self.replicated:
            return f"CREATE DATABASE IF NOT EXISTS {quote(name)}"
        if not self.cluster:
            raise EngineError(
                f"The database {name!r} has to be made on all replicas, and the cluster is not to be seen.",
                "Have it granted: GRANT SELECT ON system.clusters TO …; GRANT SELECT ON system.macros TO …",
            )
        # Quotes inside of a literal: the path may hold whatever a dataset is called.
        path = literal(f"/clickhouse/databases/{name}")
        return (
            f"CREATE DATABASE IF NOT EXISTS {quote(name)} ON CLUSTER {quote(self.cluster)}"
            f" ENGINE = Replicated({path}, '{{shard}}', '{{replica}}')"
        )

    def definition(self, text: str) -> str:
        """The end of a CREATE TABLE, from `ENGINE = …` on, so that all statements find the rows, whoever runs them."""
        if not self.one_memory:
            text = re.sub(r"\bENGINE = Memory\b", "ENGINE = MergeTree ORDER BY tuple()", text)
        return re.sub(r"\bENGINE = (?=\w*MergeTree\b)", "ENGINE = Replicated", text) if self.replicated else text

    @property
    def writable(self) -> str:
        """The setting that a table is made with so that it can be changed until it is sealed; begins with a comma."""
        return f", {_READONLY} = 0" if self.readonly_tables else ""

    @property
    def unmerged(self) -> str:
        """Settings of a table whose parts come from another one, merged already; begins with a comma.

        A server by itself looks through all parts of a table for something to merge before each part that it changes: a
        mask over all shards would cost the square of their number. Replicas look apart from that.
        """
        most = ("max_bytes_to_merge_at_max_space_in_pool", "max_bytes_to_merge_at_min_space_in_pool")
        return "".join(f", {name} = 0" for name in most) if self.kind in ("embedded", "server") else ""

    def sealing(self, comment: str) -> Sequence[str]:
        """Commands of the ALTER that makes a table a version: a comment, and no change after it."""
        commands = [f"MODIFY COMMENT {literal(comment)}"]
        return [*commands, f"MODIFY SETTING {_READONLY} = 1"] if self.readonly_tables else commands

    @property
    def unsealing(self) -> Sequence[str]:
        """Commands of the ALTER that lets a sealed table be changed."""
        return [f"MODIFY SETTING {_READONLY} = 0"] if self.readonly_tables else []

    def before_publishing(self, table: str) -> Sequence[str]:
        """Statements after which a sealed table is whole wherever it can be read, before it gets its name."""
        return [f"SYSTEM SYNC REPLICA ON CLUSTER {quote(self.cluster)} {table}"] if self.cluster else []

    def after_publishing(self, table: str) -> Sequence[str]:
        """Statements after which a version survives a power cut under its name."""
        # Sealed once more: a server syncs no rename, but the table's definition, which it writes anew here, and with it
        # what the file system was told before.
        return [f"ALTER TABLE {table} MODIFY SETTING {_READONLY} = 1"] if self.kind == "server" else []

    def is_protected(self, engine: str) -> bool:
        """Whether a version is as well protected as it can be.

        Args:
            engine: `engine_full` of its table.
        """
        return not self.readonly_tables or f"{_READONLY} = 1" in engine


_WRITING = {
    # A version has as many partitions as shards, and an insert may bring rows of all of them.
    "max_partitions_per_insert_block": 0,
    # An insert has happened when it returns.
    "async_insert": 0,
    # Versions are dropped by retention, whatever their size: parts that others share stay.
    "max_table_size_to_drop": 0,
    "max_partition_size_to_drop": 0,
}
_COMPRESSED = {"output_format_arrow_compression_method": "lz4_frame"}

EMBEDDED = Deployment("embedded", reading={"output_format_arrow_compression_method": "none"}, writing=_WRITING)
"""The engine of a data folder: local, so nothing is compressed on its way."""

SERVER = Deployment("server", reading=_COMPRESSED, writing=_WRITING)
"""A server by itself."""

CLOUD = Deployment(
    "cloud",
    readonly_tables=False,
    one_memory=False,
    reading={**_COMPRESSED, "select_sequential_consistency": 1},
    writing={**_WRITING, "select_sequential_consistency": 1},
)
"""ClickHouse Cloud."""


def replicas(cluster: str) -> Deployment:
    """A cluster of replicas of one shard."""
    return Deployment(
        "cluster",
        replicated=True,
        cluster=cluster,
        readonly_tables=False,
        one_memory=False,
        reading=_COMPRESSED,
        # A replica that is down is waited for by nobody; most replicas have what was written.
        writing={**_WRITING, "insert_quorum": "auto", "distributed_ddl_output_mode": "none_only_active"},
    )


def asked(rows: Callable[[str], list[dict[str, Any]]]) -> Deployment:
    """What kind of ClickHouse a server is.

    The catalog's database decides where there is one; before that, whether the server is one of the replicas of a
    cluster with one shard and knows its own names (the macros `shard` and `replica`).

    Args:
        rows: gives the rows of a SELECT.

    Raises:
        EngineError: it does not answer.
    """
    said = rows(_KIND)[0]
    if said["cloud"] == "1" or said["catalog"] == "Shared":
        return CLOUD
    if said["catalog"] not in (None, "", "Replicated"):
        return SERVER
    cluster = _cluster(rows)
    return replicas(cluster) if cluster or said["catalog"] == "Replicated" else SERVER


def _cluster(rows: Callable[[str], list[dict[str, Any]]]) -> str:
    try:
        found = rows(_CLUSTERS)
    except EngineError as error:
        if error.code != ACCESS_DENIED:
            raise
        return ""
    return str(found[0]["cluster"]) if found else ""
