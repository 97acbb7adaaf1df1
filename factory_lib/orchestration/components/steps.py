"""The steps of a stage written in YAML: each makes samples of samples, the last may filter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema, field_validator, model_validator

from factory_lib.augmentation.operation import Operation
from factory_lib.curation.duplicates.grouping import OrderKey
from factory_lib.curation.rules import Filter, Kept, has_values, keep
from factory_lib.orchestration.components.names import Named, imported
from factory_lib.orchestration.components.parameters import Forms, Later, YamlUse, datasets_in
from factory_lib.orchestration.components.registry import FILTERS, FUNCTIONS, OPERATIONS, SIGNALS
from factory_lib.orchestration.components.uses import RegisteredUse
from factory_lib.orchestration.omissions import note_omission
from factory_lib.plan.expressions import sql_text
from factory_lib.query import DatasetQuery
from factory_lib.signals.inputs import not_computable
from factory_lib.signals.signal import Signal


@dataclass(frozen=True)
class GraphStep:
    """A step as it runs.

    Attributes:
        verb: which one.
        given: what it is given.
        needs: columns in which some sample has to have a value.
        unless: columns that the samples must not have.
        otherwise: what is done in its place.
    """

    verb: str
    given: Any
    needs: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    otherwise: tuple[GraphStep, ...] = ()

    def obstacle(self, samples: DatasetQuery) -> str:
        """Why it is not done with these samples; empty where it is."""
        if there := [column for column in self.unless if column in samples.columns]:
            return f"the samples have {there[0]!r}"
        lacking = next((column for column in self.needs if not has_values(samples, column)), None)
        return f"no sample has a value in {lacking!r}" if lacking else ""


@dataclass(frozen=True)
class QueriedDataset(Later):
    """A dataset that is read, with steps behind it.

    Attributes:
        of: its name.
        steps: in order.
        read: the datasets that these read.
    """

    of: str
    steps: tuple[GraphStep, ...] = ()
    read: tuple[str, ...] = ()

    @property
    def datasets(self) -> tuple[str, ...]:
        """It and those that the steps read."""
        return (self.of, *self.read)

    def made(self, inputs: Mapping[str, DatasetQuery]) -> DatasetQuery:
        """The query."""
        found = run_steps(inputs[self.of], self.steps, inputs)
        return found.samples if isinstance(found, Kept) else found


def _dataset(given: Any) -> QueriedDataset:
    """A dataset as YAML gives it: its name, or where it begins and the steps behind it."""
    if isinstance(given, str):
        return QueriedDataset(given)
    checked = YamlSteps.model_validate(given)
    read = tuple(name for step in checked.steps for name in step.datasets)
    return QueriedDataset(checked.of, tuple(step.plain for step in checked.steps), read)


_INNER_STEPS = {"type": "array", "items": {"type": "object"}}
"""Steps within a step are checked when the graph loads: Dagster follows schemas, and theirs has no end."""
_STEPS_OF_ONE = {
    "type": "object",
    "properties": {"of": {"type": "string"}, "steps": _INNER_STEPS},
    "required": ["of"],
    "additionalProperties": False,
}

DatasetUse = Annotated[Any, BeforeValidator(_dataset), WithJsonSchema({"anyOf": [{"type": "string"}, _STEPS_OF_ONE]})]
FilterUse = Annotated[Any, RegisteredUse(FILTERS, lambda: FORMS, Filter)]
FunctionUse = Annotated[Any, RegisteredUse(FUNCTIONS, lambda: FORMS, DatasetQuery)]
SignalUse = Annotated[Any, RegisteredUse(SIGNALS, lambda: FORMS, Signal)]
OperationUse = Annotated[Any, RegisteredUse(OPERATIONS, lambda: FORMS, Operation)]
DottedName = Annotated[Any, BeforeValidator(imported), WithJsonSchema({"type": "string"})]

FORMS: Forms = {
    DatasetQuery: DatasetUse,
    Operation: OperationUse,
    Signal: SignalUse,
    OrderKey: str,
    Callable[..., Any]: DottedName,
}


class YamlStep(Named):
    """One step of a stage: exactly one of these.

    Attributes:
        signals: signals to compute, by the names of their columns or by dotted names; those whose column is there, and
            those that the samples have nothing for, are left out.
        columns: column -> SQL expression.
        select: the columns to keep; those that are not there are left out.
        apply: a function from samples to samples, such as `near_duplicates`.
        union: datasets whose rows are added.
        filter: SQL conditions, without a reason of their own.
        keep: filters with reasons; the last step of a stage.
        needs: columns in which some sample has to have a value, or the step is not done.
        unless: columns that make the step superfluous: where the samples have one of them, it is not done.
        otherwise: the steps that are done in its place.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)  # `columns: {one: 1}` is SQL, too

    signals: list[SignalUse] = []
    columns: dict[str, str] = {}
    select: list[str] = []
    apply: FunctionUse = None
    union: list[DatasetUse] = []
    filter: list[str] = []
    keep: list[FilterUse] = Field(default=[], min_length=1)
    needs: list[str] = Field(default=[], min_length=1)
    unless: list[str] = Field(default=[], min_length=1)
    otherwise: Annotated[list[YamlStep], WithJsonSchema(_INNER_STEPS)] = Field(default=[], min_length=1)

    @model_validator(mode="after")
    def _is_one(self) -> YamlStep:
        if len(self._verbs) != 1:
            raise ValueError(f"a step is one of {', '.join(_VERBS)}; this has {len(self._verbs)}.")
        conditional = bool(self.needs or self.unless)
        if self.otherwise and not conditional:
            raise ValueError("otherwise is for a step that is not always done: needs: […] or unless: […].")
        if conditional and bool(self.keep) != any(step.keep for step in self.otherwise):
            raise ValueError(
                "keep is no step that may be left out: filters that cannot judge keep everything, and in place of keep"
                " stands another keep."
            )
        keep_is_last(self.otherwise)
        return self

    @property
    def _verbs(self) -> list[str]:
        return [name for name in _VERBS if name in self.model_fields_set]

    @property
    def verb(self) -> str:
        """Which of them it is."""
        return self._verbs[0]

    @property
    def datasets(self) -> list[str]:
        """The datasets that it reads besides the stage's own samples."""
        otherwise = (name for step in self.otherwise for name in step.datasets)
        return [*datasets_in(getattr(self, self.verb)), *otherwise]

    @property
    def plain(self) -> GraphStep:
        """The step as it runs."""
        otherwise = tuple(step.plain for step in self.otherwise)
        return GraphStep(self.verb, getattr(self, self.verb), tuple(self.needs), tuple(self.unless), otherwise)


