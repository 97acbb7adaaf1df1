"""What columns are, in words: for the schema that the UI shows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from factory_lib.plan.nodes import Plan, Signals, walk
from factory_lib.plan.storing import is_pointer
from factory_lib.signals.signal import Signal

SYSTEM = {
    "shard": "The unit of work the sample came in: one tar, or a group of them.",
    "position": "Rank in the shard, so that bytes are read in order.",
    "sample_id": "Hash of where the sample is stored and its key; the same in every version.",
    "key": "Name of the sample in its shard.",
}


def column_docs(columns: Mapping[str, str], plan: Plan) -> dict[str, str]:
    """Column name to a sentence, for those that something is known of.

    Args:
        columns: column name to ClickHouse type.
        plan: the query that made them, whose signals describe themselves.
    """
    signals = {**_bundled(), **{signal.name: signal for signal in _signals_of(plan)}}
    found: dict[str, str] = {}
    for name, ch_type in columns.items():
        base = name.removesuffix("_error")
        if name in SYSTEM:
            found[name] = SYSTEM[name]
        elif is_pointer(ch_type):
            found[name] = f"Where the bytes of the {name} are: uri, offset and size in bytes."
        elif name in signals:
            found[name] = _first_sentence(signals[name])
        elif base != name and base in signals:
            found[name] = f"Why {base} could not be computed; NULL where it was."
    return found


def _first_sentence(signal: Signal) -> str:
    text = " ".join((signal.__doc__ or "").split())
    return text.partition(". ")[0].rstrip(".") + "." if text else f"Signal {signal.name}."


@lru_cache(maxsize=1)
def _bundled() -> dict[str, Signal]:
    from factory_lib.signals import clip, hashes, image, text

    found = {
        value.name: value for module in (hashes, image, text) for value in vars(module).values() if _is_signal(value)
    }
    return {**found, clip.encode_image.name: clip.encode_image, clip.encode_text.name: clip.encode_text}


def _is_signal(value: Any) -> bool:
    return isinstance(value, Signal)


def _signals_of(plan: Plan) -> list[Signal]:
    return [signal for node in walk(plan) if isinstance(node, Signals) for signal in node.signals]
