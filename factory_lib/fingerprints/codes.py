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
from functools import lru_cache
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
_KEPT = bytes(255 if kind == _PLAIN else 0 if kind == _IS_CONSTANT else (1 << kind) - 1 for kind in _KINDS)
"""What of the argument of an operation stays as it is: of the number of a name its flags, which are the lowest bits."""
_ROOTS = _marks(_GLOBALS | _FREE)
_NAMING = _marks({one for one in range(256) if _KINDS[one] != _PLAIN} | _FREE | {_SMALL})
_JUMPING = _marks({*dis.hasjrel, *dis.hasjabs})
_SEES_LOCALS = {"locals", "vars", "eval", "exec"}
_READS_FILES = {"open", "read_text", "read_bytes", "loadtxt", "fromfile", "from_file"}
_READS_ENVIRONMENT = {"environ", "getenv", "environb"}
_READS = _READS_FILES | _READS_ENVIRONMENT


class CodeFacts:
    """What is known of a code object, with the code inside it.

    Attributes:
        digest: of instructions, constants, names and arguments; not of file, lines, docstring and local names.
        references: names looked up outside, each with the attributes that are read from it right away, sorted; those of
            enclosing functions begin with a dot.
        imports: (module, level, names) of every import, sorted.
        names: all global and attribute names.
        inner_names: all names in the code inside: of a module, in its functions and classes.
        texts: string constants.
        reads: (line, what) of instructions that open files or read the environment, sorted.
    """

    digest: str
    references: list[tuple[str, tuple[str, ...]]]
    imports: list[tuple[str, int, tuple[str, ...]]]
    names: frozenset[str]
    inner_names: frozenset[str]
    texts: frozenset[str]
    reads: list[tuple[int, str]]

    def __init__(self, code: types.CodeType) -> None:
        operations, arguments = code.co_code[::2], code.co_code[1::2]
        named = _naming(operations, arguments)
        inner = [facts(constant) for constant in code.co_consts if type(constant) is types.CodeType]
        self.inner_names = frozenset[str]().union(*(one.names for one in inner))
        self.names = self.inner_names.union(code.co_names)
        self.texts = frozenset(_texts(code.co_consts)).union(*(one.texts for one in inner))
        self.imports = sorted(set(_imports(code, operations, named)).union(*(one.imports for one in inner)))
        self.reads = sorted(set(_reads(code, named)).union(*(one.reads for one in inner)))
        own = {f".{name}" for name in code.co_cellvars}
        found = set(_references(code, operations, named)).union(*(one.references for one in inner))
        self.references = sorted(pair for pair in found if pair[0] not in own)
        sees_locals = not _SEES_LOCALS.isdisjoint(self.names)
        self.digest = _digest(code, operations, arguments, named, sees_locals)


@lru_cache(maxsize=32768)
def facts(code: types.CodeType) -> CodeFacts:
    """Take a code object apart, once for each."""
    return CodeFacts(code)


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


def _naming(operations: bytes, arguments: bytes) -> list[Step]:
    """Those of the instructions that name something: a constant, a global, an attribute, a variable outside."""
    marks = operations.translate(_NAMING)
    places, named = itertools.compress(itertools.count(), marks), itertools.compress(operations, marks)
    if _EXTENDED not in operations:
        return list(zip(places, named, itertools.compress(arguments, marks), strict=True))
    return [
        (place, operation, _whole(operations, arguments, place)) for place, operation in zip(places, named, strict=True)
    ]


def _whole(operations: bytes, arguments: bytes, place: int) -> int:
    """The argument of an instruction, with the bytes of it that stand before."""
    argument, before, shift = arguments[place], place - 1, 8
    while before >= 0 and operations[before] == _EXTENDED:
        argument |= arguments[before] << shift
        before, shift = before - 1, shift + 8
    return argument


def _digest(code: types.CodeType, operations: bytes, arguments: bytes, found: list[Step], sees_locals: bool) -> str:
    left_out = _left_out(code, operations, found)
    constants, names, kinds = [_constant(one) for one in code.co_consts], code.co_names, _KINDS
    written = [
        constants[argument] if kind == _IS_CONSTANT else names[argument >> kind]
        for place, operation, argument in found
        if (kind := kinds[operation]) != _PLAIN and place not in left_out
    ]
    plain = _plain(operations, arguments, () if _EXTENDED not in operations else found, left_out)
    table = _handlers(code, left_out) if code.co_exceptiontable else []
    if left_out:
        kept = [place for place in range(len(operations)) if place not in left_out]
        operations, plain = bytes(operations[one] for one in kept), bytes(plain[one] for one in kept)
    count = code.co_argcount + code.co_kwonlyargcount + bool(code.co_flags & 4) + bool(code.co_flags & 8)
    seen = code.co_varnames if sees_locals else code.co_varnames[:count]
    shape = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags & _CALL_FLAGS)
    whole = repr((written, seen, code.co_freevars, code.co_cellvars, shape, table))
    return hashlib.sha256(operations + plain + whole.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _plain(operations: bytes, arguments: bytes, extended: Iterable[Step], left_out: set[int]) -> bytes:
    """The arguments without the numbers of constants and names; `extended` are the steps that may have more bytes of
    them before."""
    kept = int.from_bytes(arguments, "little") & int.from_bytes(operations.translate(_KEPT), "little")
    plain = bytearray(kept.to_bytes(len(arguments), "little"))
    for place, operation, _ in extended:
        before = place - 1
        while before >= 0 and operations[before] == _EXTENDED and _KINDS[operation] != _PLAIN and place not in left_out:
            plain[before], before = 0, before - 1
    return bytes(plain)


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
        if not root and not _ROOTS[operation]:
            before, last = "", place
            continue
        follows = bool(root) and place <= len(operations) and not operations[last + 1 : place].strip(_BESIDES)
        last = place
        if follows and operation in _ATTRIBUTES:
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


def _imports(code: types.CodeType, operations: bytes, named: list[Step]) -> list[tuple[str, int, tuple[str, ...]]]:
    found: list[tuple[str, int, tuple[str, ...]]] = []
    if _IMPORT not in operations:
        return found
    for place, (_, operation, argument) in enumerate(named):
        if operation == _IMPORT:
            given: list[Any] = [
                one[2] if one[1] == _SMALL else code.co_consts[one[2]] for one in named[place - 2 : place]
            ]
            level, names = given
            found.append((code.co_names[argument], int(level or 0), tuple(names or ())))
    return found


def _reads(code: types.CodeType, named: list[Step]) -> list[tuple[int, str]]:
    if _READS.isdisjoint(code.co_names):
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
