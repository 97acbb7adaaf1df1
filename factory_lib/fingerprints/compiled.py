"""Source files as Python compiles them, and what they say of a module without running it.

Where the interpreter keeps the compiled code beside the source, that is read.
"""

from __future__ import annotations

import dis
import importlib.util
import marshal
import os
import re
import struct
import sys
import types
import zipimport
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from factory_lib.fingerprints.codes import CodeFacts, facts, steps
from factory_lib.fingerprints.files import file_digest

_HEADER = struct.Struct("<4sIII")
_NOTHING = {"RESUME", "EXTENDED_ARG", "CACHE", "NOP", "PRECALL"}
_MAKES_FUNCTION = {"MAKE_FUNCTION", "SET_FUNCTION_ATTRIBUTE"}
_OF_BODIES = {"__doc__", "__module__", "__qualname__", "__slots__", "__annotations__", "__all__"}
_ENDS = {"POP_TOP", "STORE_SUBSCR", "STORE_ATTR", "IMPORT_STAR", "DELETE_NAME", "DELETE_SUBSCR"}
"""Instructions that end a statement."""
_MISSING = object()


class ParsedFile(NamedTuple):
    """What a source file says.

    Attributes:
        facts: of its code.
        code: of the module.
    """

    facts: CodeFacts
    code: types.CodeType


def parsed_file(path: str) -> ParsedFile | None:
    """Take a source file apart; None where it cannot be read or compiled."""
    try:
        return _said(path, file_digest(path))
    except (OSError, SyntaxError, ValueError):
        return None


@lru_cache(maxsize=512)
def _said(path: str, content: str) -> ParsedFile:
    """`content` is the digest of the bytes: it tells one state of the file from another."""
    code = _kept(path) or _compiled(path)
    return ParsedFile(facts(code), code)


def _compiled(path: str) -> types.CodeType:
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def _kept(path: str) -> types.CodeType | None:
    """The code that an import left, where it certainly is of this state of the file."""
    try:
        cache = importlib.util.cache_from_source(path)
        source, written = os.stat(path), os.stat(cache)
        with open(cache, "rb") as file:
            magic, flags, modified, size = _HEADER.unpack(file.read(_HEADER.size))
            state = (importlib.util.MAGIC_NUMBER, 0, int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF)
            if (magic, flags, modified, size) != state or source.st_ctime_ns > written.st_mtime_ns:
                return None
            code = marshal.load(file)
    except (OSError, NotImplementedError, struct.error, ValueError, EOFError, TypeError):
        return None
    return code if isinstance(code, types.CodeType) else None


def parsed_in_archive(path: str) -> ParsedFile | None:
    """Take a module apart that is in a zip archive; None where it cannot be read.

    Args:
        path: `lib.zip/package/module.py`.
    """
    try:
        code = zipimport.zipimporter(os.path.dirname(path)).get_code(os.path.basename(path).rpartition(".")[0])
    except (zipimport.ZipImportError, OSError, SyntaxError, ValueError):
        return None
    return ParsedFile(facts(code), code)


class _Contents(NamedTuple):
    """By dotted name in a module, what is stored there and nowhere else."""

    functions: dict[str, types.CodeType]
    constants: dict[str, Any]
    imported: dict[str, _Imported]


@lru_cache(maxsize=512)
def _gathered(code: types.CodeType) -> _Contents:
    found = _Contents({}, {}, {})
    _gather(code, "", found)
    return found


def _gather(code: types.CodeType, prefix: str, found: _Contents, *, classes: bool = True) -> None:
    """Add what the body of a module or class stores under names, each once: functions without decorator, constants."""
    stored: dict[str, list[Any]] = {}
    before: list[tuple[str, Any]] = []
    source = ("", 0)
    for _, operation, argument in steps(code):
        name = dis.opname[operation]
        if name in {"STORE_NAME", "STORE_GLOBAL"}:
            stored.setdefault(code.co_names[argument], []).append(_stored(before, source))
            before = []
        elif name == "IMPORT_NAME":
            source = code.co_names[argument], int(before[-2][1] or 0)
            before = []
        elif name not in _NOTHING:
            value = code.co_consts[argument] if name == "LOAD_CONST" else None
            before.append((name, code.co_names[argument] if name == "IMPORT_FROM" else value))
    for name, values in stored.items():
        value = values[0]
        if len(values) != 1 or value is None or name in _OF_BODIES:
            continue
        if isinstance(value, _ClassBody):
            if classes:
                _gather(value.code, f"{prefix}{name}.", found)
        elif isinstance(value, types.CodeType):
            found.functions[prefix + name] = value
        elif isinstance(value, _Imported):
            found.imported[prefix + name] = value
        else:
            found.constants[prefix + name] = value.value


class _Imported(NamedTuple):
    """A name that was taken from another module."""

    module: str
    level: int
    name: str

    def home(self, importer: types.ModuleType) -> str:
        """Dotted name of that module."""
        if not self.level:
            return self.module
        package = str(vars(importer).get("__package__") or "").split(".")
        return ".".join([*package[: len(package) - self.level + 1], *([self.module] if self.module else [])])


