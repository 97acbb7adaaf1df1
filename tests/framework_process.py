"""One process of a training with accelerate and with Hugging Face's Trainer; prints as JSON which samples it saw.

Started by `test_loader_frameworks`, once a rank, with the variables that torchrun sets.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from factory_lib.errors import LoaderError
from factory_lib.loading.dataset import BatchDataset, to_torch
from factory_lib.loading.trainer import attach
from tests.loading_rows import numbers, reader_of, write_shards

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


class Seen(TrainerCallback):
    """Notes what the model had been shown whenever an evaluation began."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.training: list[list[int]] = []
        self.exams: list[list[int]] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """What was shown since is the training's."""
        self.training += self.model.seen
        self.model.seen.clear()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        """What was shown since is the evaluation's."""
        self.exams.append([n for batch in self.model.seen for n in batch])
        self.model.seen.clear()


def trained(folder: Path, target: Path, resume: str | None = None, **arguments: Any) -> dict[str, Any]:
    """Batches that the Trainer showed the model, with an evaluation after every third step."""
    model = Model()
    options: dict[str, Any] = {"num_train_epochs": 2, "report_to": [], "disable_tqdm": True, "save_strategy": "steps"}
    options |= {"use_cpu": True, "remove_unused_columns": False, "logging_strategy": "no", "save_steps": 1}
    options |= {"eval_strategy": "steps", "eval_steps": 3, "prediction_loss_only": True, **arguments}
    trainer = Trainer(model, TrainingArguments(str(target), **options), eval_dataset=[{"number": 0}])
    attach(load(folder), trainer)
    exam = load(folder, shuffle=False, tail="repeat").loader()
    trainer.get_eval_dataloader = lambda *_: exam  # type: ignore[method-assign,assignment]
    seen = Seen(model)
    trainer.add_callback(seen)
    trainer.train(resume_from_checkpoint=resume and str(target / resume))
    return {"batches": seen.training, "exams": seen.exams, "steps": trainer.state.global_step}


def skipped(folder: Path, target: Path) -> None:
    """Resume a Trainer that was given the loader alone."""
    options: dict[str, Any] = {"report_to": [], "disable_tqdm": True, "use_cpu": True, "save_strategy": "no"}
    trainer = Trainer(Model(), TrainingArguments(str(target), remove_unused_columns=False, max_steps=9, **options))
    trainer.get_train_dataloader = load(folder).loader  # type: ignore[method-assign]
    trainer.train(resume_from_checkpoint=str(target / "checkpoint-2"))


def accelerated(folder: Path, target: Path) -> dict[str, Any]:
    """What a loop with accelerate sees: an epoch that ends early, an evaluation, a saved state that is taken up."""
    accelerator = Accelerator(cpu=True)
    dataset = load(folder)
    loader = accelerator.prepare(dataset.loader(accelerator.device))
    found: dict[str, Any] = {"epochs": [numbers(loader) for _ in range(2)], "early": numbers(loader, 2)}
    exam = accelerator.prepare(load(folder, shuffle=False, tail="mask", global_batch_size=100).loader())
    gathered = [accelerator.gather(torch.where(batch["mask"], batch["number"], -1)).tolist() for batch in exam]
    found["exam"] = [n for batch in gathered for n in batch if n >= 0]
    numbers(loader, 3)
    accelerator.save_state(str(target))
    accelerator.free_memory()
    again = Accelerator(cpu=True)
    resumed = again.prepare(load(folder).loader())
    again.load_state(str(target))
    found |= {"rest": numbers(resumed), "fifth": numbers(resumed), "rank": dataset.rank}
    plain = load(folder)
    found["plain"] = [numbers(plain) for _ in range(5)]
    other = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=False))
    shards = DataLoader(load(folder), batch_size=1, collate_fn=lambda batches: batches[0])
    found["sharded"] = refused(lambda: next(iter(other.prepare_data_loader(shards))))
    return found


def main(folder: Path, common: Path) -> None:
    """Run everything and print it.

    Args:
        folder: this rank's own.
        common: of all ranks, for checkpoints.
    """
    found = accelerated(folder, common / "accelerate")
    whole = trained(folder, common / "trainer")
    rests = {step: trained(folder, common / "trainer", f"checkpoint-{step}", save_strategy="no") for step in (2, 5, 6)}
    early = trained(folder, common / "early", max_steps=3)
    skipping = refused(lambda: skipped(folder, common / "trainer"))
    print(json.dumps({**found, "whole": whole, "rests": rests, "short": early, "skipping": skipping}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
