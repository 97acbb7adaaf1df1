"""Metadata that names files (`train/0001.jpg`) for samples that are known by keys (`train/0001`), as those of tars are.

Writers differ in how much of a path they write; what finds most of the first samples is taken for all (compare
`picture_names`, which looks for files that lie in folders).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.members import split_names
from factory_lib.sources.picture_names import COLUMNS, names_in, normal
from factory_lib.sources.shards import ShardReport, Source
from factory_lib.sources.tables import TablePair

_SAMPLES_TRIED = 1_000
_SHARDS_TRIED = 3
_ENOUGH = 0.1
"""Share of the tried samples that must be there where numbers are compared, which may be those of something else."""


@dataclass(frozen=True)
class SampleNames:
    """How the values of a column name samples.

    `x/train/0007.jpg` in the column and the key `train/0007`, of one part and as numbers -> both are `7`.

    Attributes:
        column: of the tables.
        parts: how many parts of a path are compared, from its end.
        numbers: whether names are compared as the numbers that they are: `0007` is 7.
        pattern: where the extension begins, as `split_names` has it.
    """

    column: str
    parts: int
    numbers: bool = False
    pattern: str | None = None

    def of_table(self, column: pa.Array) -> pa.StringArray:
        """Values of the column, as `of_samples` names them."""
        values = self._end(pc.replace_substring(normal(column.cast(pa.string())), "\\", "/"))
        keys, _ = split_names(values, self.pattern)
        return self._number(pc.coalesce(keys, values))

    def of_samples(self, keys: pa.Array) -> pa.StringArray:
        """Keys of samples as they are compared."""
        return self._number(self._end(normal(keys.cast(pa.string()))))

    def _end(self, paths: pa.StringArray) -> pa.StringArray:
        kept = rf"(?:[^/]*/){{{self.parts - 1}}}[^/]*"
        return pc.replace_substring_regex(paths, f"^(?:.*/)?({kept})$", r"\1")

    def _number(self, names: pa.StringArray) -> pa.StringArray:
        return pc.replace_substring_regex(names, r"(^|/)0+([0-9])", r"\1\2") if self.numbers else names


def find_names(
    source: Source, pairs: Sequence[TablePair], column: str | None, pattern: str | None
) -> SampleNames | None:
    """How tables name the samples of a source; None where they name none of the first ones.

    Args:
        column: that names them; None to find out.
        pattern: where extensions begin in the names of the source's files.

    Raises:
        SourceError: a table cannot be read.
    """
    samples = _first_keys(source, "key")
    if not len(samples):
        return None
    parts = 1 + max(key.count("/") for key in samples.to_pylist())
    best: tuple[float, SampleNames] | None = None
    for name in COLUMNS if column is None else [column]:
        either = (False, True) if name != "key" else (False,)  # keys that are text are compared as text
        ways = [SampleNames(name, n, numbers, pattern) for numbers in either for n in dict.fromkeys((parts, 1))]
        for way in ways:
            if pc.count_distinct(way.of_samples(samples)).as_py() < pc.count_distinct(samples).as_py():
                continue  # several folders have the same names
            share = _share(way.of_samples(samples), name, pairs, way.of_table)
            if share >= (_ENOUGH if way.numbers else 0) and share > (best[0] if best else 0):
                best = share, way
            if share > 0.99:
                return way
    return best[1] if best else None


def knows_some(source: Source, pairs: Sequence[TablePair], column: str, keys: Callable[[pa.Array], pa.Array]) -> bool:
    """Whether the first samples, as far as there are some, are among the keys of tables.

    Args:
        column: of both.
        keys: the values of either side as they are compared.

    Raises:
        SourceError: a table cannot be read.
    """
    samples = _first_keys(source, column)
    return not len(samples) or _share(keys(samples), column, pairs, keys) > 0


def _first_keys(source: Source, column: str) -> pa.Array:
    """The column of the first samples."""
    batches = (source.read(shard, ShardReport("")) for shard in source.shards()[:_SHARDS_TRIED])
    keys = (batch.column(column).drop_null() for batch in chain.from_iterable(batches) if len(batch))
    return next(keys, pa.array([], pa.string()))[:_SAMPLES_TRIED]


def _share(left: pa.Array, column: str, pairs: Sequence[TablePair], keys: Callable[[pa.Array], pa.Array]) -> float:
    """Share of samples that a column of tables names."""
    count = len(left)
    for pair in map(TablePair.fresh, pairs):
        if column in pair.fields and len(left):
            left = left.filter(pc.invert(pc.is_in(left, value_set=keys(names_in(pair, column, None)))))
    return 1 - len(left) / count
