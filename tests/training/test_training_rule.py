"""When a model is trained by itself: the rule on a real graph, with a model that stands for training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from factory_assets.training.rule import Due, Rule, TrainingIsDue, due
from factory_lib import DatasetQuery
from factory_lib.errors import SettingsError
from factory_lib.orchestration.automation.conditions import whole_condition
from factory_lib.orchestration.stage import stage
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve
from tests.dagster_graph import Daemon, look, over_samples, write_tar

MODEL = dg.AssetKey("model")
TEN = [f"caption number {n}" for n in range(10)]


def learning(folder: Path, code: str = "1") -> dg.Definitions:
    """samples -> lessons -> model."""

    @stage(group="test")
    def lessons(samples: DatasetQuery) -> DatasetQuery:
        """What is learnt."""
        return samples.select("key", "caption")

    @dg.asset(
        code_version=code, deps=["lessons"], automation_condition=whole_condition(TrainingIsDue(training_set="lessons"))
    )
    def model() -> dg.MaterializeResult:  # type: ignore[type-arg]
        """A model."""
        version = resolve(warehouse(), "lessons")
        return dg.MaterializeResult(metadata={"trained_on": str(version), "table": version.uuid, "seconds": 41.0})

    return over_samples(folder, lessons, model)


@pytest.fixture
def daemon(tmp_path: Path, engine: None) -> Iterator[Daemon]:
    write_tar(tmp_path / "a.tar", TEN)
    with dg.DagsterInstance.ephemeral() as instance:
        look(instance, tmp_path)
        yield Daemon(instance)


def _due(daemon: Daemon, folder: Path, code: str = "1") -> Due:
    return due(daemon.instance, learning(folder, code).resolve_asset_graph(), MODEL, "lessons")


def test_rules_are_shares_schedules_and_never() -> None:
    assert Rule.of("10%") == Rule.of("0.1") == Rule(share=0.1)
    assert Rule.of("0 2 * * 0") == Rule(cron="0 2 * * 0")
    assert Rule.of("never") == Rule()
    for text in ("often", "150%", "-1"):
        with pytest.raises(SettingsError, match="no rule for training"):
            Rule.of(text)


def test_a_model_waits_until_enough_has_come(daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_TRAIN", "30%")
    daemon.settle(learning(tmp_path))
    assert daemon.runs[-1] == (("model",), ())
    daemon.clear()
    write_tar(tmp_path / "b.tar", ["one more"])  # 1 of 11
    look(daemon.instance, tmp_path)
    daemon.settle(learning(tmp_path))
    assert [names for names, _ in daemon.runs] == [("samples",), ("lessons",)]
    found = _due(daemon, tmp_path)
    assert (found.is_due, found.share) == (False, pytest.approx(1 / 11))
    assert "9.1% of 11 samples" in found.said
    assert "30% are waited for" in found.said
    assert "41 s" in found.said
    daemon.clear()
    write_tar(tmp_path / "a.tar", [*TEN[:7], "x", "y", "z"])  # 3 of these 11, too
    look(daemon.instance, tmp_path)
    daemon.settle(learning(tmp_path))
    assert [names for names, _ in daemon.runs] == [("samples",), ("lessons",), ("model",)]
    assert not _due(daemon, tmp_path).is_due


def test_other_code_is_a_reason_and_never_is_never(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.settle(learning(tmp_path))
    found = _due(daemon, tmp_path, code="2")
    assert (found.is_due, "code of the training changed" in found.said) == (True, True)
    monkeypatch.setenv("FACTORY_TRAIN", "never")
    assert not _due(daemon, tmp_path, code="2").is_due


def test_a_schedule_is_kept_however_late_anybody_looks(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_TRAIN", "0 2 * * *")
    daemon.settle(learning(tmp_path))
    event = daemon.instance.get_latest_materialization_event(MODEL)
    assert event is not None
    write_tar(tmp_path / "b.tar", ["one more"])
    look(daemon.instance, tmp_path)
    clock = "factory_assets.training.rule.get_current_timestamp"
    monkeypatch.setattr(clock, lambda: event.timestamp)
    daemon.settle(learning(tmp_path))
    assert not _due(daemon, tmp_path).is_due
    monkeypatch.setattr(clock, lambda: event.timestamp + 3 * 86_400)
    assert _due(daemon, tmp_path).is_due
