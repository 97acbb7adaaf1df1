"""How right a filter is: what it removed against what a rendered folder's truth says.

Every function takes the truth (`TRUTH` in `rendered.records`) and the keys of the samples before and after a stage.
Precision is the share of the removed samples that deserved it, recall the share of those deserving it that were
removed; None where there is nothing to divide by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from factory_lib.errors import nearest

FAULTS: tuple[str, ...] = ("failed", "broken", "too_small", "uninformative", "unsafe", "mismatched")
"""Columns of the truth that say why a sample should go. Duplicates are `score_duplicates`' matter."""

Keys: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str]


@dataclass(frozen=True)
class FilterScore:
    """What one stage did, in samples.

    Attributes:
        before, after: samples that came and that were kept.
        wanted: samples among `before` that should go.
        caught: samples that should go and went.
    """

    before: int
    after: int
    wanted: int
    caught: int

    @property
    def removed(self) -> int:
        """Samples that went."""
        return self.before - self.after

    @property
    def precision(self) -> float | None:
        """Share of the removed that should go."""
        return self.caught / self.removed if self.removed else None

    @property
    def recall(self) -> float | None:
        """Share of those that should go that went."""
        return self.caught / self.wanted if self.wanted else None


def score_filter(truth: pa.Table, before: Keys, after: Keys, faults: Sequence[str]) -> FilterScore:
    """Score a filter that is to remove the samples with any of some faults.

    Args:
        faults: some of `FAULTS`.

    Raises:
        ValueError: an unknown fault, a key without truth, or `after` has keys that `before` lacks.
    """
    for fault in faults:
        if fault not in FAULTS:
            raise ValueError(f"{fault!r} is no fault. {nearest(fault, FAULTS)}")
    rows, kept = _rows(truth, before, after)
    guilty = np.zeros(len(rows), dtype=bool)
    for fault in faults:
        guilty |= rows[fault].to_numpy()
    return FilterScore(len(rows), int(kept.sum()), int(guilty.sum()), int((guilty & ~kept).sum()))


def score_duplicates(truth: pa.Table, before: Keys, after: Keys) -> FilterScore:
    """Score the removal of duplicates: of every picture one version is to stay, whichever.

    A picture of which nothing is left counts one removed sample as wrongly removed.

    Raises:
        ValueError: a key without truth, or `after` has keys that `before` lacks.
    """
    rows, kept = _rows(truth, before, after)
    _, group = np.unique(rows["picture"].to_numpy(), return_inverse=True)
    versions = np.bincount(group)
    left = np.bincount(group, weights=kept).astype(np.int64)
    caught = versions - np.maximum(left, 1)
    return FilterScore(len(rows), int(kept.sum()), int((versions - 1).sum()), int(caught.sum()))


def removed_by_fault(truth: pa.Table, before: Keys, after: Keys) -> dict[str, tuple[int, int]]:
    """How many rows of each kind came, and how many of them went.

    Returns:
        (came, went) by fault; `copy` are duplicates, the empty name is for rows without fault.
    """
    rows, kept = _rows(truth, before, after)
    fault = np.asarray(rows["fault"].to_pylist(), dtype=object)
    return {name: (int((fault == name).sum()), int(((fault == name) & ~kept).sum())) for name in sorted(set(fault))}


def _rows(truth: pa.Table, before: Keys, after: Keys) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The truth of the samples before, and which of them are there after."""
    first, second = _array(before), _array(after)
    if strange := _missing(first, truth["key"]):
        raise ValueError(f"The truth does not know key {strange!r}.")
    if strange := _missing(second, first):
        raise ValueError(f"Key {strange!r} comes out of the stage but does not go in.")
    rows = truth.filter(pc.is_in(truth["key"], value_set=first))
    kept: NDArray[np.bool_] = pc.is_in(rows["key"], value_set=second).to_numpy()
    return rows, kept


def _array(keys: Keys) -> pa.Array:
    if isinstance(keys, pa.ChunkedArray):
        return keys.combine_chunks()
    return keys if isinstance(keys, pa.Array) else pa.array(keys, pa.string())


def _missing(keys: pa.Array, known: pa.Array | pa.ChunkedArray) -> str | None:
    """A key that is not known, if any."""
    known = known.combine_chunks() if isinstance(known, pa.ChunkedArray) else known
    unknown = keys.filter(pc.invert(pc.is_in(keys, value_set=known)))
    return str(unknown[0]) if len(unknown) else None
