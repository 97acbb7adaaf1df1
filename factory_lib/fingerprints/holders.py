"""Objects that are nothing by themselves: locks, loggers, connections; and those of them that hold something.

Of the former only the kind counts; of a buffer, a queue, a weak reference what it holds does.
"""

from __future__ import annotations

import contextvars
import importlib
import io
import logging
import os
import queue
import sys
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

_MODULES = {
    "_thread", "threading", "weakref", "_weakref", "_weakrefset", "concurrent.futures.thread",
    "concurrent.futures.process", "concurrent.futures._base", "_queue", "queue", "socket", "_socket", "ssl", "_ssl",
    "asyncio.locks", "asyncio.events", "multiprocessing.synchronize", "multiprocessing.context", "contextvars",
    "_contextvars", "_io",
}  # fmt: skip
"""Whose objects they are."""
_LOGGING = (logging.Filterer, logging.Manager, logging.PlaceHolder)
_HOLDERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    io.BytesIO: ("buffer", io.BytesIO.getvalue),
    io.StringIO: ("buffer", io.StringIO.getvalue),
    queue.Queue: ("queue", lambda value: list(value.queue)),
    contextvars.ContextVar: ("context variable", lambda variable: _in_context(variable)),  # noqa: PLW0108
    weakref.ref: ("weak reference", lambda value: value()),
    weakref.ProxyType: ("weak reference", lambda value: value.__dir__.__self__),
    weakref.CallableProxyType: ("weak reference", lambda value: value.__dir__.__self__),
    weakref.WeakValueDictionary: ("weak dictionary", dict),
    weakref.WeakKeyDictionary: ("weak dictionary", dict),
    weakref.WeakSet: ("weak set", set),
}
"""What to call those that hold something, and what it is."""

_RANDOM = (("random", "_inst"), ("numpy.random.mtrand", "_rand"))
"""Modules, and what they call the random state that their functions draw from."""


class Holder(NamedTuple):
    """What counts of such an object.

    Attributes:
        name: of its kind.
        holds: something.
        held: what it holds.
    """

    name: str
    holds: bool = False
    held: Any = None


def holder(value: Any) -> Holder | None:
    """What counts of an object that is nothing by itself; None for all others."""
    kind = type(value)
    if draws_for_all(value):
        return Holder("random state of the process")
    if kind is type(os.environ) or (kind.__module__.startswith("logging") and issubclass(kind, _LOGGING)):
        return Holder(f"{kind.__module__}.{kind.__qualname__}")
    if kind.__module__ not in _MODULES:
        return None
    for known, (name, held) in _HOLDERS.items():
        if issubclass(kind, known):
            try:
                return Holder(name, holds=True, held=held(value))
            except ReferenceError:
                break
    return Holder(f"{kind.__module__}.{kind.__qualname__}")


def random_state(module: str) -> Any:
    """What functions of a module draw from in this process."""
    return getattr(importlib.import_module(module), dict(_RANDOM)[module])


def draws_for_all(value: Any) -> str:
    """Module whose functions draw from a random state, where it is that of the whole process; "" for others."""
    for module, name in _RANDOM:
        if value is not None and getattr(sys.modules.get(module), name, None) is value:
            return module
    return ""


def _in_context(variable: contextvars.ContextVar[Any]) -> tuple[str, Any]:
    try:
        return variable.name, variable.get()
    except LookupError:
        return variable.name, None
