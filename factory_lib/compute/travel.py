"""How a signal gets to a worker: by value, so that workers run the very objects that were hashed.

Functions, classes and modules of the user travel as they are in this process: what a notebook cell defined, a reload
brought, a driver configured or a test patched is what runs. Of the user's modules only what is used travels; modules
that functions import when they run are imported where the signal arrives, and get what of them is not what their files
say. Installed packages and the factory itself are imported there, too. Large arrays go beside the pickle, through a
file that all workers map.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime
import enum
import functools
import hashlib
import importlib
import io
import mmap
import os
import pickle
import sys
import tempfile
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import cloudpickle

from factory_lib.compute.edited import load, loaded_modules
from factory_lib.compute.rows import limit_of
from factory_lib.compute.wire import SentSignal
from factory_lib.errors import SignalError
from factory_lib.fingerprints.components import digest
from factory_lib.fingerprints.holders import draws_for_all, random_state
from factory_lib.fingerprints.places import place_of
from factory_lib.fingerprints.process import taken
from factory_lib.fingerprints.values import ATOMS, MADE_OF
from factory_lib.fingerprints.walk import Walk
from factory_lib.signals.fingerprint import walk_of
from factory_lib.signals.signal import Signal

LARGE_BYTES = 2**20
"""From here on the bytes of an array go through a file."""
_OF_MODULES = ("__file__", "__package__", "__path__")
_OF_CACHED = ("__wrapped__", "cache_parameters")
_PARTS_OF_CLASSES = 6
_registry = threading.Lock()


@contextlib.contextmanager
def packed(signals: Sequence[Signal]) -> Iterator[list[SentSignal]]:
    """Signals ready to be sent; the files with their large arrays are there as long as the context is.

    Raises:
        SignalError: something that a signal uses cannot travel; the message names it and where it is.
    """
    paths: list[str] = []
    try:
        yield [_packed(one, paths) for one in signals]
    finally:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)


def states_of_process() -> bytes:
    """What this process has configured in Python and in libraries, on its way to a worker."""
    return pickle.dumps(taken())


def unpacked(sent: SentSignal, set_here: set[tuple[str, str]] | None = None) -> Signal:
    """A signal that arrived.

    Args:
        sent: the signal.
        set_here: (module, name) of what had to be set in modules is added.

    Raises:
        Exception: whatever its packages raise where they cannot be imported here.
    """
    buffers: list[memoryview] = []
    if sent.file:
        with open(sent.file, "rb") as file:
            whole = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        ends = [0]
        for size in sent.sizes:
            ends.append(ends[-1] + size)
            buffers.append(whole[ends[-2] : ends[-1]])
    load(sent.edited, sent.lines)
    found: Signal
    changed: Sequence[tuple[str, str, Any]]
    found, changed = pickle.loads(sent.pickled, buffers=buffers)
    for module, name, value in changed:
        if not name:
            sys.modules[module] = value
            continue
        *owners, last = name.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        known = getattr(owner, last, None)
        if type(known) is not type(value) or type(value) not in ATOMS or repr(known) != repr(value):
            setattr(owner, last, value)
            if set_here is not None:
                set_here.add((module, name))
    return found


def _packed(signal: Signal, paths: list[str]) -> SentSignal:
    walk = walk_of(signal)
    buffers: list[pickle.PickleBuffer] = []
    written = io.BytesIO()
    pickler = _Pickler(written, walk, buffers)
    changed = [(module, name, value) for (module, name), value in walk.changed.items()]
    try:
        pickler.dump((signal, changed))
    except Exception as error:
        raise _refusal(signal, walk, error) from error
    finally:
        pickler.release()
    path = ""
    if buffers:
        with tempfile.NamedTemporaryFile(prefix="factory-arrays-", delete=False) as file:
            path = file.name
            paths.append(path)
            for one in buffers:
                file.write(one.raw())
    blob = written.getvalue()
    key = hashlib.sha256(blob + digest(walk.found).encode()).hexdigest()
    sizes = tuple(one.raw().nbytes for one in buffers)
    files, modules = frozenset(walk.of_files), _states(walk)
    names, configured = frozenset(walk.changed), frozenset(walk.found_configured)
    return SentSignal(
        key, blob, walk.found, files, modules, names, configured, signal.name, limit_of(signal), loaded_modules(walk),
        walk.lines, path, sizes,
    )  # fmt: skip


def _states(walk: Walk) -> dict[str, str]:
    """Module of the user that is imported when the signal runs -> digest of its file and of what differs from it."""
    return {module: digest(_state(walk, module)) for module in sorted(walk.modules)}


def _state(walk: Walk, module: str) -> dict[str, str]:
    changed = {f"{module}.{name}" if name else module for owner, name in walk.changed if owner == module}
    return {name: value for name, value in walk.found.items() if name == f"{module} (module)" or name in changed}


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles what is the user's by value.

    Args:
        file: written to.
        walk: what the signal uses.
        buffers: large buffers are added here and not written.
    """

    def __init__(self, file: io.BytesIO, walk: Walk, buffers: list[pickle.PickleBuffer]) -> None:
        super().__init__(file, protocol=5, buffer_callback=self._take)
        self._uses, self._imported, self._buffers = walk.uses, walk.modules, buffers
        self._registered: list[types.ModuleType] = []

    def _take(self, buffer: pickle.PickleBuffer) -> bool:
        """Whether a buffer is written with the rest."""
        try:
            if buffer.raw().nbytes < LARGE_BYTES:
                return True
        except BufferError:  # not contiguous
            return True
        self._buffers.append(buffer)
        return False

    def release(self) -> None:
        """Leave no trace in the process."""
        for module in self._registered:
            with _registry, contextlib.suppress(ValueError):
                cloudpickle.unregister_pickle_by_value(module)

    def reducer_override(self, value: Any) -> Any:
        """How one object is taken apart."""
        kind = type(value)
        if kind is _Namespace:
            return vars, (value.module,)
        if kind is Signal and is_users(value.module):
            return Signal, value.parts()
        if issubclass(kind, types.ModuleType) and is_users(value.__name__):
            return self._module(value)
        if isinstance(value, io.TextIOWrapper):  # cloudpickle would send what is in it
            raise TypeError("cannot pickle an open file")
        if module := draws_for_all(value):
            return random_state, (module,)
        if kind in MADE_OF:
            return MADE_OF[kind](value)
        if kind in _REBUILT and (kind is not _CACHED or is_users(value.__module__)):
            return _REBUILT[kind](value)
        if str(kind.__module__).startswith("wrapt") and hasattr(kind, "_self_wrapper"):
            return kind, (value.__wrapped__, value._self_wrapper)
        if issubclass(kind, threading.local):
            return _local_to_thread, (kind,), vars(value)
        if kind.__name__ == "ufunc" and kind.__module__ == "numpy" and _inner(value):
            import numpy

            return numpy.frompyfunc, (_inner(value)[0], value.nin, value.nout)
        if kind is types.FunctionType or issubclass(kind, type):
            self._by_value(value)
        reduced = super().reducer_override(value)
        if not (issubclass(kind, type) and isinstance(reduced, tuple) and len(reduced) == _PARTS_OF_CLASSES):
            return reduced  # by name
        return _with_aliases(value, reduced) if issubclass(kind, enum.EnumMeta) else _with_its_name(value, reduced)

    def _by_value(self, value: Any) -> None:
        module = sys.modules.get(str(getattr(value, "__module__", "")))
        if module is not None and module.__name__ != "__main__" and is_users(module.__name__):
            with _registry, contextlib.suppress(ValueError):
                if module.__name__ not in cloudpickle.list_registry_pickle_by_value():
                    cloudpickle.register_pickle_by_value(module)
                    self._registered.append(module)
        if type(value) is types.FunctionType:
            home = sys.modules.get(value.__globals__.get("__name__") or "")
            if home is not None and vars(home) is value.__globals__ and is_users(home.__name__):
                # Its functions and its attributes are one namespace there, too.
                self.globals_ref.setdefault(id(value.__globals__), _Namespace(home))

    def _module(self, module: types.ModuleType) -> tuple[Any, ...]:
        names = self._uses.get(module.__name__, set())
        if names is None:
            names = {name for name in vars(module) if not (name.startswith("__") and name.endswith("__"))}
        state = {name: getattr(module, name) for name in sorted(names) if hasattr(module, name)}
        made = {name: vars(module)[name] for name in _OF_MODULES if vars(module).get(name) is not None}
        made = {name: list(value) if name == "__path__" else value for name, value in made.items()}
        if module.__name__ in self._imported and "__file__" in made:
            return importlib.import_module, (module.__name__,), state, None, None, _fill
        return _made_module, (module.__name__, made), state, None, None, _fill


