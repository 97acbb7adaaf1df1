"""How a signal is named in what is kept of it, and found again by that name: plain data, checked before it is used.

A signal is named by the module and attribute that hold it, such as `factory_lib.signals.hashes` and `phash`, with the
columns that it reads and makes where these are not its own; a CLIP model that no module holds by its checkpoint.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any

from factory_lib.errors import SignalError
from factory_lib.fingerprints.places import place_of
from factory_lib.signals.declared import check_declared
from factory_lib.signals.signal import Signal

_CLIP = "factory_lib.signals.clip"


def reference_of(signal: Signal) -> dict[str, Any]:
    """What names a signal, as plain data for `signal_of`.

    Returns:
        `{"name", "inputs"}` with `{"module", "attribute"}`, or `{"clip"}`, or, where nothing that can be imported holds
        it, `{"lost"}`: the reason.
    """
    found: dict[str, Any] = {
        "name": signal.name,
        "inputs": {given.parameter: given.column for given in signal.inputs},
    }
    place = _place(signal)
    if place is not None:
        return {**found, "module": place[0], "attribute": place[1]}
    if type(signal.target).__module__ == _CLIP:
        return {**found, "clip": _clip_fields(signal)}
    return {**found, "lost": _reason(signal)}


def signal_of(reference: Mapping[str, Any]) -> Signal:
    """The signal that a reference names.

    Raises:
        SignalError: it cannot be found any more; the message says why.
    """
    name = str(reference["name"])
    if "lost" in reference:
        raise SignalError(f"Signal {name!r} {reference['lost']}.")
    base = _of_clip(reference["clip"]) if "clip" in reference else _imported(name, reference)
    columns = {str(parameter): str(column) for parameter, column in reference["inputs"].items()}
    known = {given.parameter: given.column for given in base.inputs}
    if columns != known:
        base = base.reading(**columns)
    return base if base.name == name else base.named(name)


def _place(signal: Signal) -> tuple[str, str] | None:
    """Module and attribute that hold the signal, or one of the same target that reads other columns."""
    homes = [signal._home[0], type(signal.target).__module__, getattr(signal.target, "__module__", "") or ""]
    first = [sys.modules[name] for name in dict.fromkeys(homes) if name in sys.modules]
    for nested in (False, True):
        for module in [*first, *(m for m in list(sys.modules.values()) if isinstance(m, ModuleType))]:
            name = getattr(module, "__name__", "")
            if name == "__main__" or sys.modules.get(name) is not module:
                continue
            attributes = [a for a, held in _signals(module, nested) if _is_variant(held, signal)]
            if attributes:
                return name, min(attributes, key=lambda a: (a.startswith("_"), a))
    return None


def _signals(module: ModuleType, nested: bool) -> Iterator[tuple[str, Signal]]:
    """Signals that a module holds: as its globals, or as fields of these."""
    for name, value in list(vars(module).items()):
        if not nested:
            if type(value) is Signal:
                yield name, value
        elif _may_hold_signals(type(value), module):
            fields: dict[str, Any] = object.__getattribute__(value, "__dict__")
            yield from ((f"{name}.{field}", held) for field, held in list(fields.items()) if type(held) is Signal)


def _may_hold_signals(kind: type, module: ModuleType) -> bool:
    """Whether objects of a class are asked for their fields: of others that may run code, or load what is lazy."""
    home = str(kind.__dict__.get("__module__", ""))
    ours = home.startswith("factory_lib.signals") or home == module.__name__
    return ours and kind.__dictoffset__ != 0 and not issubclass(kind, type | ModuleType)


def _is_variant(held: Signal, signal: Signal) -> bool:
    """Whether a signal is another one but for the columns that it reads and makes."""
    same = held.target is signal.target and held.batch == signal.batch and held.output == signal.output
    declared = (held.version, held.pinned, held.truncated) == (signal.version, signal.pinned, signal.truncated)
    kinds = [(g.parameter, g.kind) for g in held.inputs] == [(g.parameter, g.kind) for g in signal.inputs]
    return same and declared and kinds


def _reason(signal: Signal) -> str:
    name = getattr(signal.target, "__qualname__", type(signal.target).__qualname__)
    module = getattr(signal.target, "__module__", "") or type(signal.target).__module__
    if module == "__main__":
        return "was defined in a notebook or script, which cannot be imported"
    if "<locals>" in name:
        return f"was made inside a function ({module}.{name}), where it cannot be imported from"
    return f"is held by no module, and cannot be imported ({module}.{name})"


def _imported(name: str, reference: Mapping[str, Any]) -> Signal:
    module, attribute = str(reference["module"]), str(reference["attribute"])
    where = f"{module}.{attribute}"
    if place_of(module).owner == "python":
        raise SignalError(f"Signal {name!r} is recorded as {where}, which is part of Python.")
    check_declared(module.partition(".")[0], f"Signal {name!r} was {where}")
    try:
        if importlib.util.find_spec(module) is None:
            raise ModuleNotFoundError
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError:
        raise SignalError(f"Signal {name!r} was {where}; there is no such module now.") from None
    except Exception as error:
        raise SignalError(
            f"Signal {name!r} was {where}; importing it fails with {type(error).__name__}: {error}"
        ) from error
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Signal):
        raise SignalError(f"Signal {name!r} was {where}; there is no such signal now.")
    return found


def _clip_fields(signal: Signal) -> dict[str, Any]:
    from factory_lib.signals.checkpoint import BUNDLED

    tower: Any = signal.target
    checkpoint = tower.checkpoint
    path = "tinyclip" if checkpoint.path == BUNDLED else str(checkpoint.path)
    return {
        "checkpoint": checkpoint.repository or path,
        "revision": checkpoint.revision or None,
        "device": tower.device,
        "precision": tower.precision,
        "batch": signal.batch,
        "reads": "image" if type(tower).__name__ == "ImageTower" else "text",
    }


def _of_clip(fields: Mapping[str, Any]) -> Signal:
    from factory_lib.signals.clip import Clip

    model = Clip(
        fields["checkpoint"],
        revision=fields["revision"],
        device=fields["device"],
        precision=fields["precision"],
        batch=fields["batch"],
    )
    return model.encode_image if fields["reads"] == "image" else model.encode_text
