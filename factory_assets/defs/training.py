"""Training: a model on the training set."""

import dagster as dg

from factory_lib.orchestration.conditions import whole_condition
from factory_lib.orchestration.training_asset import ABOVE_CHANCE, train_model
from factory_lib.query import DatasetQuery


@dg.asset(
    group_name="training",
    kinds={"pytorch"},
    owners=["team:training"],
    code_version="1",
    ins={"training_set": dg.AssetIn(input_manager_key="versions")},
    check_specs=[dg.AssetCheckSpec(ABOVE_CHANCE, asset="trained_model", description="The model has learnt something.")],
    automation_condition=whole_condition(),
)
def trained_model(context: dg.AssetExecutionContext, training_set: DatasetQuery) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A TinyCLIP trained on the training set, and the same model trained on as many uncurated samples to compare with."""
    # the baseline is no input: other uncurated samples are no reason to train again
    return train_model(context, training_set, baseline=DatasetQuery("samples"))