class YamlSteps(Named):
    """A dataset that is read within a stage, with steps of its own.

    Attributes:
        of: the dataset that they begin with.
        steps: what is done with it, in order.
    """

    of: str
    steps: list[YamlStep] = []

    @field_validator("steps")
    @classmethod
    def _keep_is_last(cls, steps: list[YamlStep]) -> list[YamlStep]:
        return keep_is_last(steps)


def keep_is_last(steps: list[YamlStep]) -> list[YamlStep]:
    """Steps, of which only the last may filter with reasons.

    Raises:
        ValueError: another one does.
    """
    if any(step.keep for step in steps[:-1]):
        raise ValueError("keep is the last step of a stage: what goes on with what is kept is the next stage.")
    return steps


def run_steps(
    samples: DatasetQuery, steps: Iterable[GraphStep], inputs: Mapping[str, DatasetQuery]
) -> DatasetQuery | Kept:
    """What steps make of samples; what is left out is noted (see `omissions`).

    Args:
        steps: in order.
        inputs: the datasets that they name.
    """
    found: DatasetQuery | Kept = samples
    for step in steps:
        assert isinstance(found, DatasetQuery)
        if why := step.obstacle(found):
            instead = f"; {', '.join(one.verb for one in step.otherwise)} in its place" if step.otherwise else ""
            note_omission(f"The step {step.verb} is not done: {why}{instead}.")
            found = run_steps(found, step.otherwise, inputs)
        else:
            found = _VERBS[step.verb](found, step.given, inputs)
    return found


def _with_signals(
    samples: DatasetQuery, given: Iterable[Signal | YamlUse], inputs: Mapping[str, DatasetQuery]
) -> DatasetQuery:
    signals = [one.made(inputs) if isinstance(one, YamlUse) else one for one in given]
    lacking = [one for one in signals if one.name not in samples.columns]
    without = not_computable(lacking, samples.columns)
    for one in signals:
        if one.name in samples.columns:
            note_omission(f"No {one.name!r} is computed: the samples have it.")
        elif one.name in without:
            note_omission(without[one.name])
    return samples.add_signals(*(one for one in lacking if one.name not in without))


def _selected(samples: DatasetQuery, names: Sequence[str], inputs: Mapping[str, DatasetQuery]) -> DatasetQuery:
    there = [name for name in names if name in samples.columns]
    for name in names:
        if name not in there:
            note_omission(f"No {name!r} is selected: the samples have no such column.")
    return samples.select(*there)


_VERBS: Mapping[str, Callable[[DatasetQuery, Any, Mapping[str, DatasetQuery]], DatasetQuery | Kept]] = {
    "signals": _with_signals,
    "columns": lambda samples, given, inputs: samples.mutate(**{name: sql_text(sql) for name, sql in given.items()}),
    "select": _selected,
    "apply": lambda samples, given, inputs: given.made(inputs, samples),
    "union": lambda samples, given, inputs: samples.union(*(one.made(inputs) for one in given)),
    "filter": lambda samples, given, inputs: samples.filter(*given),
    "keep": lambda samples, given, inputs: keep(samples, *(use.made(inputs) for use in given)),
}
