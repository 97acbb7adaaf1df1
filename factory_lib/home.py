"""Folders of the data folder (`FACTORY_HOME`): made here and nowhere else, and private to their owner.

What is in them names every sample and holds the engine's token. Their mode is 0700, and a default access control list,
where the file system has them, gives the same to whatever any program makes inside, whatever its umask.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
import sys
from functools import lru_cache
from pathlib import Path

from factory_lib.owners import folder_identity
from factory_lib.settings import settings

_DEFAULT_ACL = "system.posix_acl_default"
_USER, _GROUP, _OTHERS = 0x01, 0x04, 0x20
_NOBODY_IN_PARTICULAR = 0xFFFFFFFF


def private_folder(folder: Path, home: Path | None = None) -> Path:
    """A folder of the home, made with those above it if missing, that only its owner can enter.

    Args:
        folder: the home, or a folder in it; one elsewhere (a cache) is made private where it is made.
        home: which home; None for that of the settings.

    Returns:
        The folder.

    Raises:
        OSError: it cannot be made.
    """
    folder = folder.absolute()
    home = (home or settings().home).absolute()
    inside = folder.is_relative_to(home)
    above = home if inside else folder
    _close(above, home=inside)
    for name in folder.relative_to(above).parts:
        above = above / name
        _close(above, home=inside)
    return folder


def _close(folder: Path, *, home: bool) -> None:
    made = not folder.exists()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if made or home:
        _restrict(folder, folder_identity(folder))


@lru_cache(maxsize=1024)
def _restrict(folder: Path, _identity: str) -> None:
    """Once a process and folder."""
    found = os.stat(folder)
    # /tmp and its like belong to everybody, whoever calls them home.
    if found.st_uid != os.geteuid() or found.st_mode & stat.S_ISVTX:
        return
    with contextlib.suppress(OSError):  # a file system without modes
        if found.st_mode & 0o077:
            os.chmod(folder, 0o700)
        if sys.platform == "linux":
            os.setxattr(folder, _DEFAULT_ACL, _only_owner())


def _only_owner() -> bytes:
    """A list by which files inside are for their owner: version 2, then tag, permissions and id of each entry."""
    entries = ((_USER, 7), (_GROUP, 0), (_OTHERS, 0))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", t, mode, _NOBODY_IN_PARTICULAR) for t, mode in entries)
