"""What is asked of every version: whether its size is unusual, and whether its stage is up to date."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from factory_lib import DatasetQuery, fn
from factory_lib.errors import FactoryError
from factory_lib.orchestration.behind.unsynced import behind
from factory_lib.orchestration.checks.stage_checks import accept
from factory_lib.orchestration.checks.synced import behind_since, report_synced
from factory_lib.orchestration.checks.volume import ACCEPT, Size, Volume, evaluate, judge
from factory_lib.orchestration.runs.running import run_graph
from factory_lib.orchestration.stage import stage
from factory_lib.plan.expressions import C
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import versions
from tests.dagster_graph import Daemon, look, over_samples, run, write_tar

USUAL = [Size(f"x.v{n}", rows, 1000) for n, rows in enumerate((800, 790, 810), 1)]


@pytest.mark.parametrize(
    ("rows", "rows_in", "color"),
    [
        (800, 1000, "green"),
        (400, 500, "green"),  # half the input, the same share
        (680, 1000, "green"),  # 15 % of what was kept are missing
        (600, 1000, "yellow"),  # 25 %
        (390, 1000, "red"),  # more than half
        (0, 1000, "red"),
        (1000, 1000, "green"),  # 20 points more
        (0, 0, "red"),
        (20, 90, "green"),  # too few to be judged
    ],
)
def test_what_is_kept_is_compared_with_the_median_of_the_versions_before(rows: int, rows_in: int, color: str) -> None:
    assert judge(Size("x.v4", rows, rows_in), USUAL, Volume()).color == color


def test_a_filter_that_suddenly_lets_everything_pass_is_noticed() -> None:
    before = [Size("x.v1", 100, 1000)]
    assert judge(Size("x.v2", 250, 1000), before, Volume()).color == "green"
    assert judge(Size("x.v2", 400, 1000), before, Volume()).color == "yellow"
    assert judge(Size("x.v2", 950, 1000), before, Volume()).color == "red"


def test_without_an_input_rows_are_compared_and_more_of_them_are_no_fault() -> None:
    before = [Size("samples.v1", 1000, None), Size("samples.v2", 1200, None)]
    colors = [judge(Size("samples.v3", rows, None), before, Volume()).color for rows in (9000, 1000, 800, 500, 0)]
    assert colors == ["green", "green", "yellow", "red", "red"]


def test_first_versions_and_small_ones_pass_and_say_so() -> None:
    first = judge(Size("x.v1", 0, 500), [], Volume())
    assert (first.color, "nothing to compare with" in first.said) == ("green", True)
    small = judge(Size("x.v2", 3, 50), [Size("x.v1", 40, 50)], Volume())
    assert (small.color, "not judged" in small.said) == ("green", True)
    assert judge(Size("x.v2", 0, 50), [Size("x.v1", 4, 50)], Volume(may_be_empty=True)).color == "green"


def test_red_versions_are_no_measure_and_accepted_ones_are_the_new_one() -> None:
    good = evaluate(Size("x.v1", 800, 1000), "a", None, (), Volume())
    bad = evaluate(Size("x.v2", 10, 1000), "b", good, (), Volume())
    worse = evaluate(Size("x.v3", 10, 1000), "c", bad, (), Volume())
    assert [one.stops for one in (good, bad, worse)] == [False, True, True]
    taken = evaluate(Size("x.v3", 10, 1000), "c", worse, (), Volume(), accepted="drawings")
    again = evaluate(Size("x.v3", 10, 1000), "c", taken, (), Volume())
    after = evaluate(Size("x.v4", 11, 1000), "d", again, (), Volume())
    assert [one.stops for one in (taken, again, after)] == [False, False, False]
    assert [one.version for one in after.before] == ["x.v3"]


LONG = ["a long caption", "another long one", "still a long one", "long, too"]


def filtered(folder: Path, least: int) -> dg.Definitions:
    """samples -> longer (the whole dataset) -> picked -> model, which stands for training."""
    judged = Volume(least=1)

    @stage(group="test", volume=judged)
    def longer(samples: DatasetQuery) -> DatasetQuery:
        """Long captions."""
        return samples.filter(fn.length(C.caption) >= least)

    @stage(group="test", volume=judged)
    def picked(longer: DatasetQuery) -> DatasetQuery:
        """The same."""
        return longer.mutate(n=fn.length(C.caption))

    return over_samples(folder, longer, picked)


@pytest.fixture
def daemon(tmp_path: Path, engine: None) -> Iterator[Daemon]:
    write_tar(tmp_path / "a.tar", LONG)
    with dg.DagsterInstance.ephemeral() as instance:
        look(instance, tmp_path)
        yield Daemon(instance)


def _volume(instance: dg.DagsterInstance, asset: str) -> tuple[bool, str, str]:
    check = dg.AssetCheckKey(dg.AssetKey(asset), "volume")
    evaluation = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)[0].evaluation
    assert evaluation is not None
    return evaluation.passed, evaluation.severity.value, str(evaluation.description)


def _names(dataset: str) -> list[str]:
    return [str(one) for one in versions(warehouse(), dataset)]


def test_automation_stops_behind_a_version_that_looks_wrong_until_someone_accepts_it(
    daemon: Daemon, tmp_path: Path
) -> None:
    daemon.settle(filtered(tmp_path, 3))
    daemon.clear()
    daemon.settle(filtered(tmp_path, 17))  # no caption is so long
    assert daemon.made == [{"longer": ()}]
    passed, severity, said = _volume(daemon.instance, "longer")
    assert (passed, severity) == (False, "ERROR")
    assert "Nothing is left" in said
    assert _names("picked") == ["picked.v1"]
    assert daemon.settle(filtered(tmp_path, 17)) == 0
    accept(daemon.instance, dg.AssetKey("longer"), "only the longest")
    assert _volume(daemon.instance, "longer")[:2] == (True, "WARN")
    daemon.clear()
    daemon.settle(filtered(tmp_path, 17))
    assert daemon.made == [{"picked": ()}]
    with pytest.raises(FactoryError, match="not red"):
        accept(daemon.instance, dg.AssetKey("longer"), "again")


def test_a_run_with_the_tag_accepts_and_other_data_is_judged_anew(daemon: Daemon, tmp_path: Path) -> None:
    daemon.settle(filtered(tmp_path, 3))
    daemon.settle(filtered(tmp_path, 17))
    result = run(filtered(tmp_path, 17), daemon.instance, ["longer"], tags={ACCEPT: "so it is meant"})
    assert result.success
    assert "so it is meant" in _volume(daemon.instance, "longer")[2]
    assert _volume(daemon.instance, "longer")[0]


def test_other_data_is_judged_anew_and_what_waited_runs(daemon: Daemon, tmp_path: Path) -> None:
    daemon.settle(filtered(tmp_path, 3))
    daemon.settle(filtered(tmp_path, 17))
    assert not _volume(daemon.instance, "longer")[0]
    daemon.clear()
    daemon.settle(filtered(tmp_path, 9))  # mended
    assert _volume(daemon.instance, "longer")[0]
    # what was empty is not what `picked` was made of; what it is now is
    assert daemon.made == [{"longer": ()}]


def test_a_run_of_a_person_stops_there_too(daemon: Daemon, tmp_path: Path) -> None:
    daemon.settle(filtered(tmp_path, 3))
    result = run(filtered(tmp_path, 17), daemon.instance, ["longer", "picked"])
    assert not result.success
    assert _names("longer") == ["longer.v1", "longer.v2"]
    assert _names("picked") == ["picked.v1"]


def test_running_what_is_behind_stops_there_too_and_says_so(daemon: Daemon, tmp_path: Path) -> None:
    run_graph(daemon.instance, filtered(tmp_path, 3))
    assert "looks wrong" in run_graph(daemon.instance, filtered(tmp_path, 17)).errors[0]
    assert _names("picked") == ["picked.v1"]
    again = run_graph(daemon.instance, filtered(tmp_path, 17))
    assert again.runs == []
    assert "factory accept longer" in again.stopped[0]
    accept(daemon.instance, dg.AssetKey("longer"), "only the longest")
    assert [one.stages for one in run_graph(daemon.instance, filtered(tmp_path, 17)).runs] == [("picked",)]


def _synced(instance: dg.DagsterInstance, asset: str) -> tuple[bool, str, str]:
    check = dg.AssetCheckKey(dg.AssetKey(asset), "synced")
    evaluation = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)[0].evaluation
    assert evaluation is not None
    return evaluation.passed, evaluation.severity.value, str(evaluation.description)


def test_a_stage_that_is_behind_is_yellow_and_red_when_it_has_been_for_too_long(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_700_000_000.0
    monkeypatch.setattr("factory_lib.orchestration.checks.synced.get_current_timestamp", lambda: now)
    daemon.settle(filtered(tmp_path, 3))
    changed = filtered(tmp_path, 4).resolve_asset_graph()
    report_synced(daemon.instance, changed)
    assert _synced(daemon.instance, "samples")[0]
    passed, severity, said = _synced(daemon.instance, "longer")
    assert (passed, severity, "made by other code" in said) == (False, "WARN", True)
    now += 23 * 3600
    report_synced(daemon.instance, changed)
    assert _synced(daemon.instance, "longer")[:2] == (False, "WARN")
    now += 2 * 3600
    report_synced(daemon.instance, changed)
    assert _synced(daemon.instance, "longer")[:2] == (False, "ERROR")
    assert "more than 24 hours" in _synced(daemon.instance, "longer")[2]
    run(filtered(tmp_path, 4), daemon.instance, ["longer"])
    assert _synced(daemon.instance, "longer") == (True, "WARN", "Up to date.")


def test_of_an_input_it_counts_from_when_that_changed(daemon: Daemon, tmp_path: Path) -> None:
    daemon.settle(filtered(tmp_path, 3))
    graph = filtered(tmp_path, 3).resolve_asset_graph()
    key = dg.AssetKey("longer")
    for caption in ("first change", "second change"):
        write_tar(tmp_path / "a.tar", [*LONG, caption])
        look(daemon.instance, tmp_path)
        run(filtered(tmp_path, 3), daemon.instance, ["samples"], ["a"])
    changes = daemon.instance.fetch_materializations(dg.AssetKey("samples"), limit=10, ascending=True).records[1:]
    since = behind_since(daemon.instance, graph, key, list(behind(daemon.instance, graph, key)))
    assert since == changes[0].timestamp
