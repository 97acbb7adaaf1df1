"""What a process has configured in Python and in libraries, and no object of the user holds: contexts, limits, modes.

Such a state counts where code that is followed uses its library and it is not what a fresh process has; and it can be
taken in one process and set in another, so that this one computes what that one would.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

_CONTEXT = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_CATEGORIES = ("LC_NUMERIC", "LC_MONETARY", "LC_TIME", "LC_COLLATE")
_PRINTING = {
    "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False, "linewidth": 75,
    "nanstr": "nan", "infstr": "inf", "sign": "-", "legacy": False,
}  # fmt: skip
_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


class _State(NamedTuple):
    """A state of a process.

    Attributes:
        module: that it belongs to; it is looked at where this is loaded.
        read: gives it, as something that can be pickled and compared.
        write: sets it.
        usual: what a fresh process has, or a function of what is there that gives it.
        names: it counts where code uses one of these; where there are none, anything of the module.
        of_module: code has to use something of the module besides.
    """

    module: str
    read: Callable[[Any], Any]
    write: Callable[[Any, Any], object]
    usual: Any
    names: frozenset[str] = frozenset()
    of_module: bool = False


def taken() -> dict[str, Any]:
    """The states of this process, by name."""
    return {name: state.read(sys.modules[state.module]) for name, state in _STATES.items() if _is_there(state)}


def restore(states: Mapping[str, Any]) -> None:
    """Set the states of this process to those that were taken in another."""
    for name, value in states.items():
        state = _STATES[name]
        if not _is_there(state):
            if value == state.usual:
                continue
            __import__(state.module)
        module = sys.modules[state.module]
        if state.read(module) != value:
            state.write(module, value)


def counted(modules: Collection[str], names: Collection[str]) -> dict[str, str]:
    """The states that values may depend on and that are not those of a fresh process, as components.

    Args:
        modules: outermost names of the modules of others that code uses.
        names: all names in the code.
    """
    found = {}
    for name, state in _STATES.items():
        is_named = not state.names.isdisjoint(names)
        is_used = state.module.partition(".")[0] in modules or (bool(state.names) and not state.of_module)
        if is_used and (is_named or not state.names) and _is_there(state):
            value = state.read(sys.modules[state.module])
            if value != state.usual:
                found[f"process:{name}"] = hashlib.sha256(repr(value).encode()).hexdigest()[:16]
    return found


def _is_there(state: _State) -> bool:
    return getattr(sys.modules.get(state.module), "__spec__", None) is not None


def _context(decimal: Any) -> dict[str, Any]:
    context = decimal.getcontext()
    traps = sorted(signal.__name__ for signal, is_set in context.traps.items() if is_set)
    return {**{name: getattr(context, name) for name in _CONTEXT}, "traps": traps}


def _set_context(decimal: Any, value: Mapping[str, Any]) -> None:
    traps = [getattr(decimal, name) for name in value["traps"]]
    decimal.setcontext(decimal.Context(**{**value, "traps": traps}))


def _categories(locale: Any) -> dict[str, str]:
    return {name: locale.setlocale(getattr(locale, name)) for name in _CATEGORIES}


def _levels(logging: Any) -> dict[str, Any]:
    known = {"": logging.root, **logging.root.manager.loggerDict}
    found = {name: one.level for name, one in known.items() if getattr(one, "level", 0)}
    return {"levels": found, "disabled": logging.root.manager.disable}


def _set_levels(logging: Any, value: Mapping[str, Any]) -> None:
    logging.disable(value["disabled"])
    for name, level in value["levels"].items():
        logging.getLogger(name).setLevel(level)


def _set_categories(locale: Any, value: Mapping[str, str]) -> None:
    for category, name in value.items():
        locale.setlocale(getattr(locale, category), name)


def _warn_as(warnings: Any, value: list[Any]) -> None:
    warnings.filters[:] = value
    warnings._filters_mutated()


def _asked(module: str, getter: str, setter: str, usual: Any, names: Collection[str] = ()) -> _State:
    """A state that one function of a module gives and another one sets."""
    return _State(
        module,
        lambda module: getattr(module, getter)(),
        lambda module, value: getattr(module, setter)(value),
        usual,
        frozenset(names),
    )


def _attribute(module: str, name: str, usual: Any) -> _State:
    """A state that is an attribute of a module."""
    return _State(
        module, lambda module: getattr(module, name), lambda module, value: setattr(module, name, value), usual
    )


_STATES: dict[str, _State] = {
    "arguments": _State(
        "sys",
        lambda sys: list(sys.argv),
        lambda sys, value: sys.argv.__setitem__(slice(None), value),
        [],
        frozenset({"argv"}),
    ),
    "recursion": _asked("sys", "getrecursionlimit", "setrecursionlimit", 1000, ["getrecursionlimit", "RecursionError"]),
    "digits of whole numbers": _asked(
        "sys", "get_int_max_str_digits", "set_int_max_str_digits", 4300, ["get_int_max_str_digits"]
    ),
    "decimal": _State(
        "decimal",
        _context,
        _set_context,
        {
            "prec": 28, "rounding": "ROUND_HALF_EVEN", "Emin": -999999, "Emax": 999999, "capitals": 1, "clamp": 0,
            "traps": ["DivisionByZero", "InvalidOperation", "Overflow"],
        },
    ),
    "locale": _State("locale", _categories, _set_categories, dict.fromkeys(_CATEGORIES, "C")),
    "warnings": _State(
        "warnings",
        lambda warnings: [one for one in warnings.filters if one[0] == "error"],
        lambda warnings, value: _warn_as(warnings, [*value, *(one for one in warnings.filters if one[0] != "error")]),
        [],
    ),
    "levels of loggers": _State(
        "logging",
        _levels,
        _set_levels,
        {"levels": {"": 30}, "disabled": 0},
        frozenset({"isEnabledFor", "getEffectiveLevel"}),
    ),
    "timeout of sockets": _asked("socket", "getdefaulttimeout", "setdefaulttimeout", None),
    "limit of csv": _asked("csv", "field_size_limit", "field_size_limit", 131072),
    "errors of numpy": _State(
        "numpy", lambda numpy: numpy.geterr(), lambda numpy, value: numpy.seterr(**value), _ERRORS
    ),
    "printing of numpy": _State(
        "numpy",
        lambda numpy: {name: value for name, value in numpy.get_printoptions().items() if name in _PRINTING},
        lambda numpy, value: numpy.set_printoptions(**value),
        _PRINTING,
        frozenset({"str", "repr", "array2string", "array_str", "array_repr", "format"}),
        of_module=True,
    ),
    "type of torch": _State(
        "torch",
        lambda torch: str(torch.get_default_dtype()),
        lambda torch, value: torch.set_default_dtype(getattr(torch, value.partition(".")[2])),
        "torch.float32",
    ),
    "device of torch": _State(
        "torch",
        lambda torch: str(torch.get_default_device()),
        lambda torch, value: torch.set_default_device(value),
        "cpu",
    ),
    "gradients of torch": _asked("torch", "is_grad_enabled", "set_grad_enabled", True),
    "pixels of Pillow": _attribute("PIL.Image", "MAX_IMAGE_PIXELS", 2**30 // 4 // 3),
    "truncated pictures of Pillow": _attribute("PIL.ImageFile", "LOAD_TRUNCATED_IMAGES", False),
    "algorithms of torch": _asked(
        "torch", "are_deterministic_algorithms_enabled", "use_deterministic_algorithms", False
    ),
    "precision of torch": _asked("torch", "get_float32_matmul_precision", "set_float32_matmul_precision", "highest"),
}  # fmt: skip
"""Each is asked of its library, which keeps it where no walk over objects comes by."""
