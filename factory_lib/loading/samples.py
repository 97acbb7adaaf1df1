"""The samples of a small version one by one, for a DataLoader with a sampler of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.utils.data import Dataset

from factory_lib.loading import collate
from factory_lib.loading.batches import BatchMaker, BatchRecipe
from factory_lib.loading.tasks import Batch


class SampleDataset(Dataset[Batch]):
    """The samples of a small version by row number, for a DataLoader with a sampler of its own; made by
    ``to_torch(map_style=True)``.
    """

    def __init__(self, recipe: BatchRecipe) -> None:
        self._maker = BatchMaker(recipe)

    def __len__(self) -> int:
        """Rows of the version."""
        return self._maker.rows

    def __getitem__(self, row: int) -> Batch:
        """One sample: tensors without the batch dimension, a raw member as a uint8 tensor."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Batch]:
        """Several samples in one read; DataLoader uses it."""
        return collate.samples(self._maker.given(np.array([range(len(self))[row] for row in rows], np.int64)))
