"""The samples of a small version one by one, for a DataLoader with a sampler of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from factory_lib.loading.batches import Batch, BatchMaker, Recipe


class SampleDataset(Dataset[Batch]):
    """The samples of a small version by row number, for a DataLoader with a sampler of its own; made by
    ``to_torch(map_style=True)``.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._maker = BatchMaker(recipe)

    def __len__(self) -> int:
        """Rows of the version."""
        return self._maker.rows

    def __getitem__(self, row: int) -> Batch:
        """One sample: tensors without the batch dimension, a raw member as a uint8 tensor."""
        batch = self._maker.given(np.array([range(len(self))[row]], np.int64))
        return {name: _first(value) for name, value in batch.items()} if isinstance(batch, dict) else batch

    def __getitems__(self, rows: Sequence[int]) -> list[Batch]:
        """Several samples in one read; DataLoader uses it."""
        batch = self._maker.given(np.array([range(len(self))[row] for row in rows], np.int64))
        return [{name: _item(value, i) for name, value in batch.items()} for i in range(len(rows))]


def _first(value: Any) -> Any:
    return _item(value, 0)


def _item(value: Any, index: int) -> Any:
    if isinstance(value, dict) and set(value) == {"data", "offsets"}:
        return value["data"][value["offsets"][index] : value["offsets"][index + 1]]
    if isinstance(value, dict):
        return {name: _item(part, index) for name, part in value.items()}
    return value[index]
