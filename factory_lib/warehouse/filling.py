"""Values computed outside the engine become a column, without a join and without touching the other columns.

Positions in a shard are dense, so an array of the shard's values, indexed by position, is the lookup. All shards are
updated by one statement: the engine runs it on all partitions at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from factory_lib.plan.sqltext import literal, quote
from factory_lib.warehouse.staging import StagingTable

_WAVE_BYTES = 1 << 30
# The parser bounds the size of a statement.
_WAVE_SHARDS = 100
# Two values for one position would shift all that follow.
_TWICE = "a row has more than one value"


@dataclass(frozen=True)
class ShardValues:
    """What is known of the values of one shard.

    Attributes:
        bytes: their size, which bounds how many shards are held in memory at once.
        packed: SELECT (SQL text) of one row, which has for each column of values an array with a value for every
            position, none of them NULL: the cheapest case. Empty where that is not so.
    """

    bytes: int
    packed: str = ""


def fill_columns(
    stage: StagingTable, rows: Callable[[str], str], names: Mapping[str, str], shards: Mapping[str, ShardValues]
) -> None:
    """Set columns of a staging table from rows found by position.

    Args:
        rows: SELECT (SQL text) that gives, for a shard, `position` and the values; at most one row a position.
        names: column of the stage -> column of those rows. Positions without a row get NULL (arrays: empty).
        shards: shards to fill.

    Raises:
        EngineError: a position has more than one value, or the engine failed.
    """
    for wave in waves({shard: values.bytes for shard, values in shards.items()}, _WAVE_BYTES, _WAVE_SHARDS):
        # One statement, not one a shard: each costs a round trip, and of several that come at once the engine can lose
        # one without an error (it gives a mutation its number before it lists it).
        commands = []
        for shard in wave:
            packed = shards[shard].packed
            lookups = _packed(packed, names) if packed else _with_gaps(rows(shard), names)
            assignments = ", ".join(f"{quote(name)} = {lookup}" for name, lookup in lookups.items())
            commands.append(f"UPDATE {assignments} IN PARTITION {literal(shard)} WHERE 1")
        # Validation would evaluate the lookups once more.
        stage.mutate(", ".join(commands), {"validate_mutation_query": 0})


def _packed(packed: str, names: Mapping[str, str]) -> dict[str, str]:
    """For each column, SQL of its value at `position`, out of an array of plain values."""
    return {name: f"(SELECT {quote(value)} FROM ({packed}))[position + 1]" for name, value in names.items()}


def _with_gaps(rows: str, names: Mapping[str, str]) -> dict[str, str]:
    """For each column, SQL of its value at `position`, where values may be NULL or missing."""
    picked = ", ".join(quote(n) for n in names.values())
    # groupArray skips NULLs, but not tuples with a NULL inside: the array keeps one element a position.
    filled = f"SELECT position, tuple({picked}) AS v FROM ({rows}) ORDER BY position WITH FILL FROM 0"
    # Of a shard that no value is for there is no row at all.
    check = f"HAVING throwIf(count() > 0 AND count() != max(position) + 1, '{_TWICE}') = 0"
    lookup = f"(SELECT groupArray(v) FROM ({filled}) {check})[position + 1]"
    return {name: f"{lookup}.{i}" for i, name in enumerate(names, start=1)}


def waves(sizes: Mapping[str, int], most: int, at_once: int) -> Iterator[list[str]]:
    """Shards in groups, in their order, so that none is larger than `most` (unless one shard is) or than `at_once`.

    `{"a": 5, "b": 4, "c": 9}` with `most=10` -> `["a", "b"]`, `["c"]`.

    Args:
        sizes: shard -> rows, bytes, whatever `most` bounds the sum of.
    """
    wave: list[str] = []
    total = 0
    for shard, size in sizes.items():
        if wave and (total + size > most or len(wave) == at_once):
            yield wave
            wave, total = [], 0
        wave.append(shard)
        total += size
    if wave:
        yield wave
