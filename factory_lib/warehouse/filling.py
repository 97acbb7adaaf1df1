"""Values computed outside the engine become a column, without a join and without touching the other columns.

Positions in a shard are dense, so an array of the shard's values, indexed by position, is the lookup: one update a
partition, all partitions at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from factory_lib.errors import EngineError
from factory_lib.sqltext import literal, quote
from factory_lib.warehouse.stage import Stage

_WAVE_BYTES = 1 << 30


def fill_columns(stage: Stage, rows: Callable[[str], str], names: Mapping[str, str], sizes: Mapping[str, int]) -> None:
    """Set columns of a staging table from rows found by position.

    Args:
        rows: SELECT (SQL text) that gives, for a shard, `position` and the values; at most one row a position.
        names: column of the stage -> column of those rows. Positions without a row get NULL (arrays: empty).
        sizes: shards to fill -> bytes of their values, which bound how many are held in memory at once.
    """
    for wave in _waves(sizes):
        for shard in wave:
            _update_shard(stage, shard, rows(shard), names)
        wait_for_mutations(stage)


def wait_for_mutations(stage: Stage) -> None:
    """Wait until all mutations of a staging table are done.

    Raises:
        EngineError: one of them failed; it is killed.
    """
    pause = 0.002
    while True:
        rows = stage.warehouse.rows(
            "SELECT latest_fail_reason AS reason FROM system.mutations"
            " WHERE database = {d:String} AND table = {t:String} AND NOT is_done",
            {"d": stage.database, "t": stage.table},
        )
        if not rows:
            return
        if failed := next((r["reason"] for r in rows if r["reason"]), None):
            where = f"database = {literal(stage.database)} AND table = {literal(stage.table)}"
            stage.warehouse.execute(f"KILL MUTATION WHERE {where} SYNC")
            raise EngineError(f"Values could not be written into {stage.database}: {failed}")
        time.sleep(pause)
        pause = min(2 * pause, 0.1)


def _update_shard(stage: Stage, shard: str, rows: str, names: Mapping[str, str]) -> None:
    picked = ", ".join(quote(n) for n in names.values())
    # groupArray skips NULLs, but not tuples with a NULL inside: the array keeps one element a position.
    filled = f"SELECT tuple({picked}) AS v FROM ({rows}) ORDER BY position WITH FILL FROM 0"
    lookup = f"(SELECT groupArray(v) FROM ({filled}))[position + 1]"
    assignments = ", ".join(f"{quote(name)} = {lookup}.{i}" for i, name in enumerate(names, start=1))
    stage.warehouse.execute(
        f"ALTER TABLE {stage.name} UPDATE {assignments} IN PARTITION {literal(shard)} WHERE 1",
        settings={"allow_nondeterministic_mutations": 1, "mutations_sync": 0},
    )


def _waves(sizes: Mapping[str, int]) -> Iterable[list[str]]:
    wave: list[str] = []
    total = 0
    for shard, size in sizes.items():
        if wave and total + size > _WAVE_BYTES:
            yield wave
            wave, total = [], 0
        wave.append(shard)
        total += size
    if wave:
        yield wave
