"""How operations are named in what is kept of them, and found again by that name: plain data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from typing import Any

import factory_lib.augmentation as operations
from factory_lib.augmentation.applying import Augmentation
from factory_lib.augmentation.captions import Recaption
from factory_lib.augmentation.encoding import Encoding
from factory_lib.augmentation.operation import Operation
from factory_lib.errors import SignalError
from factory_lib.signals import naming
from factory_lib.signals.signal import Signal


def reference_of(augmentation: Augmentation) -> dict[str, Any]:
    """What names an augmentation, as plain data for `augmentation_of`."""
    return {
        "operations": [_reference(one) for one in augmentation.operations],
        "encoding": asdict(augmentation.encoding),
    }


def augmentation_of(reference: Mapping[str, Any], columns: Collection[str]) -> Augmentation:
    """The augmentation that a reference names.

    Args:
        columns: of the samples.

    Raises:
        SignalError: an operation cannot be found any more; the message says why.
    """
    found = [_operation(one) for one in reference["operations"]]
    return Augmentation.over(found, Encoding(**reference["encoding"]), columns)


def _reference(operation: Operation) -> dict[str, Any]:
    given = {f.name: getattr(operation, f.name) for f in fields(operation)}
    parts = {name: naming.reference_of(v) if isinstance(v, Signal) else v for name, v in given.items()}
    return {"name": type(operation).__name__, "parameters": parts}


def _operation(reference: Mapping[str, Any]) -> Operation:
    name, parameters = str(reference["name"]), dict(reference["parameters"])
    kind = getattr(operations, name, None) if name in operations.__all__ else None
    if not (isinstance(kind, type) and issubclass(kind, Operation)):
        raise SignalError(f"The operation {name!r} is none that comes with this release of the factory.")
    if kind is Recaption:
        parameters["function"] = naming.signal_of(parameters["function"])
    made: Operation = kind(**parameters)
    return made
