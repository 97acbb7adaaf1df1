"""Training: a model on the training set."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.conditions import whole_condition
from factory_lib.orchestration.training_asset import ABOVE_CHANCE, train_model
from factory_lib.query import DatasetQuery
from factory_lib.signals.fingerprint import code_components, digest

if TYPE_CHECKING:
    from factory_lib.training.job import TrainingReport


def training(*args: Any, **named: Any) -> "TrainingReport":
    """The training itself, imported when it runs: the graph loads without torch."""
    from factory_lib.training.job import train

    return train(*args, **named)


@dg.asset(
    group_name="training",
    kinds={"pytorch"},
    owners=["team:training"],
    code_version=digest(code_components(training)),
    ins={"training_set": dg.AssetIn(input_manager_key="versions")},
    check_specs=[dg.AssetCheckSpec(ABOVE_CHANCE, asset="trained_model", description="The model has learnt something.")],
    automation_condition=whole_condition(),
)
def trained_model(context: dg.AssetExecutionContext, training_set: DatasetQuery) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A TinyCLIP trained on the training set, and the same model on as many uncurated samples to compare with."""
    # the baseline is no input: other uncurated samples are no reason to train again
    return train_model(context, training, training_set, baseline=DatasetQuery("samples"))
