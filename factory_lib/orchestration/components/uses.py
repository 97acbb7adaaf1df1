"""What a stage names with what it is given: `name`, or `name: {parameter: value}`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, PydanticInvalidForJsonSchema
from pydantic_core import CoreSchema, core_schema

from factory_lib.augmentation.operation import Operation
from factory_lib.curation.rules import Filter
from factory_lib.errors import FactoryError
from factory_lib.orchestration.components.names import at_places, refuse_unknown
from factory_lib.orchestration.components.parameters import Forms, YamlUse, parameters_of, result_of, use_of
from factory_lib.orchestration.components.registry import named
from factory_lib.query import DatasetQuery
from factory_lib.signals.signal import Signal

KINDS: Mapping[type, tuple[str, str]] = {
    Signal: ("a signal", "below signals"),
    DatasetQuery: ("a function from samples to samples", "below apply"),
    Filter: ("a filter", "below keep"),
    Operation: ("an operation", "among the operations of make_samples"),
}
"""What names in YAML come to: in words, and where it stands."""


class RegisteredUse:
    """One of a registry in the schema of YAML: checked when the graph loads, and described for editors.

    Args:
        registry: short name -> dotted name; other dotted names are taken, too.
        forms: how YAML writes what parameters are.
        kind: what they come to, one of `KINDS`. Functions from samples to samples are not given these by YAML.
    """

    def __init__(self, registry: Mapping[str, str], forms: Callable[[], Forms], kind: type) -> None:
        self._registry, self._forms, self._kind = registry, forms, kind
        self._of_samples = kind is DatasetQuery

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.used)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        name = {"type": "string", "anyOf": [{"enum": sorted(self._registry)}, {"pattern": _DOTTED}]}
        shapes = {name: self._shape(named(name, self._registry), handler) for name in self._registry}
        one = {
            "type": "object",
            "properties": {n: {"anyOf": [shape, {"type": "null"}]} for n, shape in shapes.items()},
            "patternProperties": {_DOTTED: {"type": ["object", "null"]}},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        return {"anyOf": [name, one]}

    def used(self, given: Any) -> Signal | YamlUse:
        """What YAML names; a signal as it is, everything else with what it is given.

        Raises:
            ValueError: there is no such name, it is of another kind, or what it is given is wrong.
        """
        if isinstance(given, Signal | YamlUse):
            return given
        written = {given: {}} if isinstance(given, str) else given
        if not isinstance(written, Mapping) or len(written) != 1:
            raise ValueError("this is one name, or one name with its parameters below it.")
        [(name, parameters)] = written.items()
        if isinstance(given, Mapping) and "." not in str(name):
            refuse_unknown(given, self._registry, "name")
        target = named(str(name), self._registry)
        self._check_kind(str(name), target)
        if isinstance(target, Signal):
            if parameters:
                raise ValueError(f"{name} is a signal, and takes no parameters.")
            return target
        try:
            return self._possible(use_of(target, parameters or {}, self._of_samples, self._forms()))
        except ValueError as error:
            raise _below(str(name), error) from None

    def _check_kind(self, name: str, target: Any) -> None:
        """Raise where a name comes to something else, and say where that stands.

        Raises:
            ValueError: it does.
        """
        made = result_of(target)
        if made is None or issubclass(made, self._kind):
            return
        found = [words for kind, words in KINDS.items() if issubclass(made, kind)]
        if found:
            raise ValueError(f"{name} is {found[0][0]}: it stands {found[0][1]}.")
        raise ValueError(f"{name} is {made.__name__}, and no {KINDS[self._kind][0].partition(' ')[2]}.")

    @staticmethod
    def _possible(use: YamlUse) -> YamlUse:
        """What is a plain value is made once: values that cannot be together are told when the graph loads."""
        if inspect.isclass(use.target) and not use.datasets:
            try:
                use.made({})
            except FactoryError as error:
                raise ValueError(str(error)) from None
        return use

    def _shape(self, target: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        if isinstance(target, Signal):
            return {"type": "null"}
        try:
            return handler(parameters_of(target, self._of_samples, self._forms()).__pydantic_core_schema__)
        except PydanticInvalidForJsonSchema:  # a parameter is nothing that JSON has
            return {"type": "object"}


_DOTTED = r"^[A-Za-z_]\w*(\.\w+)+$"


def _below(name: str, error: ValueError) -> ValueError:
    """An error of parameters, at its place below a name."""
    found = getattr(error, "errors", None)
    if found is None:
        return error
    return at_places(name, {(name, *one["loc"]): one["msg"].removeprefix("Value error, ") for one in found()})
