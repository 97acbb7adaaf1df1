"""Files and folders that values name count by content: neither a moved checkout nor new weights go wrong."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator
from functools import lru_cache

MAX_FILE_BYTES = 2**30
"""Of larger files the size and the modification time count."""
MAX_FILES = 2000
"""Of folders with more files only names and sizes of so many count."""
MAX_FOLDER_BYTES = 2**30
"""Of the files of larger folders only sizes and modification times count."""
_CODE = (".py", ".pyc", ".pyi", ".ipynb")


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; of one above 1 GiB, of its size and modification time.

    A file is read again only when its size, times or inode change.
    """
    status = os.stat(path)
    if status.st_size > MAX_FILE_BYTES:
        return hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    real = os.path.realpath(path)
    return _file_digest(real, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def content(path: str, names: Collection[str] = ()) -> str | None:
    """What a file or folder holds, as a short text; None where there is neither.

    Hidden files, caches and Python code are left out of folders: code counts by what is used of it. Of a folder with
    code in it, a project's own, only what is named counts where something of it is.

    Args:
        path: the file or folder.
        names: texts that may name what is used of the folder.
    """
    try:
        status = os.stat(path)
        if stat.S_ISREG(status.st_mode):
            return f"file:{file_digest(path)[:32]}"
        if not stat.S_ISDIR(status.st_mode) or os.path.abspath(path) in _broad():
            return None
        with os.scandir(path) as entries:
            holds_code = any(entry.name.endswith(_CODE) for entry in entries)
        used = sorted(name for name in names if _is_inside(path, name)) if holds_code else []
        named = [f"{name} {content(os.path.join(path, name)) or ''}" for name in used]
        found = named or list(_listed(path))
    except (OSError, ValueError):  # text that cannot be a path
        return None
    return "folder:" + hashlib.sha256("\n".join(found).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _is_inside(folder: str, name: str) -> bool:
    plain = 0 < len(name) < 256 and "\0" not in name and not name.startswith(("/", ".")) and ".." not in name
    return plain and os.path.exists(os.path.join(folder, name))


def _listed(folder: str) -> Iterator[str]:
    files = []
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__pycache__")))
        files += [os.path.join(base, name) for name in sorted(names) if not name.startswith(".")]
        if len(files) > MAX_FILES:
            break
    counted = [(path, os.stat(path)) for path in files[:MAX_FILES] if not path.endswith(_CODE)]
    small = len(files) <= MAX_FILES and sum(status.st_size for _, status in counted) <= MAX_FOLDER_BYTES
    for path, status in counted:
        times = "" if len(files) > MAX_FILES else f" {status.st_mtime_ns}"
        yield f"{os.path.relpath(path, folder)} {file_digest(path) if small else f'{status.st_size}{times}'}"


@lru_cache(maxsize=8192)
def _file_digest(path: str, size: int, modified: int, changed: int, inode: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _broad() -> frozenset[str]:
    """Folders that nobody means as a whole."""
    return frozenset({"/", os.path.expanduser("~"), os.path.abspath("/tmp")})
