"""A source as it was opened: a reader, what its columns are called, and the account of what it uses.

All readers are wrapped in it. So what holds for every format stands here once: no exception of a reader ends a run,
text is text, and columns are chosen and renamed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from factory_lib.sources.account import Account
from factory_lib.sources.shards import ShardReport, Source, SourceListing, SourceShard
from factory_lib.sources.surviving import surviving
from factory_lib.warehouse.valid_text import valid_batch


@dataclass(frozen=True)
class OpenedSource:
    """What `open_source` returns.

    Attributes:
        uri: as it was given: of a file or folder, a pattern, or a list of files.
        reader: the source as its format gives it.
        columns: column of the dataset -> column of the reader, in their order.
        account: what became of every file and column.
        options: with which `open_source` opens it again.
        mapping: those of them that rows depend on, as text; empty for none.
    """

    uri: str
    reader: Source
    columns: Mapping[str, str]
    account: Account = field(default_factory=Account, compare=False)
    options: Mapping[str, Any] = field(default_factory=dict, compare=False)
    mapping: str = ""

    @property
    def format(self) -> str:
        """Which reader this is."""
        return self.reader.format

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch of every shard."""
        theirs = self.reader.schema
        return pa.schema(
            [pa.field(name, pa.string() if name == "key" else theirs.field(raw).type)
             for name, raw in self.columns.items()]
        )  # fmt: skip

    def shards(self) -> list[SourceShard]:
        """All shards, by name."""
        return [replace(shard, mapping=self.mapping) for shard in self.reader.shards()]

    def listing(self) -> SourceListing:
        """What it lists: all of it, of one source."""
        return SourceListing(tuple(self.shards()))

    def asking_for(self, shards: Sequence[str]) -> OpenedSource:
        """Itself: what it does not list is not there."""
        return self

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """Rows of a shard in byte order."""
        schema = self.schema
        where = shard.files[0].uri if shard.files else shard.name
        for batch in surviving(
            self.reader.read(replace(shard, mapping=""), report), where, "unreadable_shards", report
        ):
            chosen = [batch.column(raw).cast(schema.field(name).type) for name, raw in self.columns.items()]
            if schema.names and "key" in schema.names:
                at = schema.names.index("key")
                chosen[at] = chosen[at].fill_null("")
            made, wrong = valid_batch(pa.RecordBatch.from_arrays(chosen, schema=schema))
            for name, number in wrong.items():
                report.count("bad_utf8", number)
                report.problem(f"{number} values of {name!r} are not UTF-8: the wrong bytes became U+FFFD")
            yield made
