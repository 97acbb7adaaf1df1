"""How tables name pictures: which column does, and what its values are relative to.

Writers differ: a path from the table's folder, from the root, from a folder of pictures, an absolute path of another
machine, a name without its extension, a number without its zeros. It is found out by looking for the pictures that the
first rows name; what finds most of them is taken for the whole table.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.sources.coerce import is_file
from factory_lib.sources.shards import ShardReport
from factory_lib.sources.tablefiles import table_stem
from factory_lib.sources.tables import TablePair
from factory_lib.storage.files import path_of

COLUMNS = (
    "file_name", "filename", "file_path", "filepath", "path", "image_path", "img_path", "image_file", "image_name",
    "image", "img", "file", "key", "name", "image_id", "id", "uid",
)  # fmt: skip
"""Columns that may name pictures, in order of preference."""
ROWS_TRIED = 1_000
_ROWS_AT_ONCE = 100_000
_FOLDERS_TRIED = 200
_ENOUGH = 0.1
"""Share of the tried rows whose picture must be there, where they name it without its extension."""

Match = Literal["path", "stem", "name", "name_stem", "number"]
"""What a value names: a path, one without its extension, a file name, one without its extension, or its number."""


@dataclass(frozen=True)
class Naming:
    """How the values of a column name pictures: `./a.jpg` with the base `images` -> `images/a.jpg`.

    Attributes:
        column: as the samples' columns are called.
        match: what of a picture they name.
        base: put before a value to make a path below the root of the source.
        scope: the folder in or below which its pictures are; empty for all.
    """

    column: str
    match: Match
    base: str
    scope: str

    def values(self, column: pa.Array) -> pa.Array:
        """Values of the column as `pictures` names them."""
        values = pc.replace_substring(column, "\\", "/")
        values = pc.replace_substring_regex(normal(values), r"^(\./+)+|#[0-9]+$", "")
        if self.match in ("path", "stem"):
            return pc.binary_join_element_wise(pa.scalar(self.base), values, "/") if self.base else values
        values = pc.replace_substring_regex(values, r"^.*/", "")
        return values if self.match == "name" else _cut(values, self.match)

    def pictures(self, paths: pa.Array) -> pa.Array:
        """What names each picture, given the paths below the root of the source."""
        paths = normal(paths)
        if self.match in ("name", "name_stem", "number"):
            paths = pc.replace_substring_regex(paths, r"^.*/", "")
        return paths if self.match in ("path", "name") else _cut(paths, self.match)

    def is_below(self, folder: str) -> bool:
        """Whether pictures of a folder may be among those that the table names."""
        return not self.scope or folder == self.scope or folder.startswith(f"{self.scope}/")


class PictureNames:
    """Pictures of a source under the names that tables give them.

    Args:
        root: of the source.
        paths: of the pictures below it.
    """

    def __init__(self, root: str, paths: Sequence[str]) -> None:
        self._root = path_of(root).rstrip("/") + "/"
        self._folders: dict[str, list[str]] = {}
        for path in paths:
            self._folders.setdefault(path.rpartition("/")[0], []).append(path)
        parents = {folder[:at] for folder in self._folders for at in _slashes(folder)}
        self._all_folders = parents | self._folders.keys()
        self._known: dict[tuple[Match, str], set[str]] = {}

    def find(self, pair: TablePair) -> Naming | None:
        """How the rows of a table name pictures; None when they name none.

        Raises:
            SourceError: the table cannot be read.
        """
        columns = [name for name in COLUMNS if name in pair.fields]
        columns += [name for name in pair.fields if name.endswith("_file_name")]
        for rows in (ROWS_TRIED, None):  # those of the first rows may all be missing
            best: tuple[float, Naming] | None = None
            for column in dict.fromkeys(columns):
                values = names_in(pair, column, rows)
                for naming in self._ways(pair, column) if len(values) else ():
                    wanted = set(naming.values(values).to_pylist())
                    found = len(wanted & self._names(naming))
                    share = found / len(wanted)
                    # A file name that is there is meant; a number may be one of something else.
                    enough = found > 0 if naming.match in ("path", "name") else share >= _ENOUGH
                    if enough and (best is None or share > best[0]):
                        best = share, naming
                    if share > 0.99:
                        return naming
            if best:
                return best[1]
        return None

    def alike(self, pair: TablePair, other: TablePair, naming: Naming) -> Naming:
        """How a table names pictures that is called and placed as another one is, without looking into it."""
        places = dict(zip(self._places(other), self._places(pair), strict=True))
        return Naming(naming.column, naming.match, places.get(naming.base, ""), places.get(naming.scope, ""))

    def _places(self, pair: TablePair) -> tuple[str, str]:
        """The folder beside a table that has its name, and the folder that it is in."""
        assert pair.table is not None
        relative = pair.table.path.removeprefix(self._root)
        return table_stem(relative), relative.rpartition("/")[0]

    def _ways(self, pair: TablePair, column: str) -> Iterator[Naming]:
        beside, own = self._places(pair)
        scope = next((folder for folder in (beside, own) if folder in self._all_folders), "")
        hints = set(re.split(r"[^a-z0-9]+", beside.lower()))
        called_alike = sorted(self._folders, key=lambda f: (not hints & set(re.split(r"[^a-z0-9]+", f.lower())), f))
        bases = dict.fromkeys([scope, own, "", *called_alike[:_FOLDERS_TRIED]])
        below: tuple[Match, ...] = ("path", "stem")
        anywhere: tuple[Match, ...] = ("name", "name_stem", "number")
        for match in below:
            for base in bases:
                yield Naming(column, match, base, base if base in self._all_folders else "")
        for match in anywhere:
            yield Naming(column, match, "", scope)

    def _names(self, naming: Naming) -> set[str]:
        key = naming.match, naming.scope
        if key not in self._known:
            inside = [path for folder, paths in self._folders.items() if naming.is_below(folder) for path in paths]
            self._known[key] = set(naming.pictures(pa.array(inside, pa.string())).to_pylist())
        return self._known[key]


def normal(names: pa.Array) -> pa.Array:
    """Names as they are compared: a letter with its accent is one code point (NFC), which macOS takes apart."""
    return pc.utf8_normalize(names, "NFC")


def names_in(pair: TablePair, column: str, rows: int | None) -> pa.Array:
    """The first values of a column as text, nulls left out; none where it holds anything but names and numbers.

    Args:
        rows: how many are looked at; None for all.
    """
    kind = pair.fields[column][1]
    values = pa.array([], pa.string())
    if pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind) or is_file(kind):
        some = pair.batches(pa.schema([(column, pa.string())]), rows or _ROWS_AT_ONCE, ShardReport(""))
        found = [batch.column(0).drop_null() for batch in islice(some, 1 if rows else None)]
        values = pa.concat_arrays([values, *found])
    return values


def _cut(names: pa.Array, match: Match) -> pa.Array:
    """Names without extension, numbers without the zeros before them."""
    names = pc.replace_substring_regex(names, r"([^/])[.][^./]*$", r"\1")
    return pc.replace_substring_regex(names, r"^0+([0-9])", r"\1") if match == "number" else names


def _slashes(folder: str) -> list[int]:
    return [at for at, letter in enumerate(folder) if letter == "/"] + [0] * bool(folder)
