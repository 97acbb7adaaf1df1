"""Matches the samples of shards of two versions, in SQL, with a bounded memory.

Hashes of one side count negative, so that what both sides have cancels out, in whatever order it comes, also where a
sample occurs more than once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from factory_lib.plan.sqltext import quote
from factory_lib.progress import Tracked, track
from factory_lib.warehouse.versions import Version

_SUMMED_ROWS = 50_000_000
"""Rows whose sums are asked for at once."""
_FEW_ROWS = 100_000
"""Up to so many rows are matched without asking for sums first."""
_MATCHED_CELLS = 8_000_000
"""Rows times figures that are matched at once: what bounds the memory, 16 bytes each."""
_SETTINGS = {"max_bytes_before_external_group_by": 1 << 29, "prefer_column_name_to_alias": 1}
"""A single shard that is too large for that goes to disk; columns may have the names that figures have here."""


@dataclass(frozen=True)
class ShardDifference:
    """How a shard differs between two versions.

    Attributes:
        rows_before, rows_after: rows in the two versions.
        added, removed: samples that only one of the versions has.
        changed: samples that differ in a column that both have. A sample that occurs several times counts once.
        moved: samples whose position in the shard differs.
        columns: column -> samples that differ in it.
    """

    shard: str
    rows_before: int
    rows_after: int
    added: int = 0
    removed: int = 0
    changed: int = 0
    moved: int = 0
    columns: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether there is no difference."""
        return not (self.added or self.removed or self.changed or self.moved)


@dataclass(frozen=True)
class Resharded:
    """Samples that are in shards of other names: how many, and how many of them changed besides."""

    samples: int = 0
    changed: int = 0


