"""Values as they count: any object hashed in a way that is the same in every process.

Numbers, text and containers count by value, sets in the order of their elements' hashes, arrays by type, shape and
bytes, files that a path names by content, functions and classes as components of their own; everything else is taken
apart as Python's own protocols do it (`copyreg`, `__reduce_ex__`). What cannot be taken apart is said to be opaque.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import functools
import gc
import hashlib
import marshal
import os
import pathlib
import re
import struct
import sys
import threading
import types
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Protocol

from factory_lib.fingerprints.codes import facts
from factory_lib.fingerprints.files import content
from factory_lib.fingerprints.holders import holder
from factory_lib.fingerprints.parts import with_attributes

ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented)})
_CACHED: Any = type(functools.lru_cache(len))
MADE_OF: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    struct.Struct: lambda value: (struct.Struct, (value.format,)),
    memoryview: lambda value: (memoryview, (value.tobytes(),)),
    types.MappingProxyType: lambda value: (types.MappingProxyType, (dict(value),)),
}
"""How objects that Python does not take apart are made: a callable and its arguments."""
_DEFAULTS: tuple[Any, ...] = (vars(copyreg)["__newobj__"], vars(copyreg)["_reconstructor"])
"""What makes an object that does not say how it is made."""
_READABLE = 24
_MANY = 64
"""Longer containers of atoms alone are hashed at once, and not asked for files."""
_SMALL = 2**16
"""Bytes of an array up to which the hash that is there is quick enough."""
_MARSHALLED = frozenset({bool, int, float, str, bytes, type(None)})
_OF_WRAPPERS = {"__doc__", "__annotations__", "__module__", "__qualname__", "__name__"}
_LIKE_A_FILE = re.compile(r"[^\0\n\r]{0,512}(/[^\0\n\r]{0,255}|\.\w{1,16})")
_OF_PROCESSES = {
    "PATH", "HOME", "PWD", "OLDPWD", "SHLVL", "_", "TERM", "USER", "USERNAME", "LOGNAME", "SHELL", "HOSTNAME", "HOST",
    "TMPDIR", "DISPLAY", "LS_COLORS", "COLUMNS", "LINES", "MAIL",
}  # fmt: skip
_OF_TOOLS = (
    "PYTHON", "FACTORY_", "DAGSTER_", "XDG_", "SSH_", "VIRTUAL_ENV", "CONDA_", "LC_", "OMP_", "MKL_", "OPENBLAS_",
    "CUDA_VISIBLE", "KMP_", "LD_", "PYTEST_", "JPY_", "IPY", "VSCODE_", "SLURM_", "KUBERNETES_", "GIT_", "NVIDIA_",
    "SYSTEMD_", "DBUS_", "TERM_", "INVOCATION_ID", "JOURNAL_STREAM",
)  # fmt: skip
"""Variables of the environment, and how others begin, that differ from process to process."""
_CODE = (
    types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.ModuleType, types.MethodWrapperType,
    types.MethodDescriptorType, types.WrapperDescriptorType, types.ClassMethodDescriptorType,
    types.GetSetDescriptorType, types.MemberDescriptorType,
)  # fmt: skip


class Refer(Protocol):
    """Follows code: a function, class or module; returns the text that stands for it."""

    def __call__(self, value: Any, path: str) -> str: ...


class Values:
    """Hashes values.

    Args:
        refer: called with each function, class and module met, and a path to it.
        opaque: called with a path and an object that cannot be taken apart.
        isolated: hash of a value by itself, for sets: what it refers to must not be named by the order of the set.
        holds: called with a path and an object of which only the kind counts.

    Attributes:
        names: texts that may name what is used of a folder that a path names.
        written: names of variables and attributes; files and folders that these name are written to by the code itself,
            and do not count by content.
        files: how many values stood for the content of files.
    """

    def __init__(
        self,
        refer: Refer,
        opaque: Callable[[str, Any], None],
        isolated: Callable[[Any, str], str],
        holds: Callable[[str, Any], None],
    ) -> None:
        self._refer, self._opaque, self._isolated, self._holds = refer, opaque, isolated, holds
        self._under_way: dict[int, int] = {}
        self._known: dict[int, tuple[Any, str]] = {}
        self._cycles = 0
        self.names: Collection[str] = ()
        self.written: Collection[str] = ()
        self.files = 0

    def digest(self, value: Any, path: str) -> str:
        """Short digest of a value; small numbers as they are, so that a difference can be read."""
        if value is None or (type(value) in (bool, int, float) and len(repr(value)) <= _READABLE):
            return repr(value)
        return hashlib.sha256(self.text(value, path).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def text(self, value: Any, path: str) -> str:
        """A short text that is equal for equal values."""
        kind = type(value)
        if kind is str:
            return f"str {self._located(value, value, False, path)}"
        if kind is bytes and len(value) > _SMALL:
            return f"bytes {_hash(value)}"
        if kind in ATOMS:
            return f"{kind.__name__} {value!r}"
        number = id(value)
        if number in self._known:
            return self._known[number][1]
        if number in self._under_way:
            self._cycles += 1
            return f"cycle {len(self._under_way) - self._under_way[number]}"
        self._under_way[number] = len(self._under_way)
        cycles, files = self._cycles, self.files
        try:
            written = self._composed(value, path)
        except RecursionError:
            self._opaque(path, value)
            written = f"opaque:{type_name(value)}"
        finally:
            del self._under_way[number]
        if len(written) > 80:
            written = hashlib.sha256(written.encode("utf-8", "surrogatepass")).hexdigest()
        if (cycles, files) == (self._cycles, self.files) and not isinstance(value, pathlib.PurePath):
            self._known[number] = (value, written)
        return written

    def _composed(self, value: Any, path: str) -> str:
        kind = type(value)
        if kind in _CODE or (isinstance(value, type) and issubclass(kind, type)):
            return f"code {self._refer(value, path)}"
        if kind in (list, tuple):
            return self._sequence(value, path)
        if kind in (dict, types.MappingProxyType):
            if "PATH" in value and "HOME" in value:  # a copy of the environment
                return f"environment {_of_environment(value)}"
            return f"dict {self._pairs(value, path)}"
        if kind in (set, frozenset):
            return self._set(value, path)
        hook = declared_by(kind, "__fingerprint__")
        if hook is not None:
            return f"declared {self._refer(kind, path)} {self.text(hook(value), path)}"
        if issubclass(kind, pathlib.PurePath):
            own = "" if kind.__module__ == "pathlib" else f"{self._refer(kind, path)} "
            return f"path {own}{self._located(os.fspath(value), value.name, True, path)}"
        if issubclass(kind, enum.Enum):
            return f"enum {self._refer(kind, path)} {value._name_} {self.text(with_attributes(value), path)}"
        return self._made_of_parts(value, path)

    def _made_of_parts(self, value: Any, path: str) -> str:
        kind = type(value)
        if kind in (staticmethod, classmethod):
            return f"{kind.__name__} {self.text(value.__func__, path)}"
        if kind is property:
            parts = [self.text(one, f"{path}.{name}") for name, one in _accessors(value) if one is not None]
            return f"property {parts}"
        array = _array(value)
        if array is not None:
            return array if isinstance(array, str) else f"objects {value.shape} {self.text(array, path)}"
        if kind is types.CellType:
            return f"cell {self.text(value.cell_contents, path)}"
        if kind is types.CodeType:
            return f"code {facts(value).digest}"
        if kind is dataclasses.Field:  # its type is an annotation
            given = (value.name, value.default, value.default_factory, value.init, value.compare, value.kw_only)
            return f"field {self.text(given, path)}"
        if issubclass(kind, threading.local):
            return f"local {self._refer(kind, path)} {self.state(kind, vars(value), path)}"
        nothing = holder(value)
        if nothing is not None:
            self._holds(path, value)
            return f"{nothing.name} {self.text(nothing.held, path)}" if nothing.holds else f"kind {nothing.name}"
        return self._object(value, path)

    def _object(self, value: Any, path: str) -> str:
        kind = type(value)
        if kind is _CACHED:
            return f"cached {self.text(value.__wrapped__, path)}"
        if kind.__name__ == "ufunc":
            inner = [one for one in gc.get_referents(value) if isinstance(one, types.FunctionType)]
            return f"ufunc {value.__name__} {value.nin} {value.nout} {[self.text(one, path) for one in inner]}"
        if dataclasses.is_dataclass(value) and "__getstate__" not in vars(kind):
            fields = [field.name for field in dataclasses.fields(value) if field.compare]
            state: dict[str, Any] = {name: getattr(value, name) for name in fields if hasattr(value, name)}
            declared = {field.name for field in dataclasses.fields(value)}
            state |= {n: v for n, v in getattr(value, "__dict__", {}).items() if n not in declared}
            return f"object {self._refer(kind, path)} {self.state(kind, state, path)}"
        if issubclass(kind, set | frozenset) and kind.__reduce__ in (set.__reduce__, frozenset.__reduce__):
            more = self.state(kind, _own_dict(value), path)
            return f"object {self._refer(kind, path)} {self._set(value, path)} {more}"
        registered = MADE_OF.get(kind) or copyreg.dispatch_table.get(kind)
        try:
            parts: Any = registered(value) if registered else value.__reduce_ex__(4)
        except Exception:
            return self._wrapper(value, path)
        if isinstance(parts, str):
            return f"named {self._refer(kind, path)} {kind.__module__}.{parts}"
        make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        written = [f"object {self._refer(kind, path)} {self.text(make, path)}"]
        written += [self.text(one, path) for one in arguments]
        if make in _DEFAULTS:
            given: Any = state
            whole: tuple[Any, ...] = given if type(given) is tuple else (given,)
            written += [
                self.state(kind, one or {}, path) if isinstance(one, dict | None) else self.text(one, path)
                for one in whole
            ]
        else:
            written.append(self.text(state, path))
        written += [self.text(one, f"{path}[{place}]") for place, one in enumerate(items or ())]
        written += [self._pairs(dict(pairs), path)] if pairs is not None else []
        if _is_array(value):  # arrays leave their attributes out
            written.append(self.state(kind, _own_dict(value), path))
        return " ".join(written)

    def state(self, kind: type, state: Mapping[str, Any], path: str) -> str:
        """Attributes of an object, by name; not those that only remember what a cached property gave."""
        kept = ((n, _hooks(v) if "_hooks" in n else v) for n, v in kept_state(kind, state))
        return " ".join(f"{n}={self.text(v, f'{path}.{n}')}" for n, v in kept)

    def _wrapper(self, value: Any, path: str) -> str:
        """An object that hides behind what it wraps (wrapt), or one that cannot be taken apart."""
        try:
            inner = object.__getattribute__(value, "__wrapped__")
        except Exception:
            return self._by_attributes(value, path)
        names = [n for n in dir(type(value)) if n.startswith("_self_") and n != "_self_parent"]
        given = [(n, getattr(value, n, None)) for n in names]
        more = [(n, v) for n, v in sorted(_own_dict(value).items()) if n.startswith("_self_")]
        parts = [f"{n}={self.text(v, f'{path}.{n}')}" for n, v in given + more if not isinstance(v, types.MethodType)]
        return f"wrapper {type_name(value)} {self.text(inner, path)} {parts}"

    def _by_attributes(self, value: Any, path: str) -> str:
        """An object that refuses to be taken apart: its attributes, or for what is compiled by torch its code."""
        kind = type(value)
        code = getattr(value, "code", None) if kind.__module__.startswith("torch.") else None
        if type(code) is str:
            self._holds(path, value)
            return f"compiled {code} {self.text(getattr(value, 'state_dict', dict)(), path)}"
        if not (given := _own_dict(value)):
            self._opaque(path, value)
            inner = [one for one in gc.get_referents(value) if isinstance(one, types.FunctionType | functools.partial)]
            return f"opaque:{type_name(value)} {[self.text(one, path) for one in inner]}"
        self._holds(path, value)
        return f"object {self._refer(kind, path)} {self.state(kind, given, path)}"

    def _set(self, value: set[Any] | frozenset[Any], path: str) -> str:
        return f"{type(value).__name__} {sorted(self._isolated(item, path) for item in value)}"

    def _sequence(self, value: list[Any] | tuple[Any, ...], path: str) -> str:
        name = type(value).__name__
        if len(value) > _MANY and set(map(type, value)) <= _MARSHALLED:
            return f"{name} {hashlib.sha256(marshal.dumps(value, 2)).hexdigest()}"
        return f"{name} {[self.text(item, f'{path}[{place}]') for place, item in enumerate(value)]}"

    def _pairs(self, mapping: Mapping[Any, Any], path: str) -> str:
        if len(mapping) > _MANY and {*map(type, mapping), *map(type, mapping.values())} <= _MARSHALLED:
            return hashlib.sha256(marshal.dumps(dict(mapping), 2)).hexdigest()
        written: Iterable[str] = (
            f"{self.text(key, path)}: {self.text(item, f'{path}[{key if isinstance(key, str) else repr(key)[:40]}]')}"
            for key, item in mapping.items()
        )
        return "{" + ", ".join(written) + "}"

    def _located(self, text: str, name: str, moves: bool, path: str) -> str:
        """A text, or what stands under the path that it is.

        Args:
            text: any text.
            name: what it counts as where nothing stands there.
            moves: a path, whatever it looks like; so is any text that begins at the root.
            path: to the text.
        """
        if self.written and path.rpartition(".")[2] in self.written:
            return repr(os.path.basename(text))
        absolute = os.path.isabs(text)
        if 0 < len(text) <= 1024 and (moves or absolute or text.isidentifier() or _LIKE_A_FILE.fullmatch(text)):
            found = content(os.path.expanduser(text), self.names) if "\0" not in text else None
            if found is not None:
                self.files += 1
                return found if absolute else f"{text!r} {found}"
        if absolute and "/" in text[1:] and _is_below_a_root(text):
            return repr(os.path.basename(text))
        return repr(text) if name == text or not absolute else repr(name)


def declared_by(kind: type, name: str) -> Any:
    """What a class or one of its bases says under a name; a metaclass or `__getattr__` is not asked."""
    return next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)


def kept_state(kind: type, state: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The attributes of an object that count, sorted."""
    remembered = {
        name
        for base in kind.__mro__
        for name, member in vars(base).items()
        if type(member).__name__ == "cached_property"
    }
    if kind.__module__.startswith("pydantic."):
        remembered.add("cls_ref")  # the id() of a class is in it
    return sorted((n, v) for n, v in state.items() if n not in remembered and n not in _OF_WRAPPERS)


