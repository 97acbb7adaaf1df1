"""One process of a training with accelerate and with Hugging Face's Trainer; prints as JSON which samples it saw.

Started by `test_loader_frameworks`, once a rank, with the variables that torchrun sets.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from factory_lib.errors import LoaderError
from factory_lib.loading.dataset import BatchDataset, to_torch
from tests.loading_rows import reader_of, write_shards

ROWS = 480


class Model(torch.nn.Module):
    """Learns nothing and notes what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.seen: list[list[int]] = []

    def forward(self, number: torch.Tensor, **_: Any) -> dict[str, torch.Tensor]:
        self.seen.append(number.tolist())
        return {"loss": (self.weight * number.float()).mean()}


def load(folder: Path, **arguments: Any) -> BatchDataset:
    """The same rows in every process; the rank is that of torch.distributed."""
    table = write_shards(folder, [200, 280], lambda n: n.to_bytes(2, "little"))
    options: dict[str, Any] = {"members": [], "columns": ["number"], "global_batch_size": 96, "tail": "drop"}
    return to_torch(reader_of(table), "frameworks", **{**options, **arguments})


def refused(work: Any) -> str:
    try:
        work()
    except LoaderError as error:
        return str(error)
    return ""


def trained(dataset: BatchDataset, folder: str, **arguments: Any) -> tuple[list[list[int]], int]:
    """Batches that the Trainer showed the model in two epochs, and its count of steps."""
    model = Model()
    options: dict[str, Any] = {"num_train_epochs": 2, "report_to": [], "save_strategy": "no", "disable_tqdm": True}
    options |= {"use_cpu": True, "remove_unused_columns": False, "logging_strategy": "no", **arguments}
    trainer = Trainer(model, TrainingArguments(folder, **options))
    trainer.get_train_dataloader = dataset.loader  # type: ignore[method-assign]
    trainer.train()
    return model.seen, trainer.state.global_step


def main(folder: Path) -> None:
    """Run everything and print it."""
    accelerator = Accelerator(cpu=True)
    dataset = load(folder)
    loader = accelerator.prepare(dataset.loader(accelerator.device))
    epochs = [[batch["number"].tolist() for batch in loader] for _ in range(2)]
    again = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False))
    shards = DataLoader(load(folder), batch_size=1, collate_fn=lambda batches: batches[0])
    sharded = refused(lambda: next(iter(again.prepare_data_loader(shards))))
    with tempfile.TemporaryDirectory() as target:
        seen, steps = trained(load(folder), target)
    found = {"rank": dataset.rank, "epochs": epochs, "sharded": sharded}
    print(json.dumps({**found, "trainer": seen, "steps": steps}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