@dataclass(frozen=True)
class Matching:
    """Compares shards that both versions have.

    Attributes:
        columns: columns that both have with the same type.
    """

    before: Version
    after: Version
    columns: Sequence[str]

    @property
    def values(self) -> list[str]:
        """The columns that make up what a sample is, besides its place."""
        return [name for name in self.columns if name not in ("shard", "position", "sample_id")]

    def of(self, shards: Sequence[str]) -> dict[str, ShardDifference]:
        """How these shards differ."""
        total = sum(self._rows(shard) for shard in shards)
        if total <= _FEW_ROWS and total * (len(self.values) + 2) <= _MATCHED_CELLS:
            return self._at_once(shards)
        with track(f"comparing {self.before} and {self.after}", total) as progress:
            different = self._summed(shards)
            alike = [s for s in shards if s not in different]
            progress.advance(sum(self._rows(s) for s in alike))
            matched = self._matched(list(different), progress)
            touched = {s for s in different if matched[s]["_row"]}
            columns = self._by_column({s: different[s] for s in touched})
        return {s: self._difference(s, matched.get(s, {}), columns.get(s, {})) for s in shards}

    def _at_once(self, shards: Sequence[str]) -> dict[str, ShardDifference]:
        """How these shards differ, in one statement: for few rows, where each statement costs more than its rows."""
        figures = {"_row": self.values, "_position": ["position"], **{name: [name] for name in self.values}}
        counts = self._match(shards, figures)
        columns = {s: {n: counts[s][n] for n in self.values if counts[s][n]} for s in shards}
        return {s: self._difference(s, counts[s], columns[s]) for s in shards}

    def across(self, gone: Sequence[str], come: Sequence[str]) -> Resharded:
        """Samples of shards that went which are in shards that came."""
        if not gone or not come:
            return Resharded()
        rows = sum(self.before.shards[s].rows for s in gone) + sum(self.after.shards[s].rows for s in come)
        parts = rows // (_MATCHED_CELLS // 4) + 1
        sides = " UNION ALL ".join(
            f"SELECT sample_id, toInt64({sign}1) AS side, {sign}reinterpretAsInt64({_hash(self.values)}) AS row"
            f" FROM {version.table} WHERE shard IN {{{name}:Array(String)}} AND sample_id % {parts} = {{part:UInt64}}"
            for sign, version, name in (("-", self.before, "gone"), ("+", self.after, "come"))
        )
        query = (
            "SELECT sum(least(n, m)) AS samples, countIf(n = m AND row != 0) AS changed"
            " FROM (SELECT sample_id, countIf(side < 0) AS n, countIf(side > 0) AS m, sum(row) AS row"
            f" FROM ({sides}) GROUP BY sample_id) WHERE n > 0 AND m > 0"
        )
        counted = [
            self.before.warehouse.rows(query, {"gone": list(gone), "come": list(come), "part": part}, _SETTINGS)[0]
            for part in range(parts)
        ]
        return Resharded(sum(c["samples"] for c in counted), sum(c["changed"] for c in counted))

    def _difference(self, shard: str, counts: Mapping[str, int], columns: Mapping[str, int]) -> ShardDifference:
        return ShardDifference(
            shard,
            self.before.shards[shard].rows,
            self.after.shards[shard].rows,
            added=counts.get("_added", 0),
            removed=counts.get("_removed", 0),
            changed=counts.get("_row", 0),
            moved=counts.get("_position", 0),
            columns=columns,
        )

    def _summed(self, shards: Sequence[str]) -> dict[str, list[str]]:
        """Shards of which some sum differs -> the columns that may differ."""
        names = ["sample_id", "position", *self.values]
        sums = ", ".join(f"sum({_hash([name])}) AS h{i}" for i, name in enumerate(names))
        found: dict[str, list[str]] = {}
        for group in self._groups(shards, _SUMMED_ROWS):
            first, second = (
                {
                    row["shard"]: [row["n"], *(row[f"h{i}"] for i in range(len(names)))]
                    for row in version.warehouse.rows(
                        f"SELECT shard, count() AS n, {sums} FROM {version.table}"
                        " WHERE shard IN {s:Array(String)} GROUP BY shard",
                        {"s": group},
                        _SETTINGS,
                    )
                }
                for version in (self.before, self.after)
            )
            for shard in group:
                pair = first.get(shard, []), second.get(shard, [])
                if pair[0] != pair[1]:
                    same_samples = pair[0][:2] == pair[1][:2]
                    differ = [n for n, x, y in zip(names, pair[0][1:], pair[1][1:], strict=False) if x != y]
                    found[shard] = [n for n in self.values if n in differ] if same_samples else self.values
        return found

    def _matched(self, shards: Sequence[str], progress: Tracked) -> dict[str, dict[str, int]]:
        """Shard -> samples added, removed, changed in any column, moved."""
        found: dict[str, dict[str, int]] = {}
        for group in self._groups(shards, _MATCHED_CELLS // 4):
            found |= self._match(group, {"_row": self.values, "_position": ["position"]})
            progress.advance(sum(self._rows(s) for s in group))
        return found

    def _by_column(self, shards: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
        """Shard -> column -> samples that differ in it."""
        found: dict[str, dict[str, int]] = {}
        columns = [n for n in self.values if any(n in differ for differ in shards.values())]
        for group in self._groups(list(shards), _MATCHED_CELLS // (len(columns) + 2)):
            counts = self._match(group, {name: [name] for name in columns})
            found |= {s: {n: counts[s][n] for n in columns if counts[s][n]} for s in group}
        return found

    def _match(self, shards: Sequence[str], figures: Mapping[str, Sequence[str]]) -> dict[str, dict[str, int]]:
        """Match the samples of these shards.

        Args:
            figures: name -> the columns whose values, taken together, it is about.

        Returns:
            shard -> name -> samples that are in both versions and differ, besides `_added` and `_removed`.
        """
        sides = " UNION ALL ".join(
            f"SELECT shard, sample_id, toInt64({sign}1) AS side, "
            + ", ".join(f"{sign}reinterpretAsInt64({_hash(names)}) AS f{i}" for i, names in enumerate(figures.values()))
            + f" FROM {version.table} WHERE shard IN {{s:Array(String)}}"
            for sign, version in (("-", self.before), ("+", self.after))
        )
        sums = "".join(f", sum(f{i}) AS s{i}" for i in range(len(figures)))
        counts = "".join(f", countIf(balance = 0 AND s{i} != 0) AS n{i}" for i in range(len(figures)))
        rows = self.before.warehouse.rows(
            "SELECT shard, sum(greatest(balance, 0)) AS added, sum(greatest(-balance, 0)) AS removed"
            f"{counts} FROM (SELECT shard, sample_id, sum(side) AS balance{sums} FROM ({sides})"
            " GROUP BY shard, sample_id) GROUP BY shard",
            {"s": list(shards)},
            _SETTINGS,
        )
        names = {f"n{i}": name for i, name in enumerate(figures)} | {"added": "_added", "removed": "_removed"}
        counted = {row["shard"]: {names[n]: int(value) for n, value in row.items() if n in names} for row in rows}
        return {shard: counted.get(shard, dict.fromkeys(names.values(), 0)) for shard in shards}

    def _rows(self, shard: str) -> int:
        return self.before.shards[shard].rows + self.after.shards[shard].rows

    def _groups(self, shards: Sequence[str], rows: int) -> Iterator[list[str]]:
        """Shards in groups of about so many rows."""
        group: list[str] = []
        held = 0
        for shard in shards:
            if group and held + self._rows(shard) > rows:
                yield group
                group, held = [], 0
            group.append(shard)
            held += self._rows(shard)
        if group:
            yield group


def _hash(names: Iterable[str]) -> str:
    """SQL of a hash of columns of a sample. Inside a tuple a NULL is hashed like any value."""
    return f"cityHash64(sample_id{''.join(f', tuple({quote(name)})' for name in names)})"
