"""What is there instead of a file that is not: for the hint of an error."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Sequence

from factory_lib.redaction import redact

_LIKE = 0.7
"""How alike a name must be to be taken for a slip of the pen: of short names many are half alike."""
_NAMED = 8
_REMOTE_STEPS = 4
"""Folders above that are asked for where each costs a request."""


def what_is_there(uri: str, siblings: Callable[[str], Sequence[str]], *, local: bool) -> str:
    """A hint for a path that does not exist: the nearest name in its folder, or the deepest folder that exists.

    Args:
        uri: what does not exist.
        siblings: the names in the folder of a URI; an error or none where there is no such folder.
        local: whether a look costs nothing.

    Returns:
        `"Did you mean 'a.tar'?"`, `"/data is there, and holds a, b, …"`, or an empty string when nothing could be seen.
    """
    missing = uri.rstrip("/")
    steps = missing.count("/") + 1 if local else _REMOTE_STEPS
    for step in range(steps):
        folder, _, name = missing.rpartition("/")
        found: list[str] = []
        with contextlib.suppress(Exception):  # a hint is no reason for another error
            found = sorted(one for one in siblings(missing) if one and not one.startswith("."))
        if name in found:  # a folder without anything, or a file where a folder is meant
            return f"{redact(missing)} is there, and holds nothing of that name."
        if found:
            return _said(folder, name, found, deeper=step > 0)
        if not folder or folder.endswith(("/", ":")):
            break
        missing = folder
    return ""


def _said(folder: str, name: str, found: list[str], *, deeper: bool) -> str:
    near = difflib.get_close_matches(redact(name), found, n=1, cutoff=_LIKE)
    where = f"{redact(folder)}/" if folder.endswith((":", "/")) or not folder else redact(folder)
    if near and not deeper:
        return f"Did you mean {near[0]!r}?"
    if near:
        return f"{where} has no {redact(name)!r}. Did you mean {near[0]!r}?"
    more = f", … ({len(found):,} in all)" if len(found) > _NAMED else ""
    return f"{where} is there, and holds {', '.join(found[:_NAMED])}{more}."