class _ClassBody(NamedTuple):
    """The body of a class."""

    code: types.CodeType


class _Constant(NamedTuple):
    """A constant."""

    value: Any


def _stored(before: list[tuple[str, Any]], source: tuple[str, int]) -> Any:
    """What instructions leave to be stored: the body of a class, code of a function, an imported name, a constant, or
    None."""
    if not before:
        return None
    last, constant = before[-1]
    if last == "IMPORT_FROM":
        return _Imported(*source, constant)
    if last == "LOAD_CONST":
        return _Constant(constant) if len(before) == 1 or before[-2][0] in _ENDS else None
    makes_class = last.startswith("CALL") and any(name == "LOAD_BUILD_CLASS" for name, _ in before)
    if not makes_class and last not in _MAKES_FUNCTION:
        return None
    code = next((one for _, one in reversed(before) if isinstance(one, types.CodeType)), None)
    return _ClassBody(code) if makes_class and code is not None else code


def told(what: ParsedFile) -> Collection[str]:
    """Dotted names of which a file says what they are: constants, functions without decorator, imported names.

    Of None it does not say what takes its place.
    """
    file = _gathered(what.code)
    constants = (name for name, value in file.constants.items() if value is not None)
    return {*file.functions, *constants, *file.imported}


def changes(module: types.ModuleType, what: ParsedFile) -> dict[str, Any]:
    """What of a loaded module is not what its file says: it was patched, configured, or the file edited since.

    Of names that are made by a computation, or are not there, nothing can be told.

    Returns:
        Dotted name in the module -> what it is now.
    """
    file = _gathered(what.code)
    found = {}
    for name, code in file.functions.items():
        live = _looked_up(module, name)
        function = getattr(live, "__func__", live)
        if type(function) is not types.FunctionType or facts(function.__code__).digest != facts(code).digest:
            found[name] = live
    for name, constant in file.constants.items():
        live = _looked_up(module, name)
        if (type(live), repr(live)) != (type(constant), repr(constant)):
            found[name] = live
    for name, one in file.imported.items():
        home, live = sys.modules.get(one.home(module)), _looked_up(module, name)
        given = _MISSING if home is None else _looked_up(home, one.name)
        if given is not _MISSING and given is not live:
            found[name] = live
    there = {name: live for name, live in found.items() if live is not _MISSING}
    return {name: live for name, live in there.items() if _tells(name, live, file.constants.get(name, _MISSING))}


def differs(module: types.ModuleType, name: str, value: Any) -> bool:
    """Whether a constant of a loaded module is not what its file says; False where the file says nothing of it."""
    path = vars(module).get("__file__")
    if not isinstance(path, str) or not path.endswith(".py"):
        return False
    try:
        modified = os.stat(path).st_mtime_ns
        if not _may_store(path, modified, name):
            return False
        constant = _constants(path, modified).get(name, _MISSING)
    except OSError:
        return False
    return constant is not _MISSING and (type(value), repr(value)) != (type(constant), repr(constant))


def constants_set(module: types.ModuleType) -> list[str]:
    """The constants, by convention in capitals, of a loaded module that are not what its file says, sorted."""
    path = vars(module).get("__file__")
    if not isinstance(path, str) or not path.endswith(".py"):
        return []
    try:
        constants = _constants(path, os.stat(path).st_mtime_ns)
    except OSError:
        return []
    live = {
        name: vars(module).get(name, value) for name, value in constants.items() if name.isupper() and name[0] != "_"
    }
    return sorted(n for n, v in live.items() if (type(v), repr(v)) != (type(constants[n]), repr(constants[n])))


@lru_cache(maxsize=512)
def _may_store(path: str, modified: int, name: str) -> bool:
    """Whether a file has the text of `name = …` in it: quicker to tell than what it stores."""
    with open(path, "rb") as file:
        source = file.read()
    return not source.isascii() or re.search(rb"\b%b[\s\\)]*[=:]" % name.encode(), source) is not None


@lru_cache(maxsize=512)
def _constants(path: str, modified: int) -> Mapping[str, Any]:
    """What a file that was imported before stores as constants; `modified` tells one state of it from another."""
    code, found = _kept(path), _Contents({}, {}, {})
    if code is not None:
        _gather(code, "", found, classes=False)
    return found.constants


def _looked_up(module: types.ModuleType, name: str) -> Any:
    found: Any = module
    for part in name.split("."):
        found = vars(found).get(part, _MISSING) if isinstance(found, types.ModuleType | type) else _MISSING
    return found


def _tells(name: str, live: Any, constant: Any) -> bool:
    """Whether a difference is somebody's doing: not what classes make of their fields, nor a model loaded on use."""
    plain = isinstance(live, bool | int | float | complex | str | bytes | tuple | list | dict | set | type(None))
    code = isinstance(live, types.FunctionType | types.BuiltinFunctionType | type)
    if "." in name and constant is not _MISSING:
        return plain and type(live) is type(constant)
    return constant is not None or code or (plain and live is not None)
