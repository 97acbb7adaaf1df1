"""The last asset: a model trained on a version under torchrun, followed live, stored with what it was trained on."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_assets.training.checks import model_checks, unanswered_checks
from factory_assets.training.config import TrainingConfig
from factory_assets.training.metadata import live_line, live_metadata, model_metadata
from factory_assets.training.setup import Setup, alone, set_up
from factory_assets.training.torchrun import torchrun
from factory_lib import progress
from factory_lib.errors import NothingToLearn
from factory_lib.fingerprints.components import digest
from factory_lib.orchestration.code import code_tags, remember_code
from factory_lib.orchestration.first_line import explained
from factory_lib.orchestration.retrying import tried

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery


def train_model(
    context: dg.AssetExecutionContext,
    data: DatasetQuery,
    baseline: DatasetQuery | None,
    config: TrainingConfig,
    *,
    code: Mapping[str, str],
    exam: DatasetQuery | None = None,
) -> dg.MaterializeResult[None]:
    """Train on the samples of a dataset whose `split` is "train" and score on those where it is "test".

    A run that is killed leaves its checkpoint: the next one with the same data, code and settings goes on there.

    Args:
        data: with `image`, `caption` and `split`.
        baseline: uncurated samples: the same model is trained on as many of them, to say what curation gained.
        config: of the training.
        code: components of the code that trains; a checkpoint of other code is not taken up.
        exam: samples to score on, none of which any model learns from; None for those of `data`.

    Returns:
        The event of the model: its data version is a digest of the weights, its numbers plot over versions. Where the
        samples do not suffice, that of `not_trained`.

    Raises:
        dagster.Failure: it cannot be trained as asked, or a process of the training failed; says why.
    """
    from factory_assets.training.models import models_folder, publish, stored_models

    remember_code(code)
    models = models_folder(context.asset_key.to_python_identifier())
    before = stored_models(models)
    began = time.monotonic()
    previous, say = before[-1].path if before else None, context.log.warning
    with explained(context.asset_key.to_user_string()):
        try:
            setup = tried(lambda: set_up(data, baseline, config, code=digest(code), previous=previous, exam=exam), say)
        except NothingToLearn as error:
            return not_trained(str(error))
        with alone(setup):
            tried(lambda: _train(context, setup), say)
            found = outcome(setup.folder)
            model = publish(models, setup.folder / "model.safetensors")
    _put_away(setup.folder, model.path.stem if config.record_samples else None)
    facts = model.facts()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(hashlib.sha256(model.path.read_bytes()).hexdigest()),
        metadata=model_metadata(found, facts, model.path, time.monotonic() - began),
        check_results=model_checks(found, before[-1] if before else None),
        tags=code_tags(),
    )


def _train(context: dg.AssetExecutionContext, setup: Setup) -> None:
    """Run the training program; called again, it goes on at its checkpoint."""
    from factory_assets.training.program import ERROR

    torchrun(
        context,
        setup.folder,
        module="factory_assets.training.program",
        processes=setup.processes,
        error_file=ERROR,
        on_message=_Follower(context, setup),
    )


def not_trained(why: str) -> dg.MaterializeResult[None]:
    """The event of a model that could not be trained on such data, which is no failure of the graph: its checks say so.

    Args:
        why: a sentence.
    """
    return dg.MaterializeResult(
        data_version=dg.DataVersion("not trained"),
        metadata={"why": why},
        check_results=unanswered_checks(why),
        tags=code_tags(),
    )


def outcome(folder: Path) -> dict[str, Any]:
    """What a training measured: `model`, and `baseline` and `previous` where they are."""
    names = ("model", "baseline", "previous")
    return {name: json.loads(path.read_text()) for name in names if (path := folder / f"{name}.json").exists()}


def _put_away(folder: Path, name: str | None) -> None:
    """Remove the folder of a finished training, or keep it under the name of its model: the next one starts anew."""
    if name is None:
        shutil.rmtree(folder, ignore_errors=True)
        return
    kept = folder.with_name(f"{folder.name}-{name}")
    shutil.rmtree(kept, ignore_errors=True)
    folder.rename(kept)


class _Follower:
    """Puts what a training reports into the event log, as lines and as observations that plot, and on the bar."""

    def __init__(self, context: dg.AssetExecutionContext, setup: Setup) -> None:
        self._context, self._setup = context, setup

    def __call__(self, message: dict[str, Any]) -> None:
        self._context.log.info(live_line(message))
        if message["kind"] != "progress":
            return
        metadata = live_metadata(message, str(self._setup.version))
        self._context.log_event(dg.AssetObservation(self._context.asset_key, metadata=metadata))
        if (report := progress.current()) is not None:
            report(f"training the {message['part']}", message["step"], message["steps"])
