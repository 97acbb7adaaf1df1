"""Installed packages: which distribution a file belongs to, by the lists of files that installers leave.

Read directly: `importlib.metadata` takes longer to import than all of a fingerprint may take.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

_KNOWN = {
    "PIL": "pillow",
    "cv2": "opencv-python-headless",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "attr": "attrs",
}
"""Distributions of well-known modules: looked at first, to save reading what every distribution installed."""
_DESCRIBES = ("METADATA", "PKG-INFO", "RECORD")


class Distribution(NamedTuple):
    """What was installed together.

    Attributes:
        name: in lower case, with hyphens.
        version: without its local part (`2.13.0+cpu`): builds of one version count as equal.
        files: the list of its files, or the folder that holds it.
    """

    name: str
    version: str
    files: str


def owner(folder: str, relative: str, top: str) -> Distribution | None:
    """The distribution that installed a file.

    Args:
        folder: a folder of installed packages.
        relative: the file, or the folder of a package without `__init__.py`, from there.
        top: name of the outermost package.

    Returns:
        None for a file that no distribution installed.
    """
    modified = os.stat(folder).st_mtime_ns
    named, shared = _named(folder, modified, top)
    if named and not shared:
        versions = sorted({one.version for one in named if one.name == named[0].name})
        return named[0]._replace(version=" and ".join(versions))  # an upgrade that broke off leaves two
    others = _with_top(_installed(folder, modified), top)
    return next((one for one in (*named, *others) if _lists(one, relative)), None)


@lru_cache(maxsize=1024)
def _named(folder: str, modified: int, top: str) -> tuple[list[Distribution], bool]:
    """The distributions that are called like a package, and whether others may have put modules into it, too."""
    wanted = {_KNOWN.get(top, top).lower(), top.replace("_", "-").lower()}
    named = [one for one in _installed(folder, modified) if one.name in wanted and _is_whole(one)]
    return named, _is_shared(os.path.join(folder, top))


def _is_shared(folder: str) -> bool:
    """Whether a package has no `__init__.py`, so that several distributions may be in it."""
    plain = any(os.path.isfile(os.path.join(folder, f"__init__{end}")) for end in (".py", ".pyc"))
    return not plain and os.path.isdir(folder)


@lru_cache(maxsize=64)
def _installed(folder: str, modified: int) -> tuple[Distribution, ...]:
    """The distributions in a folder; `modified` tells one state of it from another."""
    found = []
    for entry in (name for name in os.listdir(folder) if name.endswith("-info")):
        stem, dot, kind = entry.rpartition(".")
        name, *rest = stem.split("-")
        if dot and kind in {"dist-info", "egg-info"} and name and 0 < len(rest) <= 3 and all(rest):
            name = name.lower().replace("_", "-").replace(".", "-")
            found.append(Distribution(name, rest[0].partition("+")[0], os.path.join(folder, entry)))
    return tuple(sorted(found, key=lambda one: one.name))


def _is_whole(one: Distribution) -> bool:
    """Whether it is no folder that an uninstall left."""
    return os.path.isfile(one.files) or any(os.path.isfile(os.path.join(one.files, name)) for name in _DESCRIBES)


def _with_top(installed: tuple[Distribution, ...], top: str) -> Iterator[Distribution]:
    return (one for one in installed if top in _tops(one.files))


def _lists(one: Distribution, relative: str) -> bool:
    listed = f"\n{_record(one.files)}"
    return f"\n{relative}," in listed or f"\n{relative}/" in listed or f"\n{relative}\n" in listed


@lru_cache(maxsize=1024)
def _tops(files: str) -> frozenset[str]:
    """First parts of the paths of its files, without extensions."""
    return frozenset(re.findall(r"(?m)^([^/,.\n]+)", _record(files)))


@lru_cache(maxsize=32)
def _record(files: str) -> str:
    for name in ("RECORD", "installed-files.txt"):
        try:
            with open(os.path.join(files, name), encoding="utf-8", errors="replace") as file:
                return file.read()
        except OSError:
            continue
    return ""
