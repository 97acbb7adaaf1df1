"""What a signal reads: parameter names and annotations become columns, member bytes or decoded pictures."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from factory_lib.errors import SignalError, nearest
from factory_lib.signals.member import Member
from factory_lib.signals.outputs import without_none

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal

Kind = Literal["value", "bytes", "image", "member"]
"""`value`: the column's value; `bytes`: bytes of the member that the pointer column names; `image`: that member decoded
to RGB; `member`: the `Member` itself, for signals that want header, bytes and picture."""

Form = Literal["python", "numpy", "arrow"]


@dataclass(frozen=True)
class Input:
    """One input of a signal.

    Attributes:
        parameter: name of the function's parameter.
        column: name of the column, a pointer column (`image`) unless `kind` is `value`.
        kind: what the function gets.
        form: how a value (or, in a batch signal, the column of values) arrives: Python objects, numpy or Arrow.
        optional: None is passed to the function where the column is null, instead of making the sample an error.
    """

    parameter: str
    column: str
    kind: Kind = "value"
    form: Form = "python"
    optional: bool = False


def declared_inputs(
    function: Callable[..., Any], mapping: Mapping[str, Any] | None, batch: bool, where: str
) -> tuple[Input, ...]:
    """The inputs of a signal, in the order of its parameters.

    A parameter with a default is a constant and no input, unless `mapping` names it.

    Args:
        function: what will be called with the inputs.
        mapping: parameter -> column name, or -> type (`bytes`, `Image.Image`), or -> (column name, type).
        batch: annotations may be lists of what a single sample would be.
        where: what is being declared, for messages.

    Raises:
        SignalError: no inputs, variable parameters, a parameter that is not there.
    """
    mapping = dict(mapping or {})
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        raise SignalError(
            f"{where}: its parameters cannot be read.", "Wrap it in a Python function with named parameters."
        ) from None
    for name in mapping:
        if name not in parameters:
            raise SignalError(f"{where}: inputs= names {name!r}, which is no parameter.", nearest(name, parameters))
    inputs = []
    for name, parameter in parameters.items():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise SignalError(f"{where}: *{name} cannot be an input.", "Name each column as a parameter of its own.")
        if parameter.default is not parameter.empty and name not in mapping:
            continue
        if parameter.kind is parameter.KEYWORD_ONLY:
            raise SignalError(f"{where}: the input {name!r} is keyword-only.", "Inputs are passed by position.")
        inputs.append(_input(name, _annotation(function, parameter), mapping.get(name), batch, where))
    if not inputs:
        raise SignalError(
            f"{where}: it has no inputs.", "Name the columns it reads as parameters, for instance (image: bytes)."
        )
    return tuple(inputs)


def _input(name: str, annotation: Any, mapped: Any, batch: bool, where: str) -> Input:
    column = name
    if isinstance(mapped, str):
        column = mapped
    elif isinstance(mapped, tuple) and len(mapped) == 2 and isinstance(mapped[0], str):
        column, annotation = mapped
    elif mapped is not None:
        annotation = mapped
    annotation, optional = without_none(annotation)
    if batch and typing.get_origin(annotation) in {list, collections.abc.Sequence, tuple}:
        annotation, optional = without_none(next(iter(typing.get_args(annotation)), Any))
    kind, form = _kind(annotation, f"{where}, input {name!r}")
    unannotated = annotation in {inspect.Parameter.empty, Any}
    return Input(name, column, kind, form, optional or (unannotated and kind == "value"))


def _kind(annotation: Any, where: str) -> tuple[Kind, Form]:
    if annotation is bytes:
        return "bytes", "python"
    if annotation is Member:
        return "member", "python"
    if annotation == "image" or _is_picture(annotation):
        return "image", "python"
    origin = typing.get_origin(annotation) or annotation
    if origin is np.ndarray:
        return "value", "numpy"
    if isinstance(origin, type) and issubclass(origin, pa.Array | pa.ChunkedArray):
        return "value", "arrow"
    if isinstance(annotation, str):
        raise SignalError(f"{where}: the annotation {annotation!r} cannot be resolved.", "Import the type it names.")
    return "value", "python"


def _is_picture(annotation: Any) -> bool:
    """Whether it is `PIL.Image.Image`, asked without importing Pillow."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(annotation, type) and issubclass(annotation, pillow.Image)


