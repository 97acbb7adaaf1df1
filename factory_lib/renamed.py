"""Names that changed: the old ones work for one release, and say what they are called now."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def told(old: str, new: str) -> str:
    """What is said of an old name."""
    return f"{old} is called {new} now. The old name goes with the next release."


def warn_renamed(old: str, new: str, *, above: int = 1) -> None:
    """Warn whoever calls the caller that a name of it goes with the next release.

    Args:
        above: how many calls above the caller that is.
    """
    warnings.warn(told(old, new), DeprecationWarning, stacklevel=above + 2)


def renamed(
    arguments: Mapping[str, str], values: Mapping[str, Mapping[Any, Any]]
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a function take arguments and values under the names that they had.

    Args:
        arguments: old name -> new name.
        values: argument -> {old value: new value}.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            given: dict[str, Any] = dict(kwargs)
            for old in given.keys() & arguments.keys():
                warn_renamed(f"{function.__name__}({old}=…)", f"{arguments[old]}=…")
                given[arguments[old]] = given.pop(old)
            bound = signature.bind(*args, **given)
            for name, new in values.items():
                value = bound.arguments.get(name)
                if value in new:
                    warn_renamed(f"{function.__name__}({name}={value!r})", f"{name}={new[value]!r}")
                    bound.arguments[name] = new[value]
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate
