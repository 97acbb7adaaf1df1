"""What code looks at of functions and classes besides what they do: docstrings, annotations, source, subclasses.

It counts only where some code that is followed asks for it.
"""

from __future__ import annotations

import inspect
import linecache
import os
import types
from collections.abc import Collection, Mapping
from typing import Any

_NAMES = {
    "docs": {"__doc__", "getdoc"},
    "annotations": {
        "__annotations__", "get_type_hints", "get_annotations", "signature", "getfullargspec", "fields", "model_fields",
        "__dataclass_fields__",
    },
    "source": {"getsource", "getsourcelines", "findsource"},
    "subclasses": {"__subclasses__"},
}  # fmt: skip
"""What is looked at -> names in code that do so."""
_ALL_NAMES = frozenset[str]().union(*_NAMES.values())


def looked_at(names: Collection[str]) -> set[str]:
    """What of functions and classes code of these names looks at: "docs", "annotations", "source", "subclasses"."""
    if _ALL_NAMES.isdisjoint(names):
        return set()
    return {what for what, asking in _NAMES.items() if not asking.isdisjoint(names)}


def annotations_of(kind: type) -> dict[str, Any]:
    """The annotations of a class itself, and the metadata that fields of a dataclass were given."""
    fields: Mapping[str, Any] = vars(kind).get("__dataclass_fields__", {})
    given = {f"{name}.metadata": dict(field.metadata) for name, field in fields.items() if field.metadata}
    annotations = vars(kind).get("__annotations__")
    return {**(annotations if isinstance(annotations, dict) else {}), **given}


def lines_of(value: Any) -> dict[str, list[str]]:
    """The lines of what a function was compiled from, by its name, where that is no file: a cell of a notebook."""
    code = getattr(value, "__code__", None)
    if not isinstance(code, types.CodeType) or os.path.exists(code.co_filename):
        return {}
    lines = linecache.getlines(code.co_filename)
    return {code.co_filename: lines} if lines else {}


def source_of(value: Any) -> str:
    """The source text of a function or class; "" where there is none."""
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return ""