class _Namespace:
    """The globals of a module of the user, on their way."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module


def is_users(module: str) -> bool:
    """Whether a module is the user's, whose objects travel by value."""
    if module == "factory_lib" or module.startswith("factory_lib."):
        return False
    loaded = sys.modules.get(module)
    return place_of(module, vars(loaded) if loaded is not None else None).owner == "own"


def _refusal(signal: Signal, walk: Walk, error: Exception) -> SignalError:
    """What cannot travel, and where it is."""
    hint = "Make it in setup() of a class, which runs in each worker process: locks, files, connections, models."
    for path, value in walk.held:
        if not _pickles(value):
            kind = type(value)
            what = f"{path} is a {kind.__module__}.{kind.__qualname__}, which cannot be sent to worker processes."
            return SignalError(f"Signal {signal.name!r}: {what}", hint)
    return SignalError(
        f"Signal {signal.name!r} cannot be sent to worker processes: {type(error).__name__}: {error}", hint
    )


def _pickles(value: Any) -> bool:
    if isinstance(value, io.TextIOWrapper):
        return False
    try:
        cloudpickle.dumps(value)
    except Exception:
        return False
    return True


def _with_its_name(kind: type, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """A class taken apart, with its slots, and the name that says in which function or class it was defined."""
    make, (constructor, name, bases, given, *more), (state, rest_of_state), *rest = reduced
    given = {**given, "__qualname__": kind.__qualname__}
    if slots := vars(kind).get("__slots__"):
        given["__slots__"] = slots
        state = {n: value for n, value in state.items() if type(value) is not types.MemberDescriptorType}
    return make, (constructor, name, bases, given, *more), (state, rest_of_state), *rest


def _with_aliases(kind: enum.EnumMeta, reduced: tuple[Any, ...]) -> tuple[Any, ...]:
    """An enumeration taken apart, with members under several names as such, which cannot be set later."""
    make, (bases, name, qualified, members, *given), (state, slots), *rest = reduced
    known: Mapping[str, Any] = kind.__members__
    aliases = {alias: one.value for alias, one in known.items() if alias not in members}
    state = {key: value for key, value in state.items() if key not in aliases}
    return make, (bases, name, qualified, {**members, **aliases}, *given), (state, slots), *rest


def _made_module(name: str, made: Mapping[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(made)
    return module


def _fill(module: types.ModuleType, state: Mapping[str, Any]) -> None:
    vars(module).update(state)


def _local_to_thread(kind: type[threading.local]) -> threading.local:
    """What it holds is that of the thread that sent it, and becomes that of the thread that computes."""
    return kind.__new__(kind)


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any], more: Mapping[str, Any]) -> Any:
    made = functools.lru_cache(**parameters)(function)
    vars(made).update(more)
    return made


def _cached_property(function: Callable[..., Any], name: str | None) -> Any:
    made: functools.cached_property[Any] = functools.cached_property(function)
    made.attrname = name
    return made


def _weak(kind: Callable[[Any], Any], held: Any) -> Any:
    """A weak container; what it holds stays, as nobody else may have it here."""
    made = kind(held)
    made.factory_held = held
    return made


def _inner(ufunc: Any) -> list[types.FunctionType]:
    import gc

    return [one for one in gc.get_referents(ufunc) if isinstance(one, types.FunctionType)]


def _capsule(value: Any) -> tuple[Any, ...]:
    """What a library put among Python's own names, as those made with pybind11 do for each other, by its name there."""
    for name, held in vars(builtins).items():
        if held is value:
            return _of_builtins, (name,)
    raise TypeError("cannot pickle 'PyCapsule' object")


def _of_builtins(name: str) -> Any:
    return vars(builtins).get(name)


_CACHED: Any = type(functools.lru_cache(len))
_REBUILT: dict[Any, Callable[[Any], tuple[Any, ...]]] = {
    _CACHED: lambda value: (
        _cached,
        (value.__wrapped__, value.cache_parameters(), {k: v for k, v in vars(value).items() if k not in _OF_CACHED}),
    ),
    type(datetime.datetime_CAPI): _capsule,
    functools.cached_property: lambda value: (_cached_property, (value.func, value.attrname)),
    weakref.WeakKeyDictionary: lambda value: (_weak, (weakref.WeakKeyDictionary, dict(value))),
    weakref.WeakValueDictionary: lambda value: (_weak, (weakref.WeakValueDictionary, dict(value))),
    weakref.WeakSet: lambda value: (_weak, (weakref.WeakSet, list(value))),
}
"""Objects of the standard library that do not pickle, or by name alone, and can be made anew."""
