"""A loader's state: what it was taken with, and how that differs from the loader it is given to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from factory_lib.errors import LoaderError

FORMAT = 2
PLACE = ("epoch", "samples")


def check(state: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Raise where a state is of other rows, another order, mix or decoding, or is none.

    Raises:
        LoaderError: names all that differs.
    """
    missing = [name for name in ("format", *PLACE) if name not in state]
    if missing:
        raise LoaderError(
            f"This is no state of a loader: it has no {', '.join(missing)}.", "Give what state_dict() returned."
        )
    wanted = {"format": FORMAT, **facts}
    other = list(_differences({name: state.get(name) for name in wanted}, wanted, ""))
    if other:
        raise LoaderError(
            f"The state was taken with {'; '.join(other[:8])}.",
            "Load the same version with the same arguments, or start anew.",
        )
    if int(state["epoch"]) < 0 or int(state["samples"]) < 0:
        raise LoaderError(f"Epoch {state['epoch']} and sample {state['samples']} of a state cannot be.")


def _differences(theirs: Any, mine: Any, name: str) -> Iterator[str]:
    if isinstance(theirs, Mapping) and isinstance(mine, Mapping):
        for key in dict.fromkeys([*mine, *theirs]):
            yield from _differences(theirs.get(key), mine.get(key), f"{name}.{key}".lstrip("."))
    elif isinstance(theirs, list | tuple) and isinstance(mine, list | tuple) and len(theirs) == len(mine):
        for index, (one, other) in enumerate(zip(theirs, mine, strict=True)):
            yield from _differences(one, other, f"{name}[{index}]")
    elif theirs != mine:
        yield f"{name}={theirs!r}, this loader has {mine!r}"
