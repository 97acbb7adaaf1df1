"""What a filter or a function takes, as a schema: its parameters with their types, which YAML is checked against."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field, create_model

from factory_lib.orchestration.components.names import Named
from factory_lib.query import DatasetQuery


@dataclass(frozen=True)
class YamlUse:
    """A filter or function with what it is given; what names a dataset becomes that dataset when the stage runs.

    Attributes:
        target: the class of the filter, or the function.
        values: parameter -> value.
        datasets: parameter -> name of a dataset.
    """

    target: Callable[..., Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    datasets: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, DatasetQuery], *samples: DatasetQuery) -> Any:
        """Call it, the samples first where it is a function."""
        given = {name: inputs[dataset] for name, dataset in self.datasets.items()}
        return self.target(*samples, **self.values, **given)


@functools.cache
def parameters_of(target: Callable[..., Any], of_samples: bool) -> type[BaseModel]:
    """The schema of what a target takes.

    Args:
        of_samples: its first parameter is the samples, which YAML does not give.
    """
    name = getattr(target, "__name__", "parameters")
    fields: dict[str, Any] = {}
    for one in _parameters(target)[1 if of_samples else 0 :]:
        kind = str if _is_dataset(one.annotation) else one.annotation
        fields[one.name] = (kind, Field(... if one.default is inspect.Parameter.empty else one.default))
    return create_model(name, __base__=Named, __doc__=inspect.getdoc(target), **fields)


def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    """Its parameters, types evaluated; modules that import the query for type checkers alone have it, too."""
    signature = inspect.signature(target, eval_str=True, locals={"DatasetQuery": DatasetQuery})
    return list(signature.parameters.values())


def use_of(target: Callable[..., Any], given: Mapping[str, Any], of_samples: bool = False) -> YamlUse:
    """A target with what YAML gives it.

    Raises:
        ValidationError: a name or a value is wrong.
    """
    checked = parameters_of(target, of_samples).model_validate(dict(given))
    kinds = {one.name: one.annotation for one in _parameters(target)}
    values = {name: getattr(checked, name) for name in checked.model_fields_set}
    datasets = {name: value for name, value in values.items() if _is_dataset(kinds[name]) and value is not None}
    return YamlUse(target, {name: value for name, value in values.items() if name not in datasets}, datasets)


def _is_dataset(kind: Any) -> bool:
    return kind is DatasetQuery or DatasetQuery in typing.get_args(kind)
