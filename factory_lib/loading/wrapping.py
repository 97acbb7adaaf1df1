"""The dataset as a `DataLoader`, for what asks for one: Lightning, accelerate, Hugging Face's Trainer.

A `BatchDataset` has taken this rank's part already. Lightning leaves iterable datasets alone, but accelerate, and with
it the Trainer, deals out an iterable dataset once more: every rank would see a part of its part, or all ranks that of
the first. `BatchLoader` is one that they take as it is; elsewhere that mistake is an error.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from torch.utils.data import DataLoader

from factory_lib.errors import LoaderError

if TYPE_CHECKING:
    from factory_lib.loading.dataset import BatchDataset
    from factory_lib.loading.devices import Device

_SHARDING = {"DataLoaderDispatcher", "IterableDatasetShard"}  # of accelerate.data_loader
_SKIPPING = "SkipDataLoader"  # of accelerate.data_loader
_ATTACH = "factory_lib.loading.trainer.attach(dataset, trainer)"


class BatchLoader(DataLoader[Any]):
    """Batches of a `BatchDataset`, on a device; made by `BatchDataset.loader`.

    Its length is that of a whole epoch, also when the first iteration goes through the rest of one: frameworks count
    steps by it.
    """

    _is_accelerate_prepared = True  # what accelerate's prepare() asks before it wraps a loader
    use_stateful_dataloader = True  # what accelerate's save_state() asks before it keeps a loader's state

    def __init__(self, dataset: BatchDataset, device: Device | None) -> None:
        super().__init__(dataset, batch_size=None)
        self._batches, self._device = dataset, device
        self.sampler.set_epoch = self.set_epoch  # type: ignore[attr-defined]  # what Lightning looks for

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return self._batches.delivered(self._device)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self._batches.epoch_batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration goes through: frameworks call it with their count of iterations.
        With ``early_end="continue"`` an epoch may take several of those, and the dataset counts for itself.
        """
        if self._batches.early_end == "next":
            self._batches.set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """Where the training is; see `BatchDataset.state_dict`."""
        return self._batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; see `BatchDataset.load_state_dict`."""
        self._batches.load_state_dict(state)


def refuse_second_sharding() -> None:
    """Raise where accelerate iterates in order to deal out the batches anew, or the Trainer in order to skip some.

    Nothing tells a dataset who iterates it, so the callers are looked at, once an iteration.

    Raises:
        LoaderError: says what to use in place.
    """
    if "accelerate.data_loader" not in sys.modules:
        return
    name = ""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__")
        if module == "accelerate.data_loader":
            name = type(frame.f_locals.get("self")).__name__
            if name in _SHARDING:
                raise LoaderError(
                    f"accelerate ({name}) would deal out batches again that are this rank's part already.",
                    f"Give it dataset.loader() in place of a DataLoader; with a Trainer, {_ATTACH}.",
                )
        elif module == "transformers.trainer" and name == _SKIPPING:
            raise LoaderError(
                "The Trainer skips batches on resume without saying of which epoch.",
                f"Let the dataset's state travel in its checkpoints: {_ATTACH}.",
            )
        frame = frame.f_back
