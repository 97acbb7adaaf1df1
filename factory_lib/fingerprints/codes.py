"""What a code object says: a digest that formatting does not change, and the names that it takes from outside.

A process takes hundreds of code objects apart for its first value. So instructions are looked at one by one only where
they name something; the others are hashed as they stand.
"""

from __future__ import annotations

import bisect
import dis
import hashlib
import itertools
import sys
import types
from collections.abc import Iterable, Iterator
from functools import cached_property, lru_cache
from typing import Any

_EXTENDED, _CACHE = dis.EXTENDED_ARG, dis.opmap.get("CACHE", 0)
_BESIDES = bytes((_EXTENDED, _CACHE))
"""What may stand between two instructions that follow each other."""
_CONSTANTS = frozenset(dis.hasconst)
_LOAD_CONSTANT = dis.opmap["LOAD_CONST"]
_SMALL = dis.opmap.get("LOAD_SMALL_INT", -1)
_GLOBALS = {dis.opmap[name] for name in ("LOAD_GLOBAL", "LOAD_NAME") if name in dis.opmap}
_FREE = {dis.opmap[name] for name in ("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_CLOSURE") if name in dis.opmap}
_ATTRIBUTES = {dis.opmap[name] for name in ("LOAD_ATTR", "LOAD_METHOD") if name in dis.opmap}
_IMPORT = dis.opmap["IMPORT_NAME"]
_NOTHING, _STORE_NAME = dis.opmap["NOP"], dis.opmap["STORE_NAME"]
_DESCRIPTIONS = {"__doc__", "__firstlineno__", "__static_attributes__"}
_CALL_FLAGS = 0x3AC
"""Of the flags of code: variable arguments, generator, coroutine, asynchronous generator."""
_PLAIN, _IS_CONSTANT = -1, -2


def _kind(operation: int) -> int:
    """What the argument of an operation is: how many flags are below the number of a name, or one of the two above."""
    name = dis.opname[operation]
    if operation not in dis.hasname:
        return _IS_CONSTANT if operation in _CONSTANTS else _PLAIN
    if name == "LOAD_SUPER_ATTR":
        return 2
    return int(name == "LOAD_GLOBAL" or (sys.version_info >= (3, 12) and name == "LOAD_ATTR"))


def _marks(operations: set[int]) -> bytes:
    return bytes(operation in operations for operation in range(256))


_KINDS = [_kind(operation) for operation in range(256)]
_NAMING = _marks({one for one in range(256) if _KINDS[one] != _PLAIN} | _FREE | {_SMALL})
_JUMPING = _marks({*dis.hasjrel, *dis.hasjabs})
_SEES_LOCALS = {"locals", "vars", "eval", "exec"}
_READS_FILES = {"open", "read_text", "read_bytes", "loadtxt", "fromfile", "from_file"}
_READS_ENVIRONMENT = {"environ", "getenv", "environb"}


class Facts:
    """What is known of a code object, with the code inside it: found out when it is asked for, once."""

    def __init__(self, code: types.CodeType) -> None:
        self._code = code
        self._operations, self._arguments = code.co_code[::2], code.co_code[1::2]
        self._naming = list(_naming(self._operations, self._arguments))
        self._inner = [facts(constant) for constant in code.co_consts if type(constant) is types.CodeType]

    @cached_property
    def digest(self) -> str:
        """Of instructions, constants, names and arguments; not of file, lines, docstring and local names."""
        sees_locals = not self.names.isdisjoint(_SEES_LOCALS)
        return _digest(self._code, self._operations, self._arguments, self._naming, sees_locals)

    @cached_property
    def references(self) -> list[tuple[str, tuple[str, ...]]]:
        """Names looked up outside, each with the attributes that are read from it right away, sorted.

        Those of enclosing functions begin with a dot.
        """
        found = set(_references(self._code, self._operations, self._naming))
        found.update(*(one.references for one in self._inner))
        own = {f".{name}" for name in self._code.co_cellvars}
        return sorted(pair for pair in found if pair[0] not in own)

    @cached_property
    def imports(self) -> list[tuple[str, int, tuple[str, ...]]]:
        """(module, level, names) of every import, sorted."""
        return sorted(set(_imports(self._code, self._naming)).union(*(one.imports for one in self._inner)))

    @cached_property
    def names(self) -> frozenset[str]:
        """All global and attribute names."""
        return frozenset(self._code.co_names).union(*(one.names for one in self._inner))

    @property
    def inner_names(self) -> frozenset[str]:
        """All names in the code inside: of a module, in its functions and classes."""
        return frozenset[str]().union(*(one.names for one in self._inner))

    @cached_property
    def texts(self) -> frozenset[str]:
        """String constants."""
        return frozenset(_texts(self._code.co_consts)).union(*(one.texts for one in self._inner))

    @cached_property
    def reads(self) -> list[tuple[int, str]]:
        """(line, what) of instructions that open files or read the environment, sorted."""
        return sorted(set(_reads(self._code, self._naming)).union(*(one.reads for one in self._inner)))


