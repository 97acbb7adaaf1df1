"""Code without source (typed into a shell, made by `exec`, edited since it was loaded): instructions, constants."""

from __future__ import annotations

import dis
import hashlib
import sys
import types
from typing import Any

from factory_lib.signals.references import Reference

_ATTRIBUTE = {"LOAD_ATTR", "LOAD_METHOD"}
_GLOBAL = {"LOAD_GLOBAL", "LOAD_NAME"}


def bytecode_digest(code: types.CodeType) -> str:
    """Digest of a code object, for one minor version of Python: instructions change between those."""
    plain = (sys.version_info[:2], _plain(code))
    return hashlib.sha256(repr(plain).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def global_references(code: types.CodeType) -> list[Reference]:
    """Globals and closure variables that code reads, with the attributes read from them right away; sorted."""
    found = {Reference(name) for name in code.co_freevars}
    pending = [code]
    while pending:
        current = pending.pop()
        pending += [constant for constant in current.co_consts if isinstance(constant, types.CodeType)]
        root = ""
        attributes: tuple[str, ...] = ()
        for step in [*dis.get_instructions(current), None]:
            if step is not None and step.opname in _ATTRIBUTE and root:
                attributes = (*attributes, str(step.argval))
                continue
            if root:
                found.add(Reference(root, attributes))
            root = str(step.argval) if step is not None and step.opname in _GLOBAL else ""
            attributes = ()
    return sorted(found, key=repr)


def _plain(code: types.CodeType) -> Any:
    constants = [_plain(one) if isinstance(one, types.CodeType) else _constant(one) for one in code.co_consts]
    return (code.co_code, constants, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_flags)


def _constant(value: Any) -> Any:
    return ("set", sorted(map(repr, value))) if isinstance(value, frozenset) else (type(value).__name__, repr(value))
