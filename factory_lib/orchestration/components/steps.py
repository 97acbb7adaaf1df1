"""The steps of a stage written in YAML: each makes samples of samples, the last may filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, PydanticInvalidForJsonSchema, model_validator
from pydantic_core import CoreSchema, core_schema

from factory_lib.curation.rules import Kept, keep
from factory_lib.orchestration.components.names import Named, at_places, refuse_unknown
from factory_lib.orchestration.components.parameters import YamlUse, parameters_of, use_of
from factory_lib.orchestration.components.registry import FILTERS, FUNCTIONS, SIGNALS, named
from factory_lib.plan.expressions import sql_text
from factory_lib.query import DatasetQuery
from factory_lib.signals.inputs import computable
from factory_lib.signals.signal import Signal


def _use(given: Any, registry: Mapping[str, str], of_samples: bool) -> YamlUse:
    """One of a registry, as YAML writes it: `name`, or `name: {parameter: value}`."""
    if isinstance(given, YamlUse):
        return given
    if isinstance(given, str):
        given = {given: {}}
    if not isinstance(given, Mapping) or len(given) != 1:
        raise ValueError("this is one name, or one name with its parameters below it.")
    [(name, parameters)] = given.items()
    if "." not in str(name):
        refuse_unknown(given, registry, "name")
    target = named(str(name), registry)
    try:
        return use_of(target, parameters or {}, of_samples)
    except ValueError as error:
        raise _below(str(name), error) from None


def _below(name: str, error: ValueError) -> ValueError:
    """An error of parameters, at its place below a name."""
    found = getattr(error, "errors", None)
    if found is None:
        return error
    return at_places(name, {(name, *one["loc"]): one["msg"].removeprefix("Value error, ") for one in found()})


def _signal(given: Any) -> Signal | YamlUse:
    """A signal by its name, or a function that makes one with what it is given."""
    if isinstance(given, str) and isinstance(found := named(given, SIGNALS), Signal):
        return found
    return _use(given, SIGNALS, False)


class _One:
    """One of a registry in the schema of YAML: checked when the graph loads, and described for editors."""

    def __init__(self, registry: Mapping[str, str], check: Callable[[Any], Any], of_samples: bool = False) -> None:
        self._registry, self._check, self._of_samples = registry, check, of_samples

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        name = {"type": "string", "anyOf": [{"enum": sorted(self._registry)}, {"pattern": _DOTTED}]}
        shapes = {n: _shape(named(n, self._registry), self._of_samples) for n in self._registry}
        one = {
            "type": "object",
            "properties": {n: {"anyOf": [shape, {"type": "null"}]} for n, shape in shapes.items()},
            "patternProperties": {_DOTTED: {"type": ["object", "null"]}},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        }
        return {"anyOf": [name, one]}


_DOTTED = r"^[A-Za-z_]\w*(\.\w+)+$"


def _shape(target: Callable[..., Any], of_samples: bool) -> dict[str, Any]:
    if isinstance(target, Signal):
        return {"type": "null"}
    try:
        return parameters_of(target, of_samples).model_json_schema()
    except PydanticInvalidForJsonSchema:  # a parameter is nothing that JSON has
        return {"type": "object"}


FilterUse = Annotated[Any, _One(FILTERS, lambda given: _use(given, FILTERS, False), False)]
FunctionUse = Annotated[Any, _One(FUNCTIONS, lambda given: _use(given, FUNCTIONS, True), True)]
SignalUse = Annotated[Any, _One(SIGNALS, _signal)]


class YamlStep(Named):
    """One step of a stage: exactly one of these.

    Attributes:
        signals: signals to compute, by the names of their columns or by dotted names; those that the samples have
            nothing for are left out.
        columns: column -> SQL expression.
        select: the columns to keep; those that are not there are left out.
        apply: a function from samples to samples, such as `near_duplicates`.
        union: datasets whose rows are added.
        filter: SQL conditions, without a reason of their own.
        keep: filters with reasons; the last step of a stage.
    """

    signals: list[SignalUse] | None = None
    columns: dict[str, str] | None = None
    select: list[str] | None = None
    apply: FunctionUse | None = None
    union: list[str] | None = None
    filter: list[str] | None = None
    keep: list[FilterUse] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _is_one(self) -> YamlStep:
        if len(self.model_fields_set) != 1:
            verbs = ", ".join(type(self).model_fields)
            raise ValueError(f"a step is one of {verbs}; this has {len(self.model_fields_set)}.")
        return self

    @property
    def verb(self) -> str:
        """Which of them it is."""
        return next(iter(self.model_fields_set))

    @property
    def datasets(self) -> list[str]:
        """The datasets that it reads besides the stage's own samples."""
        every = (self.apply, *(self.keep or []), *(self.signals or []))
        uses = [one for one in every if isinstance(one, YamlUse)]
        return [*(self.union or []), *(name for use in uses for name in use.datasets.values())]


def run_steps(
    samples: DatasetQuery, steps: Iterable[tuple[str, Any]], inputs: Mapping[str, DatasetQuery]
) -> DatasetQuery | Kept:
    """What the steps make of samples.

    Args:
        steps: verb and what it is given, in order.
        inputs: the datasets that they name.
    """
    found: DatasetQuery | Kept = samples
    for verb, given in steps:
        assert isinstance(found, DatasetQuery)
        found = _VERBS[verb](found, given, inputs)
    return found


_VERBS: Mapping[str, Callable[[DatasetQuery, Any, Mapping[str, DatasetQuery]], DatasetQuery | Kept]] = {
    "signals": lambda samples, given, inputs: samples.add_signals(
        *computable([one(inputs) if isinstance(one, YamlUse) else one for one in given], samples.columns)
    ),
    "columns": lambda samples, given, inputs: samples.mutate(**{name: sql_text(sql) for name, sql in given.items()}),
    "select": lambda samples, given, inputs: samples.select(*[name for name in given if name in samples.columns]),
    "apply": lambda samples, given, inputs: given(inputs, samples),
    "union": lambda samples, given, inputs: samples.union(*(inputs[name] for name in given)),
    "filter": lambda samples, given, inputs: samples.filter(*given),
    "keep": lambda samples, given, inputs: keep(samples, *(use(inputs) for use in given)),
}
