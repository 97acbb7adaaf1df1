"""What a filter or a function takes, as a schema: its parameters with their types, which YAML is checked against."""

from __future__ import annotations

import functools
import inspect
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field, create_model

from factory_lib.orchestration.components.names import Named
from factory_lib.query import DatasetQuery
from factory_lib.signals.clip import Clip
from factory_lib.signals.signal import Signal

Forms = Mapping[Any, Any]
"""Type of a parameter -> the type that YAML writes in its place."""


class Later(ABC):
    """What YAML names and what is there only when the stage runs: a dataset, what is given one."""

    @property
    @abstractmethod
    def datasets(self) -> tuple[str, ...]:
        """The datasets that it reads."""

    @abstractmethod
    def made(self, inputs: Mapping[str, DatasetQuery]) -> Any:
        """The thing itself.

        Args:
            inputs: the datasets, by their names.
        """


@dataclass(frozen=True)
class YamlUse(Later):
    """A filter or function with what it is given.

    Attributes:
        target: the class of the filter, or the function.
        values: parameter -> value.
        several: the parameter whose values are given one after the other, `*findings`.
    """

    target: Callable[..., Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    several: str = ""

    @property
    def datasets(self) -> tuple[str, ...]:
        """Of all its values."""
        return datasets_in(list(self.values.values()))

    def made(self, inputs: Mapping[str, DatasetQuery], *samples: DatasetQuery) -> Any:
        """What the call returns, with the samples first where it is a function of samples."""
        given = {name: _made(value, inputs) for name, value in self.values.items()}
        return self.target(*samples, *given.pop(self.several, ()), **given)


def datasets_in(value: Any) -> tuple[str, ...]:
    """The datasets that a value reads, or those in a list."""
    if isinstance(value, Later):
        return value.datasets
    return tuple(name for one in value for name in datasets_in(one)) if isinstance(value, list | tuple) else ()


def _made(value: Any, inputs: Mapping[str, DatasetQuery]) -> Any:
    if isinstance(value, Later):
        return value.made(inputs)
    return [_made(one, inputs) for one in value] if isinstance(value, list | tuple) else value


def parameters_of(target: Callable[..., Any], of_samples: bool, forms: Forms) -> type[BaseModel]:
    """The schema of what a target takes.

    Args:
        of_samples: its first parameter is the samples, which YAML does not give.
        forms: how YAML writes what it has no word for.
    """
    name = getattr(target, "__name__", "parameters")
    fields: dict[str, Any] = {}
    for one in _parameters(target)[1 if of_samples else 0 :]:
        kind, default = _written(one.annotation, forms), one.default
        if one.kind is inspect.Parameter.VAR_POSITIONAL:
            kind = list[kind]  # type: ignore[valid-type]
        fields[one.name] = (kind, Field(... if default is inspect.Parameter.empty else default))
    return create_model(name, __base__=Named, __doc__=inspect.getdoc(target), **fields)


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(_signature(target).parameters.values())


def _signature(target: Callable[..., Any]) -> inspect.Signature:
    """Its signature, types evaluated; modules that import some for type checkers alone have them, too."""
    known = {"DatasetQuery": DatasetQuery, "Signal": Signal, "Clip": Clip}
    return inspect.signature(target, eval_str=True, locals=known)


def result_of(target: Any) -> type | None:
    """The class of what a name in YAML comes to: what it is, or what calling it gives; None where nothing says it."""
    if inspect.isclass(target):
        return target
    if isinstance(target, Signal) or not callable(target):
        return type(target)
    made = _signature(target).return_annotation
    return made if inspect.isclass(made) and made is not inspect.Signature.empty else None


def _written(kind: Any, forms: Forms) -> Any:
    """A type as YAML writes it."""
    if kind in forms:
        return forms[kind]
    inner, of = typing.get_args(kind), typing.get_origin(kind)
    if not inner or of in (typing.Literal, typing.Annotated):
        return kind
    changed = tuple(_written(one, forms) for one in inner)
    if changed == inner:
        return kind
    return functools.reduce(lambda one, other: one | other, changed) if of in _UNIONS else of[changed]


_UNIONS = (typing.Union, types.UnionType)


def use_of(target: Callable[..., Any], given: Mapping[str, Any], of_samples: bool, forms: Forms) -> YamlUse:
    """A target with what YAML gives it.

    Raises:
        ValidationError: a name or a value is wrong.
    """
    checked = parameters_of(target, of_samples, forms).model_validate(dict(given))
    several = [one.name for one in _parameters(target) if one.kind is inspect.Parameter.VAR_POSITIONAL]
    return YamlUse(target, {name: getattr(checked, name) for name in checked.model_fields_set}, *several)
