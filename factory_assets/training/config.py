"""How a model is to be trained, as it is set in Dagster's launchpad."""

from __future__ import annotations

import dagster as dg
from pydantic import Field


class TrainingConfig(dg.Config):
    """Settings of a training run. Those marked * may change between a killed run and the one that takes it up."""

    epochs: int = Field(default=6, ge=1, description="How often each sample is seen.")
    max_steps: int = Field(
        default=1000, ge=0, description="Steps at most, however many samples there are; 0 for no bound."
    )
    global_batch_size: int = Field(default=128, ge=2, description="Samples of a step, over all processes together.")
    seed: int = Field(
        default=0, ge=0, description="Of the weights, of the order of samples and of how pictures are varied."
    )
    learning_rate: float = Field(default=3e-3, gt=0, description="At the top of its cosine cycle.")
    processes: int = Field(default=0, ge=0, description="Processes of torchrun; 0 for one a GPU, or two without. *")
    accelerator: str = Field(default="auto", description="auto (a GPU where there is one), cpu or cuda. *")
    loader_workers: int = Field(
        default=-1,
        ge=-1,
        description="Processes that load for each of those that train; 0 loads in these. -1 for as many as help: none "
        "where the CPU trains, which that fills, up to 8 a GPU. *",
    )
    baseline: bool = Field(
        default=True, description="Train on as many uncurated samples, too, to say what curation gained."
    )
    report_every: int = Field(default=20, ge=1, description="Steps from one report in the event log to the next. *")
    checkpoint_every: int = Field(default=20, ge=1, description="Steps from one checkpoint to the next. *")
    record_samples: bool = Field(
        default=False,
        description="Keep the run's folder, with a list of the samples that each process saw at each step. *",
    )