def _annotation(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """The annotation itself; one that is text (postponed evaluation) is evaluated where the function was written."""
    annotation = parameter.annotation
    if not isinstance(annotation, str):
        return annotation
    resolved = resolve(annotation, function)
    if not isinstance(resolved, str):
        return resolved
    inner = resolved.removeprefix("list[").removeprefix("Sequence[").removesuffix("]").removesuffix("| None").strip()
    # Pillow is often imported under TYPE_CHECKING only: its name then is all there is.
    return "image" if inner.rpartition(".")[2] == "Image" else resolved


def resolve(annotation: str, function: Callable[..., Any]) -> Any:
    """An annotation given as text, evaluated in the namespace of the function; the text itself where that fails."""
    code = _function_of(function)
    namespace = dict(getattr(code, "__globals__", {}))
    closure = getattr(code, "__closure__", None) or ()
    names = getattr(getattr(code, "__code__", None), "co_freevars", ())
    for name, cell in zip(names, closure, strict=False):
        try:
            namespace[name] = cell.cell_contents
        except ValueError:  # a cell that is not filled yet
            continue
    try:
        return eval(annotation, namespace)
    except (NameError, AttributeError, TypeError, SyntaxError):
        return annotation


def _function_of(target: Any) -> Any:
    """The Python function behind a decorated function, a partial, a method or an object with `__call__`."""
    code = inspect.unwrap(target)
    while isinstance(code, functools.partial):
        code = inspect.unwrap(code.func)
    code = getattr(code, "__func__", code)
    return code if inspect.isfunction(code) else getattr(type(code), "__call__", code)  # noqa: B004 - the function itself is wanted


def computable(signals: Sequence[Signal], columns: Mapping[str, str]) -> list[Signal]:
    """Of some signals those that can be computed: samples may have no captions or no pictures, and packages of an extra
    may not be installed. `not_computable` says why the others cannot.

    Args:
        signals: some signals.
        columns: column -> ClickHouse type. A table may have a text that it calls `image`, and no pictures.
    """
    without = not_computable(signals, columns)
    return [one for one in signals if one.name not in without]


def not_computable(signals: Sequence[Signal], columns: Mapping[str, str]) -> dict[str, str]:
    """Of some signals those that cannot be computed: name -> why, as a sentence with the next step.

    Args:
        signals: some signals.
        columns: column -> ClickHouse type.
    """
    reasons = {one.name: _obstacle(one, columns) for one in signals}
    return {name: reason for name, reason in reasons.items() if reason}


def _obstacle(one: Signal, columns: Mapping[str, str]) -> str:
    from factory_lib.signals.bundled import missing, not_installed
    from factory_lib.warehouse.arrow_types import is_pointer

    if lacking := [given.column for given in one.inputs if given.column not in columns]:
        return f"No {one.name!r}: the samples have no column {lacking[0]!r}."
    if texts := [name for name in one.members if not is_pointer(columns[name])]:
        return f"No {one.name!r}: the column {texts[0]!r} is {columns[texts[0]]}, and points at no bytes."
    if packages := missing(one.requires):
        return str(not_installed(f"No {one.name!r}: it is computed", packages[0]))
    return ""


def check_pointers(one: Signal, kinds: Mapping[str, str]) -> None:
    """Raise where a signal reads the bytes of a column that points at none.

    Args:
        one: the signal.
        kinds: column -> ClickHouse type.

    Raises:
        SignalError: names the column.
    """
    from factory_lib.warehouse.arrow_types import is_pointer

    for name in one.members:
        if not is_pointer(kinds[name]):
            raise no_pointer(one, name, kinds[name])


def no_pointer(one: Signal, column: str, kind: object) -> SignalError:
    """The error of a signal that reads bytes where a column points at none."""
    return SignalError(
        f"Signal {one.name!r} reads the bytes that {column!r} points at, but that column is {kind}.",
        "Pointer columns are structs of uri, offset and size.",
    )
