"""Values as they count: any Python value written in a way that is the same in every process.

Numbers, strings, containers, arrays, enums, dataclasses, patterns and whatever pickles are written by value; sets in
sorted order; files that a `Path` names by their content, so that neither a moved checkout nor a replaced file goes
wrong; functions, classes and modules as references to components of their own. What cannot be written is said to be
opaque.
"""

from __future__ import annotations

import copyreg
import dataclasses
import enum
import hashlib
import os
import pathlib
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

MAX_ITEMS = 1_000_000
MAX_FILE_BYTES = 2**30
_STATELESS = {("logging", "Logger"), ("_thread", "lock"), ("_thread", "RLock"), ("threading", "local")}
_CODE = types.ModuleType | types.FunctionType | types.MethodType | types.BuiltinFunctionType | type
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented))


class OpaqueValueError(Exception):
    """A value that has no canonical form; its text is the type."""


class Canonical:
    """Writes values into a digest.

    Args:
        refer: called with each function, class and module met and a path to it; returns the text that stands for it.
    """

    def __init__(self, refer: Callable[[Any, str], str]) -> None:
        self._refer = refer
        self._under_way: list[int] = []
        self._items = 0

    @staticmethod
    def is_code(value: Any) -> bool:
        """Whether a value is a function, class or module, or wraps a function: it has components of its own."""
        return isinstance(value, _CODE) or (callable(value) and hasattr(value, "__wrapped__"))

    def digest(self, value: Any, path: str) -> str:
        """Short digest of a value; small numbers as they are, so that a difference can be read.

        Raises:
            OpaqueValueError: it has no canonical form.
        """
        if value is None or (
            isinstance(value, bool | int | float) and len(repr(value)) <= 24 and type(value) in _PLAIN
        ):
            return repr(value)
        return hashlib.sha256(repr(self.plain(value, path)).encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def plain(self, value: Any, path: str) -> Any:
        """A value as nested tuples of text."""
        self._items += 1
        if self._items > MAX_ITEMS:
            raise OpaqueValueError(f"{_type_name(value)} (more than {MAX_ITEMS:,} items)")
        if type(value) in _PLAIN:
            return (type(value).__name__, located(value) if type(value) is str else repr(value))
        if id(value) in self._under_way:
            return ("cycle", str(len(self._under_way) - self._under_way.index(id(value))))
        self._under_way.append(id(value))
        try:
            return self._composed(value, path)
        finally:
            self._under_way.pop()

    def _composed(self, value: Any, path: str) -> Any:
        if self.is_code(value):
            return ("code", self._refer(value, path))
        hook = getattr(type(value), "__fingerprint__", None)
        if hook is not None:
            return ("declared", self._refer(type(value), path), self.plain(hook(value), path))
        if type(value) in {list, tuple}:
            return (type(value).__name__, *(self.plain(item, f"{path}[{place}]") for place, item in enumerate(value)))
        if type(value) in {dict, types.MappingProxyType}:
            return ("dict", *self._pairs(value, path))
        if type(value) in {set, frozenset}:
            return (type(value).__name__, *sorted((self.plain(item, path) for item in value), key=repr))
        if isinstance(value, enum.Enum):
            return ("enum", self._refer(type(value), path), value.name)
        if isinstance(value, pathlib.PurePath):
            return ("path", located(os.fspath(value)))
        if (type(value).__module__, type(value).__name__) in _STATELESS:
            return ("stateless", _type_name(value))
        array = _array_bytes(value)
        if array is not None:
            return ("array", *array)
        if dataclasses.is_dataclass(value):
            fields = [field for field in dataclasses.fields(value) if field.compare]
            state = {field.name: getattr(value, field.name) for field in fields if hasattr(value, field.name)}
            return ("object", self._refer(type(value), path), *self._pairs(state, path, "."))
        return self._reduced(value, path)

    def _pairs(self, mapping: Mapping[Any, Any], path: str, separator: str = "[") -> Iterable[Any]:
        end = "]" if separator == "[" else ""
        return [
            (
                self.plain(key, path),
                self.plain(item, f"{path}{separator}{key if isinstance(key, str) else repr(key)}{end}"),
            )
            for key, item in mapping.items()
        ]

    def _reduced(self, value: Any, path: str) -> Any:
        """An object as pickle would take it apart: what makes it, and its state."""
        registered = copyreg.dispatch_table.get(type(value))
        try:
            parts: Any = registered(value) if registered else value.__reduce_ex__(4)
        except Exception:
            raise OpaqueValueError(_type_name(value)) from None
        if isinstance(parts, str):
            return ("named", type(value).__module__, parts)
        make, arguments, state, items, pairs = (*parts, None, None, None)[:5]
        return (
            "object",
            self._refer(type(value), path),
            self.plain(make, path),
            tuple(self.plain(one, path) for one in arguments),
            self.plain(state, path),
            tuple(self.plain(one, path) for one in items or ()),
            tuple((self.plain(key, path), self.plain(one, path)) for key, one in pairs or ()),
        )


def located(text: str) -> str:
    """A string; an absolute path to a file as the digest of its content, another below `sys.path` relative to that."""
    if not os.path.isabs(text) or len(text) > 4096 or "\0" in text:
        return repr(text)
    try:
        if os.path.isfile(text):
            return f"file:{file_digest(text)}"
    except OSError:
        return repr(text)
    roots = [root for root in map(os.path.abspath, filter(None, sys.path)) if text.startswith(root + os.sep)]
    return f"below:{os.path.relpath(text, max(roots, key=len))}" if roots else repr(text)


def file_digest(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, 64 hexadecimal digits; of one above 1 GiB, of its size and modification time.

    A file is read again only when its size or times change.
    """
    status = os.stat(path)
    if status.st_size > MAX_FILE_BYTES:
        return hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode()).hexdigest()
    return _file_digest(os.path.realpath(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@lru_cache(maxsize=4096)
def _file_digest(path: str, size: int, modified: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _array_bytes(value: Any) -> tuple[str, ...] | None:
    """Type, shape and digest of the bytes of a numpy array or scalar, a torch tensor, or None."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        return ("torch", str(value.dtype), str(tuple(value.shape)), _sha(flat.numpy()))
    if numpy is None or not isinstance(value, numpy.ndarray | numpy.generic) or value.dtype.hasobject:
        return None
    array = numpy.ascontiguousarray(value)
    return ("numpy", value.dtype.str, str(value.shape), _sha(array))


def _sha(array: Any) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def _type_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