@lru_cache(maxsize=32768)
def facts(code: types.CodeType) -> Facts:
    """Take a code object apart, once for each."""
    return Facts(code)


Step = tuple[int, int, int]


def steps(code: types.CodeType) -> list[Step]:
    """Place, operation and whole argument of each instruction."""
    found, above, raw = [], 0, code.co_code
    for place, (operation, argument) in enumerate(zip(raw[::2], raw[1::2], strict=True)):
        if operation == _CACHE:
            continue
        if operation == _EXTENDED:
            above = (above | argument) << 8
            continue
        found.append((place, operation, argument | above))
        above = 0
    return found


def _naming(operations: bytes, arguments: bytes) -> Iterator[Step]:
    """Those of the instructions that name something: a constant, a global, an attribute, a variable outside."""
    marks = operations.translate(_NAMING)
    place = marks.find(1)
    while place >= 0:
        argument, before, shift = arguments[place], place - 1, 8
        while before >= 0 and operations[before] == _EXTENDED:
            argument |= arguments[before] << shift
            before, shift = before - 1, shift + 8
        yield place, operations[place], argument
        place = marks.find(1, place + 1)


def _digest(code: types.CodeType, operations: bytes, arguments: bytes, found: list[Step], sees_locals: bool) -> str:
    left_out = _left_out(code, operations, found)
    plain, written, extends = bytearray(arguments), [], _EXTENDED in operations
    constants, names = code.co_consts, code.co_names
    for place, operation, argument in found:
        kind = _KINDS[operation]
        if kind == _PLAIN or place in left_out:
            continue
        before = place - 1 if extends else -1
        while before >= 0 and operations[before] == _EXTENDED:
            plain[before], before = 0, before - 1
        if kind == _IS_CONSTANT:
            plain[place] = 0
            written.append(_constant(constants[argument]))
        else:  # the lowest bits are flags
            plain[place] = argument & ((1 << kind) - 1)
            written.append(names[argument >> kind])
    table = _handlers(code, left_out) if code.co_exceptiontable else []
    if left_out:
        kept = [place for place in range(len(operations)) if place not in left_out]
        operations, plain = bytes(operations[one] for one in kept), bytearray(plain[one] for one in kept)
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
    seen = code.co_varnames if sees_locals else code.co_varnames[:count]
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _CALL_FLAGS)
    whole = repr((written, seen, code.co_freevars, code.co_cellvars, shape, table))
    return hashlib.sha256(operations + plain + whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _left_out(code: types.CodeType, operations: bytes, found: list[Step]) -> set[int]:
    """Places of instructions that set the docstring or the line of a module or class, or are `pass` beside others."""
    out: set[int] = set()
    if not _DESCRIPTIONS.isdisjoint(code.co_names):
        for one, after in itertools.pairwise([(-1, 0, 0), *found]):
            if after[1] == _STORE_NAME and code.co_names[after[2]] in _DESCRIPTIONS:
                follows = one[1] in _CONSTANTS and not operations[one[0] + 1 : after[0]].strip(_BESIDES)
                out |= {one[0], after[0]} if follows else {after[0]}
    if _NOTHING in operations and operations.translate(_JUMPING).find(1) < 0:
        out |= {place for place, operation in enumerate(operations) if operation == _NOTHING}
    return out


def _handlers(code: types.CodeType, left_out: set[int]) -> list[tuple[int, ...]]:
    """Which instructions, by number, an exception leads to."""
    parsed: list[Any] = dis._parse_exception_table(code)  # type: ignore[attr-defined]
    out = sorted(left_out)
    return [
        (
            *(one // 2 - bisect.bisect_left(out, one // 2) for one in (entry.start, entry.end, entry.target)),
            entry.depth,
        )
        for entry in parsed
    ]


def _constant(value: Any) -> str:
    kind = type(value)
    if kind is types.CodeType:
        return f"code {facts(value).digest}"
    if kind is frozenset:
        return f"frozenset {sorted(map(_constant, value))}"
    if kind is tuple:
        return f"tuple {[_constant(one) for one in value]}"
    return f"{kind.__name__} {value!r}"


def _texts(constants: Iterable[Any]) -> Iterator[str]:
    """The texts among constants, and those that a tuple or set among them holds."""
    for one in constants:
        if type(one) is str:
            yield one
        elif type(one) in (tuple, frozenset):
            yield from (inner for inner in one if type(inner) is str)


def _name_of(code: types.CodeType, operation: int, argument: int) -> str:
    return code.co_names[argument >> _KINDS[operation]]


def _free_name(code: types.CodeType, argument: int) -> str:
    return f".{code._varname_from_oparg(argument)}"  # type: ignore[attr-defined]


def _references(code: types.CodeType, operations: bytes, named: list[Step]) -> list[tuple[str, tuple[str, ...]]]:
    found: list[tuple[str, tuple[str, ...]]] = []
    root, before, last = "", "", -1
    attributes: list[str] = []
    for place, operation, argument in [*named, (len(operations) + 1, _CACHE, 0)]:
        follows = not operations[last + 1 : place].strip(_BESIDES) and place <= len(operations)
        last = place
        if root and follows and operation in _ATTRIBUTES:
            attributes.append(_name_of(code, operation, argument))
            continue
        if root:
            if follows and not attributes and before == "getattr" and operation == _LOAD_CONSTANT:
                named_so = code.co_consts[argument]
                attributes = [named_so] if isinstance(named_so, str) else []
            found.append((root, tuple(attributes)))
        before, root, attributes = root if follows else "", "", []
        if operation in _GLOBALS:
            root = _name_of(code, operation, argument)
        elif operation in _FREE:
            root = _free_name(code, argument)
    return found


def _imports(code: types.CodeType, named: list[Step]) -> list[tuple[str, int, tuple[str, ...]]]:
    found = []
    for place, (_, operation, argument) in enumerate(named):
        if operation == _IMPORT:
            given: list[Any] = [
                one[2] if one[1] == _SMALL else code.co_consts[one[2]] for one in named[place - 2 : place]
            ]
            level, names = given
            found.append((code.co_names[argument], int(level or 0), tuple(names or ())))
    return found


def _reads(code: types.CodeType, named: list[Step]) -> list[tuple[int, str]]:
    if not (_READS_FILES | _READS_ENVIRONMENT) & set(code.co_names):
        return []
    starts = sorted((start, line) for start, line in dis.findlinestarts(code) if line is not None)
    found = []
    for place, operation, argument in named:
        if operation in _GLOBALS or operation in _ATTRIBUTES:
            name = _name_of(code, operation, argument)
        else:
            continue
        line = next((line for start, line in reversed(starts) if start <= 2 * place), code.co_firstlineno)
        if name in _READS_FILES and (name != "open" or operation in _GLOBALS):  # Image.open may be given bytes
            found.append((line, "opens a file"))
        elif name in _READS_ENVIRONMENT:
            found.append((line, "reads the environment"))
    return found
