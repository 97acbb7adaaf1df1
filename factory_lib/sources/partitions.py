"""Columns in the names of folders: `lang=en/year=2024/part-0.parquet`, as Hive, Spark, Arrow and others write tables.

Values are percent-encoded, and `__HIVE_DEFAULT_PARTITION__` is null. A column is of integers where all of its values
are such without zeros before them, else text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from urllib.parse import unquote

import pyarrow as pa

from factory_lib.sources.tables import Partition, TablePair
from factory_lib.storage.files import path_of

_FOLDER = re.compile(r"([^=]+)=(.*)")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")


def partitioned(root: str, pairs: Sequence[TablePair]) -> list[TablePair]:
    """Tables with the columns that the folders of any of them name: null for those without.

    Args:
        root: what was listed. Folders below it count, and those that are right above.
    """
    found = [dict(_values(path_of(root), pair)) for pair in pairs]
    kinds = {name: _type([one.get(name) for one in found]) for name in dict.fromkeys(n for one in found for n in one)}
    if not kinds:
        return list(pairs)
    return [
        replace(pair, partitions=tuple(Partition(name, one.get(name), kind) for name, kind in kinds.items()))
        for pair, one in zip(pairs, found, strict=True)
    ]


def _values(root: str, pair: TablePair) -> Iterator[tuple[str, str | None]]:
    folder = pair.files[0].path.rpartition("/")[0]
    root = root.rstrip("/") if folder.startswith(root.rstrip("/")) else folder
    above = takewhile(_FOLDER.fullmatch, reversed(root.split("/")))
    for part in (*reversed(list(above)), *folder.removeprefix(root).split("/")):
        if match := _FOLDER.fullmatch(part):
            value = unquote(match[2])
            yield unquote(match[1]), None if value == _NULL else value


def _type(values: Sequence[str | None]) -> pa.DataType:
    there = [value for value in values if value is not None]
    return pa.int64() if there and all(map(_INTEGER.fullmatch, there)) else pa.string()
