"""What the inputs of a signal are for a row, as a hash that the warehouse computes.

A value depends on the signal, on the values of the columns that it reads, and on the bytes of the members that it
reads. Where the same inputs gave a value before, under the same fingerprint of the signal, that value is taken over:
whatever the sample is called, in whatever place of whatever shard it stands. Bytes are known in two ways:

* By place: the uri, the etag of the file in which they were found, offset and size. No byte is read to know it. It
  changes when anything changes in the file.
* By content: a hash of the bytes themselves (SHA-256, its first 16 bytes), which is recorded in the catalog when a
  signal reads the member anyway. It survives a rewritten file. Nothing less would do: size and offset stay when bytes
  are replaced in place, and a tar's headers hold no checksum of what they announce.

Both are hashes of 128 bits: 64 would be too few for the samples of a large dataset.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from factory_lib.names import CATALOG
from factory_lib.plan.sqltext import quote

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal

HASH = "FixedString(16)"
"""ClickHouse type of the hash of inputs."""


@dataclass(frozen=True)
class Reads:
    """What a signal reads.

    Attributes:
        values: columns whose values it reads.
        members: pointer columns whose bytes it reads.
    """

    values: tuple[str, ...]
    members: tuple[str, ...]

    @staticmethod
    def of(signal: Signal) -> Reads:
        """What a signal reads. Its fingerprint says which column is which parameter."""
        members = tuple(sorted(signal.members))
        return Reads(tuple(sorted(set(signal.reads) - set(members))), members)


@dataclass(frozen=True)
class HashedRows:
    """Rows of a table whose inputs are to be told.

    Attributes:
        table: the table, quoted.
        files: SQL of a relation `shard, uri, etag`: the files that the rows of each shard point into.
        columns: what a signal calls a column -> what the table calls it; the same where it is not in it.
        where: condition over the table's columns, as SQL.
    """

    table: str
    files: str
    columns: Mapping[str, str]
    where: str = "1"

    def by_place(self, all_reads: Sequence[Reads], also: Sequence[str] = ()) -> str:
        """SELECT of `shard`, `position`, `identity_0` … of what is read, bytes known by their place.

        Rows that point into a file of unknown state are left out.

        Args:
            also: columns of the table to select, too.
        """
        members = sorted({m for reads in all_reads for m in reads.members})
        etags = {m: f"_f{i}.etag" for i, m in enumerate(members)}
        known = [f"({self.uri(m)} = '' OR {etags[m]} != '')" for m in members]
        identities = [
            self._hash(reads, [part for m in reads.members for part in (self._column(m), etags[m])])
            for reads in all_reads
        ]
        return self._select(identities, also, self.file_joins(members), known)

    def by_content(self, reads: Reads, also: Sequence[str] = ()) -> str:
        """SELECT of `shard`, `position`, `identity_0` of what is read, bytes known by their hash.

        Rows of whose members no hash is known are left out.
        """
        members = list(reads.members)
        joins = [self.file_joins(members), self.content_joins(members)]
        hashes = [part for i, m in enumerate(members) for part in (f"{self.uri(m)} = ''", f"_c{i}.hash")]
        known = [f"({self.uri(m)} = '' OR _c{i}.uri != '')" for i, m in enumerate(members)]
        return self._select([self._hash(reads, hashes)], also, "".join(joins), known)

    def content_joins(self, members: Sequence[str]) -> str:
        """JOINs, after those of the files, of what is known of the content of members."""
        contents = (
            f"(SELECT uri, etag, offset, size, any(hash) AS hash FROM {CATALOG}.contents WHERE (uri, etag) IN"
            f" (SELECT uri, etag FROM {self.files}) GROUP BY uri, etag, offset, size)"
        )
        return "".join(
            f" LEFT ANY JOIN {contents} AS _c{i} ON _c{i}.uri = {self.uri(m)} AND _c{i}.etag = _f{i}.etag"
            f" AND _c{i}.offset = {self._part(m, 'offset')} AND _c{i}.size = {self._part(m, 'size')}"
            for i, m in enumerate(members)
        )

    def _select(self, identities: Sequence[str], also: Sequence[str], joins: str, known: Sequence[str]) -> str:
        columns = [
            "toString(_t.shard) AS shard",
            "_t.position AS position",
            *(f"{identity} AS identity_{i}" for i, identity in enumerate(identities)),
            *also,
        ]
        where = " AND ".join([f"({self.where})", *known])
        return f"SELECT {', '.join(columns)} FROM {self.table} AS _t{joins} WHERE {where}"

    def file_joins(self, members: Sequence[str]) -> str:
        """JOINs of the files that members are in, called _f0 …."""
        return "".join(
            f" LEFT ANY JOIN {self.files} AS _f{i} ON _f{i}.shard = toString(_t.shard) AND _f{i}.uri = {self.uri(m)}"
            for i, m in enumerate(members)
        )

    def _hash(self, reads: Reads, of_members: Sequence[str]) -> str:
        # Inside a tuple a NULL is hashed like any value; a bare NULL would make the whole hash NULL.
        parts = [*(self._column(c) for c in reads.values), *of_members]
        return f"sipHash128({', '.join(f'tuple({part})' for part in parts)})"

    def _column(self, name: str) -> str:
        return f"_t.{quote(self.columns.get(name, name))}"

    def _part(self, member: str, part: str) -> str:
        return f"tupleElement({self._column(member)}, '{part}')"

    def uri(self, member: str) -> str:
        """SQL of the uri of a member; empty where a row has none."""
        return f"toString({self._part(member, 'uri')})"
