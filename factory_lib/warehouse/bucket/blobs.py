"""How the engine knows what lies in the bucket: for each file of a part a small one on its disk, which names objects.

Such a file says its format, how many objects there are and their size in all, then size and key of each, how many other
files name the same objects, whether it is read-only, and bytes that are in no object: a line each. Files of several
parts that are the same are hard links to one.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from factory_lib.warehouse.bucket.head import BucketError

DISK = "bucket"
"""The engine's name of the disk."""

POLICY = "versions"
"""The engine's name of the storage policy, and of the disk with the cache in front."""

PARTS = "parts"
"""Folder below the prefix of the objects that parts are made of."""

METADATA = f"disks/{DISK}"
"""Folder of those files, below that of the engine."""

_FORMAT = 5


def table_folder(data: Path, uuid: str) -> Path:
    """Folder of the files of a table.

    Args:
        data: the engine's folder.
    """
    return data / METADATA / "store" / uuid[:3] / uuid


def part_files(folder: Path, parts: Iterable[str]) -> dict[str, str]:
    """The files of a table, path below its folder -> content, as if nothing else named the same objects.

    Args:
        folder: of the table.
        parts: names of its parts that count.
    """
    found = {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}
    for part in parts:
        for path in sorted((folder / part).rglob("*")):
            if path.is_file():
                found[str(path.relative_to(folder))] = path.read_text()
    return {path: counted(text, 0) for path, text in found.items()}


def blob_keys(text: str) -> list[str]:
    """The keys of the objects that a file names.

    Raises:
        BucketError: an engine of another release wrote it.
    """
    lines = text.split("\n")
    if int(lines[0]) > _FORMAT:
        raise BucketError(
            f"The engine describes its files in format {lines[0]}; this release knows {_FORMAT}.",
            "Use the release of Dataset Factory that goes with it.",
        )
    return [line.partition("\t")[2] for line in lines[2 : 2 + _objects(lines)]]


def counted(text: str, others: int) -> str:
    """The content of a file with the number of other files that name the same objects."""
    lines = text.split("\n")
    lines[2 + _objects(lines)] = str(others)
    return "\n".join(lines)


def described(objects: Mapping[str, int]) -> str:
    """The content of a file.

    Args:
        objects: key -> size in bytes.
    """
    listed = "".join(f"{size}\t{key}\n" for key, size in objects.items())
    return f"{_FORMAT}\n{len(objects)}\t{sum(objects.values())}\n{listed}0\n0\n\n"


def place(files: Mapping[Path, str]) -> None:
    """Write files, those that are the same as links to one, each with its number of links.

    Args:
        files: path -> content as `part_files` gives it.
    """
    paths: dict[str, list[Path]] = {}
    for path, text in files.items():
        paths.setdefault(text, []).append(path)
    for text, same in paths.items():
        first, *others = same
        first.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        first.write_text(counted(text, len(others)))
        for path in others:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.link(first, path)


def all_files(data: Path) -> Iterator[Path]:
    """All files of a data folder's tables that name objects."""
    for folder, _, names in os.walk(data / METADATA):
        yield from (Path(folder, name) for name in names)


def _objects(lines: list[str]) -> int:
    return int(lines[1].partition("\t")[0])
