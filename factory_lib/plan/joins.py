"""Which columns a join has, and where each comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from factory_lib.errors import QueryError
from factory_lib.plan.nodes import Join
from factory_lib.plan.select import Select
from factory_lib.plan.storing import SYSTEM


def joined(left: Select, right: Select, how: str, pairs: Sequence[tuple[str, str]], suffix: str) -> Join:
    """Two queries side by side: the key columns that both call the same once, taken names of the right with a suffix.

    Raises:
        QueryError: a name is taken with the suffix, too.
    """
    columns = {name: ("l", name) for name in left.columns}
    shared = {b for a, b in pairs if a == b}
    for name in right.columns:
        if name in shared or (name in SYSTEM and name in left.columns):
            continue
        out = name if name not in columns else f"{name}{suffix}"
        if out in columns:
            raise QueryError(f"Both sides of the join have a column {out!r}.", "Choose another suffix=.")
        columns[out] = ("r", name)
    return Join(left, right, how, tuple(pairs), columns)


def key_pairs(on: str | Sequence[str] | Mapping[str, str]) -> list[tuple[str, str]]:
    """Columns to join on, as (name left, name right).

    Raises:
        QueryError: there are none.
    """
    if isinstance(on, str):
        return [(on, on)]
    pairs = list(on.items()) if isinstance(on, Mapping) else [(name, name) for name in on]
    if not pairs:
        raise QueryError("join() needs at least one column to join on.")
    return pairs