def type_name(value: Any) -> str:
    """Module and name of the type of a value."""
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _is_below_a_root(text: str) -> bool:
    roots = [root for root in map(os.path.abspath, (*filter(None, sys.path), os.getcwd())) if root != "/"]
    return any(text == root or text.startswith(root + os.sep) or root.startswith(text + os.sep) for root in roots)


def _hooks(value: Any) -> Any:
    """The hooks of a torch module without their numbers, which say how many there were before in the process."""
    numbered = isinstance(value, dict) and all(type(key) is int for key in value)
    return [*value.values()] if numbered else value


def _of_environment(variables: Mapping[Any, Any]) -> str:
    kept = sorted((str(name), repr(value)) for name, value in variables.items() if not _of_process(str(name)))
    return hashlib.sha256(repr(kept).encode("utf-8", "surrogatepass")).hexdigest()


def _of_process(variable: str) -> bool:
    return variable in _OF_PROCESSES or variable.startswith(_OF_TOOLS)


def _own_dict(value: Any) -> dict[str, Any]:
    try:
        found: dict[str, Any] = object.__getattribute__(value, "__dict__")
    except Exception:
        return {}
    return found if isinstance(found, dict) else {}


def _accessors(value: property) -> list[tuple[str, Any]]:
    return [("fget", value.fget), ("fset", value.fset), ("fdel", value.fdel)]


