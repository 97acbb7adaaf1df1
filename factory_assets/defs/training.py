"""Training: a model on the training set."""

import dagster as dg

from factory_lib.orchestration.code import code_metadata
from factory_lib.orchestration.conditions import whole_condition
from factory_lib.orchestration.training_asset import train_model, training_code, training_components
from factory_lib.orchestration.training_checks import model_check_specs
from factory_lib.orchestration.training_config import TrainingConfig
from factory_lib.query import DatasetQuery


@dg.asset(
    group_name="training",
    kinds={"pytorch"},
    owners=["team:training"],
    code_version=training_code(),
    metadata=code_metadata(training_components()),
    ins={"training_set": dg.AssetIn(input_manager_key="versions")},
    check_specs=model_check_specs("trained_model"),
    automation_condition=whole_condition(),
)
def trained_model(
    context: dg.AssetExecutionContext, config: TrainingConfig, training_set: DatasetQuery
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A TinyCLIP trained on the training set, and the same model on as many uncurated samples to compare with."""
    # the baseline is no input: other uncurated samples are no reason to train again
    return train_model(context, training_set, DatasetQuery("samples"), config)
