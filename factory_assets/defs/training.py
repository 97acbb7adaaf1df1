"""Training: a model on the training set."""

from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from factory_assets.defs.curation import split
from factory_assets.training.asset import not_trained, train_model
from factory_assets.training.checks import model_check_specs
from factory_assets.training.config import TrainingConfig
from factory_assets.training.rule import WORTH_TRAINING, TrainingIsDue, check_worth_training, due, evaluation_of
from factory_lib.curation.rules import Without, keep
from factory_lib.orchestration.automation.conditions import whole_condition
from factory_lib.orchestration.code import code_metadata
from factory_lib.plan.expressions import C
from factory_lib.query import DatasetQuery
from factory_lib.signals.fingerprint import code_components, digest
from factory_lib.warehouse.arrow_types import is_pointer


def trained_by() -> Sequence[Callable[..., Any]]:
    """What a model depends on, imported when it is asked for: the graph loads without torch."""
    from factory_assets.training.pairs import exam_batches, training_batches
    from factory_assets.training.program import train

    return train, training_batches, exam_batches


CODE = code_components(trained_by)


@dg.asset(
    group_name="training",
    kinds={"pytorch"},
    owners=["team:training"],
    code_version=digest(CODE),
    metadata=code_metadata(CODE),
    ins={"training_set": dg.AssetIn(input_manager_key="versions")},
    check_specs=model_check_specs("trained_model"),
    automation_condition=whole_condition(TrainingIsDue(training_set="training_set")),
)
def trained_model(
    context: dg.AssetExecutionContext, config: TrainingConfig, training_set: DatasetQuery
) -> dg.MaterializeResult:  # type: ignore[type-arg]
    """A TinyCLIP trained on the training set, and the same model on as many uncurated samples to compare with.

    Both are scored on samples from before the filters, which would choose an easy exam; copies of others are left out.
    """
    columns = training_set.columns
    if not is_pointer(columns.get("image", "")) or "caption" not in columns:
        return not_trained("these samples have no captions, or no pictures, to learn from.")
    # neither is an input: other uncurated samples are no reason to train again
    uncurated = DatasetQuery("image_signals")
    uncurated = uncurated.mutate(split=split(uncurated.columns))
    copies = Without(DatasetQuery("duplicates"), "duplicate of a better sample")
    exam = keep(uncurated.filter(C.split == "test"), copies).samples
    return train_model(context, training_set, uncurated.filter(C.split == "train"), config, code=CODE, exam=exam)


@dg.asset_check(asset="trained_model", name=WORTH_TRAINING)
def worth_training(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    """What share of the samples has changed since the last training, what is waited for, and what it would cost."""
    graph = context.job_def.asset_layer.asset_graph
    return check_worth_training(due(context.instance, graph, dg.AssetKey("trained_model"), "training_set"))


def tell_worth_training(instance: dg.DagsterInstance, graph: Any) -> dg.AssetCheckEvaluation:
    """The same, as the sensor records it when it says something else."""
    found = due(instance, graph, dg.AssetKey("trained_model"), "training_set")
    return evaluation_of(found, dg.AssetKey("trained_model"))
