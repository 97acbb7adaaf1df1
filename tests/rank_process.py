"""One process of a plain training under torchrun: epochs that end early, an evaluation in between, a resume in the middle.
Writes as JSON what it saw.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from factory_lib.loading.dataset import BatchDataset, to_torch
from tests.loading_rows import reader_of, write_shards

ROWS = 120


def load(folder: Path, **arguments: Any) -> BatchDataset:
    """The same rows in every process; the rank is that of torch.distributed."""
    table = write_shards(folder, [50, 70], lambda n: n.to_bytes(2, "little"))
    options = {"members": [], "columns": ["number"], "global_batch_size": 24, "progress": False, **arguments}
    return to_torch(reader_of(table), "ranks", **options)


def taken(batches: Any, count: int) -> list[list[int]]:
    """The numbers of so many batches; all ranks stay in step."""
    found = []
    for batch in batches:
        found.append(batch["number"].tolist())
        torch.distributed.all_reduce(torch.ones(1))
        if len(found) == count:
            break
    return found


def lightning(folder: Path, shards: Path) -> dict[str, Any] | None:
    """What Lightning's Trainer shows a model of three epochs that end early, also after resumes; None without it."""
    if importlib.util.find_spec("pytorch_lightning") is None:
        return None
    from tests.lightning_model import fit

    exam = load(shards, shuffle=False, tail="mask")
    whole = fit(load(shards), exam, folder / "whole")
    rests = {
        step: fit(load(shards), exam, folder / f"from{step}", folder / "whole" / f"step={step}.ckpt").batches
        for step in (2, 3, 7)
    }
    return {"whole": whole.batches, "exams": whole.exams, "rests": rests}


def main(folder: Path) -> None:
    """Train and write what was seen."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    shards = folder / f"shards{rank}"
    training, exam = load(shards), load(shards, shuffle=False, tail="mask")
    found: dict[str, Any] = {"first": taken(training, 3)}
    found["exam"] = [n for batch in exam for n in batch["number"][batch["mask"]].tolist()]
    found["second"] = taken(training, 2)
    state = training.state_dict()
    states: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(states, state)
    resumed = load(shards)
    resumed.load_state_dict(states[0])
    found |= {"alike": all(other == state for other in states), "rest": taken(resumed, 99), "rank": resumed.rank}
    plain = load(shards)
    found["plain"] = [taken(plain, 99) for _ in range(3)]
    found["lightning"] = lightning(folder, shards)  # on the group that there is
    (folder / f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    os.environ["FACTORY_HOME"] = str(Path(sys.argv[1]) / f"home{os.environ['RANK']}")
    main(Path(sys.argv[1]))
