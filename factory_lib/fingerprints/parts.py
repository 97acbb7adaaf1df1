"""Parts of functions, classes and objects: what they are bound to, and what they are made of."""

from __future__ import annotations

import abc
import copyreg
import enum
import types
from collections.abc import Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any

_OF_CLASSES = {
    "__dict__", "__weakref__", "__module__", "__qualname__", "__doc__", "__annotations__", "__firstlineno__",
    "__static_attributes__", "__abstractmethods__", "_abc_impl", "__orig_bases__", "__parameters__", "__annotate__",
    "__annotate_func__", "__annotations_cache__", "__slotnames__",
    "__pydantic_core_schema__", "__pydantic_serializer__", "__pydantic_validator__", "__pydantic_parent_namespace__",
}  # fmt: skip
"""What a class has by itself, or makes of the rest of it."""
_MISSING = object()
_OF_MEMBERS = {"_value_", "_name_", "__objclass__", "_sort_order_"}


def closure(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not filled yet
            continue
    return found


def defaults(function: types.FunctionType) -> list[tuple[str, Any]]:
    """Parameters with their default values."""
    values = function.__defaults__ or ()
    if not (values or function.__kwdefaults__):
        return []
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount][code.co_argcount - len(values) :] if values else ()
    return sorted((dict(zip(positional, values, strict=True)) | (function.__kwdefaults__ or {})).items())


def plain_state(value: Any) -> dict[str, Any] | None:
    """The fields of an object that is nothing but its fields; None for others."""
    import dataclasses

    kind = type(value)
    if kind in copyreg.dispatch_table:
        return None
    if dataclasses.is_dataclass(value):
        skipped = {field.name for field in dataclasses.fields(value) if not field.compare}
        names = [field.name for field in dataclasses.fields(value)]
        state = {name: getattr(value, name) for name in names if hasattr(value, name)} | getattr(value, "__dict__", {})
        return {name: one for name, one in state.items() if name not in skipped}
    try:
        parts: Any = value.__reduce_ex__(4)
    except Exception:
        return None
    if isinstance(parts, str) or parts[0] is not vars(copyreg)["__newobj__"] or len(parts[1]) != 1:
        return None
    if any(part is not None for part in parts[3:]):
        return None
    whole = parts[2] if isinstance(parts[2], tuple) and len(parts[2]) == 2 else (parts[2],)
    if not all(isinstance(one, dict | None) for one in whole):
        return None
    return {name: one for part in whole for name, one in (part or {}).items()}


def is_salted(code: types.CodeType) -> bool:
    """Whether a function is a `__hash__` as attrs writes it: with a number that differs from process to process."""
    return code.co_name == "__hash__" and code.co_filename.startswith("<attrs generated")


def home_of(kind: type, module: str) -> Mapping[str, Any] | None:
    """The globals of the module of that name, where a method of the class has them."""
    for member in list(vars(kind).values()):
        function = member if type(member) is types.FunctionType else function_in(member)
        if function is not None and function.__globals__.get("__name__") == module:
            return function.__globals__
    return None


def put_into(kind: type) -> list[tuple[str, types.FunctionType]]:
    """The functions in a class that are those of another module."""
    functions = [pair for pair in list(vars(kind).items()) if type(pair[1]) is types.FunctionType]
    return [pair for pair in functions if pair[1].__globals__.get("__name__") != kind.__module__]


def function_in(member: Any) -> types.FunctionType | None:
    """The function inside a method, a static or class method, or a property."""
    if isinstance(member, (staticmethod, classmethod)):  # quicker than their union, and asked of every member
        member = member.__func__
    elif isinstance(member, property):
        member = member.fget
    return member if type(member) is types.FunctionType else None


def registered(kind: type) -> list[type]:
    """Classes that an abstract class was told are its subclasses."""
    if not isinstance(kind, abc.ABCMeta):
        return []
    known: Collection[Any] = abc._get_dump(kind)[0]  # type: ignore[attr-defined]
    return [one for one in (reference() for reference in known) if one is not None]


def with_attributes(member: enum.Enum) -> Any:
    """The value of a member of an enumeration, with the attributes that it was given besides."""
    given = {name: value for name, value in vars(member).items() if name not in _OF_MEMBERS}
    return (member._value_, given) if given else member._value_


def members_of(kind: type) -> list[tuple[str, Any]]:
    """What a class says, sorted by name: not what it has by itself, nor what a base says with the same object."""
    above = [vars(base) for base in kind.__mro__[1:]]
    of_enum = isinstance(kind, enum.EnumMeta)
    own = [(key, member) for key, member in vars(kind).items() if key not in _OF_CLASSES]
    return sorted(
        (
            (key, member)
            for key, member in own
            if not ((of_enum and _is_made_by_enum(kind, key)) or _is_inherited(above, key, member))
        ),
        key=itemgetter(0),
    )


def _is_inherited(above: Sequence[Mapping[str, Any]], key: str, member: Any) -> bool:
    return next((base[key] for base in above if key in base), _MISSING) is member


def _is_made_by_enum(kind: type, key: str) -> bool:
    single = key.startswith("_") and key.endswith("_") and key not in {"_missing_", "_generate_next_value_"}
    return single or key in vars(kind).get("_member_map_", ())
