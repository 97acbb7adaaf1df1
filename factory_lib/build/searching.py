"""What a search looks for, as a vector: of a text, a picture or a sample, or a vector itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from factory_lib.build.column_signals import signal_behind
from factory_lib.build.ledger import Ledger
from factory_lib.build.session import settled
from factory_lib.errors import NotFound, QueryError, nearest
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.nodes import Table, leaves
from factory_lib.plan.operators import Expr
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.signals.signal import Signal
from factory_lib.warehouse.arrow_types import FLOAT_VECTORS
from factory_lib.warehouse.client import warehouse

if TYPE_CHECKING:
    from factory_lib.signals.clip import Clip
    from factory_lib.signals.encoders import Sought


@dataclass(frozen=True)
class Target:
    """What is looked for: one of these.

    Attributes:
        text: words.
        image: a path, a URI, bytes or a PIL picture.
        sample: a key, or a `sample_id`.
        vector: numbers.
    """

    text: str | None = None
    image: Any = None
    sample: str | int | None = None
    vector: Any = None

    @property
    def given(self) -> list[str]:
        """Names of what is given."""
        return [one.name for one in fields(self) if getattr(self, one.name) is not None]


def target_vector(
    query: Select, kinds: Mapping[str, str], column: str, target: Target, encoder: Signal | Clip | None
) -> NDArray[np.float32]:
    """The vector that is looked for, float32 (width,).

    Args:
        query: what is searched.
        kinds: column -> ClickHouse type of the query.
        column: the column of vectors that is searched.
        encoder: the model that made them; None finds it in what is recorded of the column.

    Raises:
        NotFound: there is no such column or sample.
        QueryError: the column is none of vectors, not exactly one thing is looked for, or it has no vector that can be
            compared with those of the column.
        SignalError: no model is known that encodes what is looked for as the column was.
    """
    if kinds.get(column) not in FLOAT_VECTORS:
        there = [name for name, kind in kinds.items() if kind in FLOAT_VECTORS]
        said = f"the column {column!r} is {kinds[column]}" if column in kinds else f"there is no column {column!r}"
        raise QueryError(
            f"search() compares vectors, and {said} in {query.label}.",
            f"Columns of vectors: {', '.join(there)}." if there else "add_signals(clip.encode_image) computes vectors.",
        )
    if len(target.given) != 1:
        said = " and ".join(f"{name}=" for name in target.given) or "nothing"
        raise QueryError(f"search() was given {said} to look for.", "Give one of text=, image=, sample= and vector=.")
    if target.sample is not None:
        return _checked(_of_sample(query, column, target.sample), f"sample={target.sample!r}")
    if target.vector is not None:
        vector = _checked(target.vector, "vector=…")
        _check_width(query, column, len(vector))
        return vector
    return _encoded(query, column, target, encoder)


def _encoded(query: Select, column: str, target: Target, encoder: Signal | Clip | None) -> NDArray[np.float32]:
    from factory_lib.signals.encoders import encoder_for

    sought: Sought = "text" if target.text is not None else "image"
    known = encoder if isinstance(encoder, Signal) else encoder.encode_image if encoder else None
    made_by = known or signal_behind(query, column)
    vector: NDArray[np.float32] = encoder_for(made_by, sought).one(getattr(target, sought))
    _check_width(query, column, len(vector))
    return vector


def _of_sample(query: Select, column: str, sample: str | int) -> Any:
    """The vector of the sample with a key, or an id.

    Raises:
        NotFound: there is none.
        QueryError: several have that key, with other vectors.
    """
    text = str(sample)
    by_id = C.sample_id == int(text) if text.isdigit() and int(text) < 2**64 else None
    is_it: Expr = C.key == text if by_id is None else (C.key == text) | by_id
    found = _rows(query.filter(is_it), {"sample_id": C.sample_id, "shard": C.shard, "vector": C[column]}, 100)
    if not found:
        keys = [row["key"] for row in _rows(query, {"key": C.key}, 100)]
        hint = nearest(text, keys) or (f"Keys look like {keys[0]!r}." if keys else "")
        raise NotFound(f"search(sample={sample!r}): {query.label} has no sample with that key or id.", hint)
    if len({row["sample_id"] for row in found}) > 1:
        shown = ", ".join(f"{row['sample_id']} (shard {row['shard']})" for row in found[:5])
        raise QueryError(f"search(sample={sample!r}): {len(found)} samples have that key: {shown}.", "Give the id.")
    if not len(found[0]["vector"]):
        raise QueryError(f"search(sample={sample!r}): the sample has no vector in {column!r}.")
    return found[0]["vector"]


def _checked(value: Any, what: str) -> NDArray[np.float32]:
    """Numbers as a vector.

    Raises:
        QueryError: they are none that can be compared.
    """
    try:
        vector = np.asarray(value, np.float32)
    except (TypeError, ValueError):
        raise QueryError(f"search({what}): {type(value).__name__} is no vector of numbers.") from None
    if vector.ndim != 1 or not len(vector):
        raise QueryError(f"search({what}): a vector is a list of numbers, this has the shape {vector.shape}.")
    if not np.isfinite(vector).all():
        raise QueryError(f"search({what}): the vector has numbers that are not finite.")
    if not vector.any():
        raise QueryError(f"search({what}): the vector is all zeros and has no direction.")
    return vector


def _check_width(query: Select, column: str, width: int) -> None:
    """Raise where vectors of a column have another length; of rows that are in no table yet the engine will tell."""
    if all(isinstance(one, Table) for one in leaves(query)):
        rows = _rows(query.filter(fn.length(C[column]) > 0), {"width": fn.length(C[column])}, 1)
        if rows and rows[0]["width"] != width:
            raise QueryError(
                f"search(): the vector has {width} numbers, those of {column!r} have {rows[0]['width']}.",
                "Look for it with the model that made the column.",
            )


def _rows(query: Select, columns: Mapping[str, Expr], count: int) -> list[dict[str, Any]]:
    rendering = Rendering()
    text = rendering.select(settled(query, Ledger()).select(columns).head(count))
    found: list[dict[str, Any]] = warehouse().query(text, rendering.params, rendering.settings).to_pylist()
    return found
