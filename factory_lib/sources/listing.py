"""The files of a source, with account of those that cannot be read as files.

A source is a file or a folder; or several of them, by a pattern (`{000..012}`, `{train,test}`, `*`) or a text file that
lists them, a line each.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product

from factory_lib.errors import FileMissing, SourceError
from factory_lib.redaction import redact
from factory_lib.sources.account import Account, extension_of
from factory_lib.storage.files import path_of
from factory_lib.storage.store import FileInfo, is_local, store

LIST_SUFFIXES = (".txt", ".list", ".lst", ".urls")
MAX_NAMES = 1_000_000
"""Names that a pattern stands for, or that a list has, at most."""
_LIST_BYTES = 64 * 2**20
_AT_ONCE = 16
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?|([A-Za-z])\.\.([A-Za-z])")


def listed(uri: str, account: Account) -> tuple[str, list[FileInfo]]:
    """The folder (or file) that files are named from, and all files of a source.

    Raises:
        FileMissing: nothing is there.
        SourceError: a pattern or list stands for too many names.
    """
    named = addresses(uri)
    if named == [uri]:
        return uri, list_files(uri, account)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(_list_one, named))
    every: dict[str, FileInfo] = {}
    for one, files in zip(named, found, strict=True):
        if isinstance(files, FileMissing):
            account.leave_out("files", extension_of(one), one, "does not exist")
        else:
            every |= {file.uri: file for file in _readable(one, *files, account)}
    if not every:
        missing = [error for error in found if isinstance(error, FileMissing)]
        raise missing[0] if missing else FileMissing(f"{redact(uri)} stands for no file.")
    folders = [uri.rsplit("/", 1)[0] for uri in every]
    root = os.path.commonpath(folders) if is_local(folders[0]) else _common(folders)
    return root, sorted(every.values(), key=lambda file: file.uri)


def list_files(uri: str, account: Account) -> list[FileInfo]:
    """All files below a folder, or the file itself; what is there and is no readable file stands in the account.

    Raises:
        FileMissing: nothing is there.
    """
    odd: dict[str, str] = {}
    return _readable(uri, store().list(uri, odd=odd), odd, account)


def visible(uri: str, files: Sequence[FileInfo]) -> list[FileInfo]:
    """Those that are not hidden."""
    root = path_of(uri)
    return [file for file in files if not any(part.startswith(".") for part in file.path.removeprefix(root).split("/"))]


def addresses(uri: str) -> list[str]:
    """The files and folders that a URI stands for: itself, those of a pattern, or those that a file lists.

    Raises:
        SourceError: they are too many.
    """
    if is_local(uri) and os.path.exists(uri) and not uri.lower().endswith(LIST_SUFFIXES):
        return [uri]  # whatever is in its name
    names = [uri]
    if _BRACES.search(uri):
        names = [store().resolve(name) for name in expanded(uri)]
    names = [name for one in names for name in (_matching(one) if "*" in one else (one,))]
    if len(names) == 1 and names[0].lower().endswith(LIST_SUFFIXES):
        return _lines(names[0]) or names
    return names


def expanded(pattern: str) -> Iterator[str]:
    """What the braces of a pattern stand for: ranges of numbers or letters, or alternatives.

    Raises:
        SourceError: more than `MAX_NAMES`.
    """
    parts = _BRACES.split(pattern)
    choices = [_choices(part) if number % 2 else [part] for number, part in enumerate(parts)]
    total = 1
    for some in choices:
        total *= len(some)
    if total > MAX_NAMES:
        raise SourceError(f"{redact(pattern)} stands for {total} names; {MAX_NAMES} are the most.")
    for chosen in product(*choices):
        name = "".join(chosen)
        if name != pattern and _BRACES.search(name):  # braces within braces
            yield from expanded(name)
        else:
            yield name


def _choices(inside: str) -> Sequence[str]:
    found = _RANGE.fullmatch(inside)
    if found is None:
        return inside.split(",") if "," in inside else ["{" + inside + "}"]
    first, last, step, one, other = found.groups()
    if one is not None:
        low, high = ord(one), ord(other)
        return [chr(code) for code in range(low, high + (1 if high >= low else -1), 1 if high >= low else -1)]
    low, high = int(first), int(last)
    width = max(len(first), len(last)) if re.match(r"-?0\d", first) or re.match(r"-?0\d", last) else 0
    by = abs(int(step)) if step and int(step) else 1
    if abs(high - low) // by >= MAX_NAMES:
        raise SourceError(f"{{{inside}}} stands for more than {MAX_NAMES} names.")
    return [
        f"{number:0{width}d}" for number in range(low, high + (1 if high >= low else -1), by if high >= low else -by)
    ]


def _matching(pattern: str) -> list[str]:
    """Files below a folder whose names match; `*` stops at a slash, `**` does not."""
    folder = pattern[: pattern.index("*")].rsplit("/", 1)[0]
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    rule = "".join(words.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*)", pattern))
    return [file.uri for file in store().list(folder) if re.fullmatch(rule, file.uri)]


def _lines(uri: str) -> list[str]:
    """The files that a text file lists; none where it is a text of another kind, or no file."""
    try:
        about = store().info(uri)
    except (FileMissing, OSError):
        return []
    if about.size > _LIST_BYTES:
        return []
    text = store().read(uri, etag=about.etag or None).decode("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not lines or not all("/" in line or re.search(r"\.\w{2,8}$", line) for line in lines) or " " in lines[0]:
        return []
    if len(lines) > MAX_NAMES:
        raise SourceError(f"{redact(uri)} lists {len(lines)} files; {MAX_NAMES} are the most.")
    folder = uri.rsplit("/", 1)[0]
    names = [line if "://" in line or line.startswith(("/", "~")) else f"{folder}/{line}" for line in lines]
    return [store().resolve(one) for name in names for one in expanded(name)]


def _list_one(uri: str) -> tuple[list[FileInfo], dict[str, str]] | FileMissing:
    odd: dict[str, str] = {}
    try:
        return store().list(uri, odd=odd), odd
    except FileMissing as error:
        return error


def _readable(uri: str, files: Sequence[FileInfo], odd: dict[str, str], account: Account) -> list[FileInfo]:
    """Those whose names are text; the others, and what is no file, stand in the account."""
    kept = []
    for file in files:
        try:
            file.uri.encode()
        except UnicodeEncodeError:
            odd[file.uri] = "its name is not UTF-8: rename it"
        else:
            kept.append(file)
    for path, reason in sorted(odd.items()):
        account.leave_out("files", extension_of(path), path_of(path).removeprefix(path_of(uri)).lstrip("/"), reason)
    return kept


def _common(folders: Sequence[str]) -> str:
    """The longest folder that all are in; empty for none."""
    parts = [folder.split("/") for folder in folders]
    shared = []
    for some in zip(*parts, strict=False):
        if len(set(some)) > 1:
            break
        shared.append(some[0])
    return "/".join(shared) if len(shared) > 2 else ""  # a scheme alone is no folder
