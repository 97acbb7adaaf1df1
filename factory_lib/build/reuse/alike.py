"""Rows of a version that may be the same samples as rows of now, though they stand in other shards or bear other names.

Bytes decide what is the same, and reading them costs. They are read where there is a reason to expect it: all members
are of the same sizes, and the key is the same (a folder or a shard was moved, copied or renamed, a sample moved), or,
where the sample of then is gone, the place in the file or the shard (keys were renamed). Where samples are gone and
only sizes are the same (keys and shards were renamed), which is often so by chance, a few of each shard are read first,
and the others where one of these was there. Where a signal reads no bytes, the key has to be the same: comparing all
texts of a dataset would cost more than computing a few.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from factory_lib.build.reuse.contents import without_value
from factory_lib.build.reuse.identity import HashedRows, Reads
from factory_lib.build.reuse.inputs import Inputs
from factory_lib.plan.sqltext import quote
from factory_lib.warehouse.computed import Held

_FEW = 8
"""Rows of a shard that are read where nothing but their sizes says that they may be those of then."""


@dataclass(frozen=True)
class Alike:
    """Which rows are looked at.

    Attributes:
        inputs: the rows of now.
        reads: what is read of them.
        held: what a version calls what is read.
        wanted: SQL condition on the inputs: rows that lack a value.
        by_size: of rows that are gone the size is enough.
    """

    inputs: Inputs
    reads: Reads
    held: Held
    wanted: str
    by_size: bool = True

    def shards(self, table: str) -> list[str]:
        """The shards of a version that hold rows like those of now."""
        rows = self.inputs.warehouse.rows(
            f"SELECT DISTINCT toString(_t.shard) AS shard FROM {table} AS _t WHERE {self.then()}"
        )
        return [row["shard"] for row in rows]

    def then(self) -> str:
        """SQL condition on the rows of a version, called `_t`: one of now is like it."""
        now = self.inputs.rows
        lacking = without_value(self.inputs, self.wanted, self.inputs.shards)
        of_now = list(self._figures({m: m for m in self.reads.members}))
        of_then = self._figures(dict(self.held.reads))
        key, *places = (
            f"{then} IN (SELECT {own} FROM {now.table} AS _t WHERE {lacking})"
            for then, own in zip(of_then, of_now, strict=True)
        )
        if not places:
            return key
        gone = f"_t.sample_id NOT IN (SELECT sample_id FROM {now.table})"
        alike = places[-1:] if self.by_size else places[:-1]  # the others are of that size, too
        return f"({key} OR ({gone} AND ({' OR '.join(alike)})))"

    def now(self, rows: HashedRows, wanted: str, shards: Sequence[str]) -> str:
        """SQL condition on the rows of now, called `_t`: they lack a value, and one of then is like them in more than
        its size.

        Args:
            rows: the rows of then.
        """
        return self._alike(rows, wanted, shards, slice(0, -1))

    def of_size(self, rows: HashedRows, wanted: str, shards: Sequence[str]) -> str:
        """As `now`, but their size is enough."""
        return self._alike(rows, wanted, shards, slice(-1, None))

    def few_of_size(self, rows: HashedRows, wanted: str, shards: Sequence[str]) -> str:
        """As `of_size`, and only a few of each shard."""
        places = (
            f"SELECT toString(_t.shard) AS of_shard, _t.position AS place FROM {self.inputs.rows.table} AS _t"
            f" WHERE {self.of_size(rows, wanted, shards)} ORDER BY of_shard, sipHash64(place) LIMIT {_FEW} BY of_shard"
        )
        return f"(toString(_t.shard), _t.position) IN ({places})"

    def _alike(self, rows: HashedRows, wanted: str, shards: Sequence[str], which: slice) -> str:
        pairs = zip(
            self._figures(dict(self.held.reads)), self._figures({m: m for m in self.reads.members}), strict=True
        )
        asked = (f"{own} IN (SELECT {then} FROM {rows.table} AS _t WHERE {rows.where})" for then, own in pairs)
        return f"{without_value(self.inputs, wanted, shards)} AND ({' OR '.join([*asked][which])})"

    def _figures(self, columns: dict[str, str]) -> Iterator[str]:
        """What rows may have in common, as SQL tuples: those of their sizes alone come last."""
        sizes = [f"tupleElement(_t.{quote(columns[m])}, 'size')" for m in self.reads.members]
        offsets = [f"tupleElement(_t.{quote(columns[m])}, 'offset')" for m in self.reads.members]
        yield f"({', '.join(['toString(_t.key)', *sizes])})"
        if sizes:
            yield f"({', '.join([*offsets, *sizes])})"
            yield f"({', '.join(['toString(_t.shard)', *sizes])})"
            yield f"({', '.join(sizes)})"
