"""Modules that functions import when they run: not imported to be looked at, but followed through their source.

All of such a module counts, and what it imports: coarser than live objects, so that an unrelated edit there computes
again, and nothing is missed.
"""

from __future__ import annotations

import ast
import hashlib
import os
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from factory_lib.fingerprints.files import file_digest
from factory_lib.fingerprints.places import distribution, is_module, place_of

_LAYOUT = {"ctx", "type_comment", "kind", "type_ignores", "type_params"}
Import = tuple[str, int, tuple[str, ...]]


class Sources:
    """Adds the modules that imports lead to as components.

    Args:
        found: dotted name -> short hash; added to.
        counts_for_nothing: whether a module is left out.
    """

    def __init__(self, found: dict[str, str], counts_for_nothing: Callable[[str], bool]) -> None:
        self._found = found
        self._skips = counts_for_nothing
        self._seen: set[str] = set()

    def imported(self, one: Import, package: str) -> None:
        """Follow an import.

        Args:
            one: module as written, leading dots, names taken from it.
            package: the package that relative imports start from.
        """
        name, level, names = one
        if level:
            parts = package.split(".")
            name = ".".join([*parts[: len(parts) - level + 1], *([name] if name else [])])
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            self._module(".".join(parts[:end]))
        for inner in names:
            if place_of(name).folders and is_module(f"{name}.{inner}"):
                self._module(f"{name}.{inner}")

    def _module(self, name: str) -> None:
        if not name or name in self._seen or self._skips(name):
            return
        self._seen.add(name)
        place = place_of(name)
        if place.owner == "installed":
            self.package(name)
        if place.owner != "own" or place.path is None:
            return
        if not place.path.endswith(".py"):
            self._found[f"{name} (module)"] = file_digest(place.path)[:16] if os.path.isfile(place.path) else "none"
            return
        digest, imports = _parsed(place.path, file_digest(place.path)) if os.path.isfile(place.path) else ("none", ())
        self._found[f"{name} (module)"] = digest
        for one in imports:
            self.imported(one, name if place.folders else name.rpartition(".")[0])

    def package(self, module: str) -> None:
        """The version of the distribution that a module was installed with."""
        place = place_of(module)
        where = place.path or (place.folders[0] if place.folders else "")
        named = distribution(where, module.partition(".")[0]) if where else None
        if named is not None:
            self._found[f"package:{named[0]}"] = named[1]


@lru_cache(maxsize=512)
def _parsed(path: str, content: str) -> tuple[str, tuple[Import, ...]]:
    """Digest of a source file as it counts, and its imports; `content` is the digest of its bytes."""
    with open(path, "rb") as file:
        text = file.read()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return content[:16], ()
    plain = repr(_plain(tree)).encode("utf-8", "surrogatepass")
    return hashlib.sha256(plain).hexdigest()[:16], tuple(sorted(set(_imports(tree))))


def _imports(tree: ast.AST) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.level, tuple(alias.name for alias in node.names)


def _plain(node: Any) -> Any:
    """A syntax tree as nested tuples, without docstrings, formatting and no-ops."""
    if isinstance(node, ast.Constant):
        return ("Constant", type(node.value).__name__, repr(node.value))
    if isinstance(node, ast.AST):
        fields = [(name, _plain(getattr(node, name, None))) for name in node._fields if name not in _LAYOUT]
        return (type(node).__name__, *((name, value) for name, value in fields if value not in (None, ())))
    if isinstance(node, list):
        return tuple(_plain(item) for item in node if not _is_nothing(item))
    return node


def _is_nothing(node: Any) -> bool:
    """Docstrings and other strings that stand alone, and `pass`."""
    if isinstance(node, ast.Pass):
        return True
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