def _is_array(value: Any) -> bool:
    numpy: Any = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _array(given: Any) -> Any:
    """Type, shape and digest of the bytes of an array, scalar or tensor; a list for arrays of objects."""
    numpy: Any = sys.modules.get("numpy")
    torch: Any = sys.modules.get("torch")
    value: Any = given
    if torch is not None and issubclass(type(given), getattr(torch, "Tensor", ())):
        try:
            flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        except Exception:  # sparse, quantized, without data
            return None
        learns = " requires_grad" if value.requires_grad else ""
        return f"torch {value.dtype} {tuple(value.shape)}{learns} {_hash(flat.numpy())}"
    if numpy is None or (type(value) not in (numpy.ndarray, numpy.memmap) and not isinstance(value, numpy.generic)):
        return None
    if value.dtype.hasobject:
        return list(value.ravel()) if isinstance(value, numpy.ndarray) else None
    flat = numpy.ascontiguousarray(value).reshape(-1)
    kind = value.dtype.descr if value.dtype.fields else value.dtype.str
    return f"numpy {kind} {value.shape} {_hash(flat.view(numpy.uint8) if flat.size else flat)}"


def _hash(flat: Any) -> str:
    given = memoryview(flat)
    if given.nbytes <= _SMALL:  # not worth an import
        return hashlib.sha256(given).hexdigest()
    import xxhash

    return str(xxhash.xxh3_128_hexdigest(given))
