"""What differs between two versions: samples added, removed and changed, by shard and by column.

Shards that both versions have from the same maker are the same and are not read; nor are shards with the same content
fingerprint. Of the others, sums of hashes of each column are compared first, which needs no memory; only where they
differ are samples matched, by `sample_id` within the shard, in groups of shards that bound the memory. Samples of
shards that only one version has are looked for in those that only the other has: they may be put together anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from factory_lib.history.matching import Matching, Resharded, ShardDifference
from factory_lib.tables import arrow_table
from factory_lib.warehouse.versions import Version

if TYPE_CHECKING:
    from factory_lib.history.reasons import Reason


@dataclass(frozen=True)
class Difference:
    """How two versions differ.

    Attributes:
        before, after: their names.
        columns_added, columns_dropped: column -> type.
        columns_retyped: column -> its types before and after; their values are not compared.
        shards: the shards that differ, in order of their names.
        shards_alike: how many do not.
        resharded: samples of shards that only the first version has which are in shards that only the second has.
        reasons: what explains it, what concerns most shards first, where that was asked for (`reasons.explained`).
    """

    before: str
    after: str
    columns_added: Mapping[str, str]
    columns_dropped: Mapping[str, str]
    columns_retyped: Mapping[str, tuple[str, str]]
    shards: Sequence[ShardDifference]
    shards_alike: int
    resharded: Resharded
    reasons: Sequence[Reason] = ()

    def _repr_html_(self) -> str:
        from factory_lib.history.shown import difference_page

        return difference_page(self)

    @property
    def added(self) -> int:
        """Samples that only the second version has."""
        return sum(shard.added for shard in self.shards) - self.resharded.samples

    @property
    def removed(self) -> int:
        """Samples that only the first version has."""
        return sum(shard.removed for shard in self.shards) - self.resharded.samples

    @property
    def changed(self) -> int:
        """Samples that differ in a column that both versions have."""
        return sum(shard.changed for shard in self.shards) + self.resharded.changed

    @property
    def moved(self) -> int:
        """Samples whose position in their shard differs."""
        return sum(shard.moved for shard in self.shards)

    @property
    def columns(self) -> dict[str, int]:
        """Column -> samples that differ in it."""
        totals: dict[str, int] = {}
        for shard in self.shards:
            for name, n in shard.columns.items():
                totals[name] = totals.get(name, 0) + n
        return totals

    @property
    def is_empty(self) -> bool:
        """Whether the versions have the same samples, values and columns."""
        return not (self.shards or self.columns_added or self.columns_dropped or self.columns_retyped)

    def to_arrow(self) -> pa.Table:
        """One row a shard that differs: its rows before and after, and what became of them."""
        return arrow_table(ShardDifference, self.shards)


def compare(before: Version, after: Version) -> Difference:
    """How two versions differ, of the same dataset or of two."""
    old, new = before.columns, after.columns
    retyped = {n: (old[n], new[n]) for n in old if n in new and old[n] != new[n]}
    suspects = differing_shards(before, after)
    common = [s for s in suspects if s in before.shards and s in after.shards]
    found = {s: _one_sided(s, before, after) for s in suspects if s not in common}
    comparison = Matching(before, after, [n for n in old if n in new and n not in retyped])
    if common:
        found |= comparison.of(common)
    differing = [found[s] for s in suspects if not found[s].is_empty]
    return Difference(
        before=str(before),
        after=str(after),
        columns_added={n: t for n, t in new.items() if n not in old},
        columns_dropped={n: t for n, t in old.items() if n not in new},
        columns_retyped=retyped,
        shards=differing,
        shards_alike=len(before.shards.keys() | after.shards.keys()) - len(differing),
        resharded=comparison.across(
            [s for s in found if s not in after.shards], [s for s in found if s not in before.shards]
        ),
    )


def differing_shards(before: Version, after: Version) -> list[str]:
    """Shards of two versions that are not known to be the same, in order of their names; no rows are read."""
    old, new = before.shards, after.shards
    remade = [s for s in old if s in new and old[s].origin != new[s].origin]
    known = before.known_fingerprints(remade), after.known_fingerprints(remade)
    different = {s for s in remade if s not in known[0] or known[0][s] != known[1].get(s)}
    return sorted(different | (old.keys() ^ new.keys()))


def _one_sided(shard: str, before: Version, after: Version) -> ShardDifference:
    if shard in after.shards:
        rows = after.shards[shard].rows
        return ShardDifference(shard, 0, rows, added=rows)
    rows = before.shards[shard].rows
    return ShardDifference(shard, rows, 0, removed=rows)
