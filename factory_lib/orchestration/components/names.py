"""Names in YAML: what is written has to be there, and what is not is told with the nearest that is."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from factory_lib.errors import nearest
from factory_lib.signals.declared import check_declared


class Named(BaseModel):
    """A mapping in YAML whose keys are names: an unknown one is told where it stands, with the nearest known one.

    Nothing is compared with NaN: no value is below or above it.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    @model_validator(mode="before")
    @classmethod
    def _known_names(cls, given: Any) -> Any:
        if isinstance(given, Mapping):
            refuse_unknown(given, cls.model_fields, cls.__name__)
            if wrong := [name for name, value in given.items() if isinstance(value, float) and math.isnan(value)]:
                raise at_places(cls.__name__, {(name,): "nan is no number to go by." for name in wrong})
        return given


def refuse_unknown(given: Mapping[Any, Any], known: Iterable[str], where: str) -> None:
    """Raise for keys that are no known names.

    Raises:
        ValidationError: an error for each of them, at its place.
    """
    names = list(known)
    wrong = [name for name in given if name not in names]
    if wrong:
        raise at_places(where, {(name,): unknown(str(name), names) for name in wrong})


def unknown(name: str, known: Iterable[str]) -> str:
    """That there is no such name, and which is nearest."""
    return " ".join(filter(None, (f"there is no {name!r}.", nearest(name, list(known)))))


def at_places(where: str, said: Mapping[tuple[str | int, ...], str]) -> ValidationError:
    """An error for each place, which Dagster shows with file, line and column."""
    details = [
        InitErrorDetails(type="value_error", loc=place, input=None, ctx={"error": ValueError(text)})
        for place, text in said.items()
    ]
    return ValidationError.from_exception_data(where, details)


def imported(name: str) -> Any:
    """What a dotted name means: `package.module.attribute`, or `package.module.Class.method`.

    Raises:
        ValueError: it means nothing; the nearest name in its module is told.
        SignalError: the module only lies in the current folder.
    """
    above, _, attribute = name.rpartition(".")
    if above.rpartition(".")[2][:1].isupper():
        return _attribute(imported(above), attribute)
    check_declared(above.partition(".")[0], f"YAML names {name!r}")
    try:
        found = importlib.import_module(above)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{above}.".startswith(f"{error.name}."):
            raise  # the module is there, and lacks another
        raise ValueError(f"there is no module {error.name!r}.") from None
    return _attribute(found, attribute)


def _attribute(found: Any, name: str) -> Any:
    if not hasattr(found, name):
        raise ValueError(unknown(name, [one for one in vars(found) if not one.startswith("_")]))
    return getattr(found, name)
