"""What a code object says: a digest that formatting does not change, and the names that it takes from outside."""

from __future__ import annotations

import bisect
import dis
import hashlib
import sys
import types
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_EXTENDED, _CACHE = dis.EXTENDED_ARG, dis.opmap.get("CACHE", 0)
_CONSTANTS = frozenset(dis.hasconst)
_LOAD_CONSTANT = dis.opmap["LOAD_CONST"]
_GLOBALS = {dis.opmap[name] for name in ("LOAD_GLOBAL", "LOAD_NAME") if name in dis.opmap}
_FREE = {dis.opmap[name] for name in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE") if name in dis.opmap}
_ATTRIBUTES = {dis.opmap[name] for name in ("LOAD_ATTR", "LOAD_METHOD") if name in dis.opmap}
_IMPORT = dis.opmap["IMPORT_NAME"]
_NOTHING, _JUMPS = dis.opmap["NOP"], frozenset(dis.hasjrel) | frozenset(dis.hasjabs)
_STORE_NAME = dis.opmap["STORE_NAME"]
_DESCRIPTIONS = {"__doc__", "__firstlineno__", "__static_attributes__"}
_CALL_FLAGS = 0x3AC
"""Of the flags of code: variable arguments, generator, coroutine, asynchronous generator."""
_HAS_DOCSTRING = 0x4000000
_PLAIN, _IS_CONSTANT = -1, -2


def _kind(operation: int) -> int:
    """What the argument of an operation is: how many flags are below the number of a name, or one of the two above."""
    name = dis.opname[operation]
    if operation not in dis.hasname:
        return _IS_CONSTANT if operation in _CONSTANTS else _PLAIN
    if name == "LOAD_SUPER_ATTR":
        return 2
    return int(name == "LOAD_GLOBAL" or (sys.version_info >= (3, 12) and name == "LOAD_ATTR"))


_KINDS = [_kind(operation) for operation in range(256)]
_SEES_LOCALS = {"locals", "vars", "eval", "exec"}
_READS_FILES = {"open", "read_text", "read_bytes", "loadtxt", "fromfile", "from_file"}
_READS_ENVIRONMENT = {"environ", "getenv", "environb"}


@dataclass(frozen=True)
class Facts:
    """What is known of a code object, with the code inside it.

    Attributes:
        digest: of instructions, constants, names and arguments; not of file, lines, docstring and local names.
        references: names looked up outside, each with the attributes that are read from it right away; those of
            enclosing functions begin with a dot.
        imports: (module, level, names) of every import.
        names: all global and attribute names.
        texts: string constants.
        reads: (line, what) of instructions that open files or read the environment.
    """

    digest: str
    references: tuple[tuple[str, tuple[str, ...]], ...]
    imports: tuple[tuple[str, int, tuple[str, ...]], ...]
    names: frozenset[str]
    texts: frozenset[str]
    reads: tuple[tuple[int, str], ...]


@lru_cache(maxsize=32768)
def facts(code: types.CodeType) -> Facts:
    """Take a code object apart, once for each."""
    found = steps(code)
    inner = [facts(constant) for constant in code.co_consts if isinstance(constant, types.CodeType)]
    own = {f".{name}" for name in code.co_cellvars}
    references = {pair for one in inner for pair in one.references if pair[0] not in own}
    references |= {pair for pair in _references(code, found) if pair[0] not in own}
    imports = {triple for one in inner for triple in one.imports} | set(_imports(code, found))
    names = frozenset(code.co_names).union(*(one.names for one in inner))
    texts = {one for constant in code.co_consts for one in _texts(constant)}
    return Facts(
        _digest(code, found, names),
        tuple(sorted(references)),
        tuple(sorted(imports)),
        names,
        frozenset(texts).union(*(one.texts for one in inner)),
        tuple(sorted({*_reads(code, found), *(read for one in inner for read in one.reads)})),
    )


Step = tuple[int, int, int]


def steps(code: types.CodeType) -> list[Step]:
    """Offset, operation and whole argument of each instruction."""
    found, above, raw = [], 0, code.co_code
    for offset, operation, argument in zip(range(0, len(raw), 2), raw[::2], raw[1::2], strict=True):
        if operation == _CACHE:
            continue
        if operation == _EXTENDED:
            above = (above | argument) << 8
            continue
        found.append((offset, operation, argument | above))
        above = 0
    return found


def _digest(code: types.CodeType, found: list[Step], names: frozenset[str]) -> str:
    constants = [_constant(one) for one in code.co_consts]
    if _has_docstring(code):
        constants[0] = "NoneType None"
    described = not _DESCRIPTIONS.isdisjoint(code.co_names)
    kept = _without_descriptions(code, found) if described else found
    if _JUMPS.isdisjoint(operation for _, operation, _ in kept):
        kept = [step for step in kept if step[1] != _NOTHING]  # `pass` beside other statements
    written: list[Any] = []
    for _, operation, argument in kept:
        kind = _KINDS[operation]
        if kind == _PLAIN:
            written += (operation, argument)
        elif kind == _IS_CONSTANT:
            written += (operation, constants[argument])
        else:  # the lowest bits are flags
            written += (operation, code.co_names[argument >> kind], argument & ((1 << kind) - 1))
    arguments = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
    seen = code.co_varnames if names & _SEES_LOCALS else code.co_varnames[:arguments]
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _CALL_FLAGS)
    table = _handlers(code, kept) if code.co_exceptiontable else []
    whole = (written, seen, code.co_freevars, code.co_cellvars, shape, table)
    return hashlib.sha256(repr(whole).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _without_descriptions(code: types.CodeType, found: list[Step]) -> list[Step]:
    """Instructions but those that set the docstring or the line of a module or class."""
    kept: list[Step] = []
    for step in found:
        if step[1] == _STORE_NAME and code.co_names[step[2]] in _DESCRIPTIONS:
            if kept and kept[-1][1] in _CONSTANTS:
                kept.pop()
        else:
            kept.append(step)
    return kept


def _handlers(code: types.CodeType, kept: list[Step]) -> list[tuple[int, ...]]:
    """Which instructions, by number, an exception leads to."""
    parsed: list[Any] = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    offsets = [offset for offset, _, _ in kept]
    return [
        (*(bisect.bisect_left(offsets, one) for one in (entry.start, entry.end, entry.target)), entry.depth)
        for entry in parsed
    ]


def _has_docstring(code: types.CodeType) -> bool:
    if sys.version_info >= (3, 13):
        return bool(code.co_flags & _HAS_DOCSTRING)
    # Comprehensions have no docstring: their first constant may be any text.
    return not code.co_name.startswith("<") and bool(code.co_consts) and isinstance(code.co_consts[0], str)


def _constant(value: Any) -> str:
    if isinstance(value, types.CodeType):
        return f"code {facts(value).digest}"
    if isinstance(value, frozenset):
        return f"frozenset {sorted(map(_constant, value))}"
    if isinstance(value, tuple):
        return f"tuple {[_constant(one) for one in value]}"
    return f"{type(value).__name__} {value!r}"


def _texts(constant: Any) -> list[str]:
    if isinstance(constant, str):
        return [constant]
    return [one for one in constant if isinstance(one, str)] if isinstance(constant, tuple | frozenset) else []


def _name_of(code: types.CodeType, operation: int, argument: int) -> str:
    return code.co_names[argument >> _KINDS[operation]]


def _free_name(code: types.CodeType, argument: int) -> str:
    return f".{code._varname_from_oparg(argument)}"  # type: ignore[attr-defined]


def _references(code: types.CodeType, sequence: list[Step]) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    root, before = "", ""
    attributes: list[str] = []
    for place, (_, operation, argument) in enumerate([*sequence, (0, _CACHE, 0)]):
        if root and operation in _ATTRIBUTES:
            attributes.append(_name_of(code, operation, argument))
            continue
        if root:
            if not attributes and before == "getattr" and operation == _LOAD_CONSTANT:
                named = code.co_consts[argument]
                attributes = [named] if isinstance(named, str) else []
            found.append((root, tuple(attributes)))
        before, root, attributes = root, "", []
        if operation in _GLOBALS:
            root = _name_of(code, operation, argument)
        elif operation in _FREE and place < len(sequence):
            root = _free_name(code, argument)
    return found


def _imports(code: types.CodeType, sequence: list[Step]) -> list[tuple[str, int, tuple[str, ...]]]:
    found = []
    for place, (_, operation, argument) in enumerate(sequence):
        if operation == _IMPORT:
            level, names = (code.co_consts[one[2]] for one in sequence[place - 2 : place])
            found.append((code.co_names[argument], int(level or 0), tuple(names or ())))
    return found


def _reads(code: types.CodeType, sequence: list[Step]) -> list[tuple[int, str]]:
    if not (_READS_FILES | _READS_ENVIRONMENT) & set(code.co_names):
        return []
    starts = sorted((start, line) for start, line in dis.findlinestarts(code) if line is not None)
    found = []
    for offset, operation, argument in sequence:
        if operation in _GLOBALS or operation in _ATTRIBUTES:
            name = _name_of(code, operation, argument)
        else:
            continue
        line = next((line for start, line in reversed(starts) if start <= offset), code.co_firstlineno)
        if name in _READS_FILES and (name != "open" or operation in _GLOBALS):  # Image.open may be given bytes
            found.append((line, "opens a file"))
        elif name in _READS_ENVIRONMENT:
            found.append((line, "reads the environment"))
    return found
