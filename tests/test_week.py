"""A week in the life of a project, with Dagster's daemon on: whatever happens, the training set is what it should be.

After each event the training set is compared with the project's definition worked out in plain Python, the runs and
the computed values are counted, and what the UI shows is compared with what is true.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.disks import NoDisks, memory_disk
from factory_lib.orchestration.home import factory_instance
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.space import KEPT_FREE
from tests.dagster_graph import tar_of
from tests.warehouse.test_full_disk import leave_free
from tests.week import Done, Week

AT_ONCE = """
telemetry: {enabled: false}
run_coordinator: {module: dagster.core.run_coordinator, class: DefaultRunCoordinator}
run_monitoring: {enabled: true, start_timeout_seconds: 180, poll_interval_seconds: 10}
"""
"""Dagster's configuration, in which runs are not queued: that would take five seconds of each."""
GREEN = {"ingested": "passed", "all_there": "passed"}


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Week]:
    """A project whose data folder lies on a small disk, where one can be made."""
    tmp_path = tmp_path_factory.mktemp("week")
    with pytest.MonkeyPatch.context() as patch:
        try:
            with memory_disk(tmp_path / "disk", 512) as disk:
                yield from _on(disk, tmp_path, patch)
        except NoDisks:
            yield from _on(tmp_path / "disk", tmp_path, patch)


def _on(disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Week]:
    home = disk / "home"
    for name, value in {"HOME": str(home), "SETTLE_SECONDS": "2", "VANISHED": "0.001", "WORKERS": "2"}.items():
        monkeypatch.setenv(f"FACTORY_{name}", value)
    (tmp_path / "project" / "shards").mkdir(parents=True)
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").write_text(AT_ONCE)
    with factory_instance() as instance:
        project = Week(tmp_path / "project", home, instance)
        try:
            yield project
        finally:
            project.kill_daemon()
            warehouse().close()
            stop_engine(home)


def _captions(shard: str, number: int = 4) -> list[str]:
    return [f"{shard}{'.' * place}" for place in range(number)]


def _check(
    week: Week, done: Done, *, runs: int, computed: int, red: dict[str, list[str]] | None = None, **checks: str
) -> None:
    """The training set is right, no more was done than had to be, and the UI says the truth."""
    assert week.training_set() == week.expected()
    # One more where a tick falls between what belongs together.
    assert done.runs <= runs + bool(runs)
    assert done.computed == computed
    assert done.red == (red or {})
    # what all shards are there by is said when one vanishes for the first time
    assert {"all_there": "passed", **done.checks} == {**GREEN, **checks}


def _after(week: Week, what: Callable[[], object], until: Callable[[], bool] = lambda: True) -> Done:
    with week.event():
        what()
    return week.settled(until)


def the_first_shards_come(week: Week) -> None:
    week.write()
    for shard in ("a", "b", "c"):
        week.put(shard, _captions(shard))
    _check(week, _after(week, week.start), runs=2, computed=12)


def nothing_happens(week: Week) -> None:
    _check(week, _after(week, lambda: None), runs=0, computed=0)


def one_more_comes(week: Week) -> None:
    _check(week, _after(week, lambda: week.put("d", _captions("d"))), runs=2, computed=4)


def two_come_together(week: Week) -> None:
    _check(week, _after(week, lambda: [week.put(s, _captions(s)) for s in ("e", "f")]), runs=2, computed=8)


def one_is_changed_in_place(week: Week) -> None:
    # Three samples are as they were, and one is new.
    _check(week, _after(week, lambda: week.put("b", [*_captions("b", 3), "b is new"])), runs=2, computed=1)


def one_is_uploaded_once_more(week: Week) -> None:
    _check(week, _after(week, lambda: week.put("c", _captions("c"))), runs=2, computed=0)


def one_comes_broken(week: Week) -> None:
    done = _after(week, lambda: week.put("g", [], b"rubbish" * 999))
    _check(week, done, runs=4, computed=0, red={"samples": ["g"]}, ingested="error")


def it_is_uploaded_again(week: Week) -> None:
    _check(week, _after(week, lambda: week.put("g", _captions("g"))), runs=2, computed=4)


def one_breaks_in_the_middle(week: Week) -> None:
    cut = tar_of(_captions("e"))[:2300]  # a sample takes 2,048 bytes; of the second one half a header is there
    _check(week, _after(week, lambda: week.put("e", _captions("e", 1), cut)), runs=2, computed=0, ingested="warn")


def it_is_whole_again(week: Week) -> None:
    done = _after(week, lambda: week.put("e", _captions("e")))
    assert done.computed <= 3
    _check(week, done, runs=2, computed=done.computed)


def one_vanishes(week: Week) -> None:
    done = _after(week, lambda: week.take_away("f"), lambda: "f" not in week.instance.get_dynamic_partitions("shards"))
    _check(week, done, runs=2, computed=0)


def it_comes_back(week: Week) -> None:
    done = _after(week, lambda: week.put("f", _captions("f")))
    assert done.computed <= 4
    _check(week, done, runs=2, computed=done.computed)


def the_threshold_changes(week: Week) -> None:
    _check(week, _after(week, lambda: _code(week, least=3)), runs=1, computed=0)


def the_helper_changes(week: Week) -> None:
    _check(week, _after(week, lambda: _code(week, more=1)), runs=2, computed=_samples(week))


def the_helper_is_written_differently(week: Week) -> None:
    helper = week.folder / "week_helper.py"
    done = _after(week, lambda: (helper.write_text(f"# said again\n{helper.read_text()}"), week.restart()))
    _check(week, done, runs=0, computed=0)


def the_weights_change(week: Week) -> None:
    _check(week, _after(week, lambda: _code(week, weight=2)), runs=2, computed=_samples(week))


def a_worker_is_killed(week: Week) -> None:
    _killed(week, "h", lambda: week.kill("factory_lib.compute.worker"))


def a_run_is_killed(week: Week) -> None:
    _killed(week, "i", lambda: week.kill("execute_run"))


def the_daemon_is_killed(week: Week) -> None:
    _killed(week, "j", lambda: (week.kill_daemon(), week.start()))


def the_engine_is_killed(week: Week) -> None:
    _killed(week, "k", lambda: week.kill("factory_lib.engine.server"))


def the_disk_is_full_and_then_freed(week: Week) -> None:
    if not week.home.parent.is_mount():
        pytest.skip("No small disk can be made here.")

    def full() -> None:
        leave_free(week.home, KEPT_FREE // 2)
        week.put("l", _captions("l"))
        week.wait(lambda: [one for one in week.since() if one.dagster_run.is_failure])
        week.wait(lambda: not week.running())
        leave_free(week.home, 4 * KEPT_FREE)

    done = _after(week, full)
    if done.red:  # the second try came before there was room, and there is no third by itself
        assert done.red == {"samples": ["l"]}
        done = _after(week, week.run_what_is_behind)
    _check(week, done, runs=4, computed=4)


EVENTS = (
    the_first_shards_come,
    nothing_happens,
    one_more_comes,
    one_is_changed_in_place,
    one_is_uploaded_once_more,
    two_come_together,
    one_comes_broken,
    it_is_uploaded_again,
    one_breaks_in_the_middle,
    it_is_whole_again,
    one_vanishes,
    it_comes_back,
    the_threshold_changes,
    the_helper_changes,
    the_helper_is_written_differently,
    the_weights_change,
    a_worker_is_killed,
    a_run_is_killed,
    the_daemon_is_killed,
    the_engine_is_killed,
    the_disk_is_full_and_then_freed,
)


ALWAYS = 5
"""Events that every run of the tests has; `make week` has all of them, which takes some ten minutes of waiting."""
_CHOSEN = [
    pytest.param(event, id=event.__name__, marks=[pytest.mark.week] if place >= ALWAYS else [])
    for place, event in enumerate(EVENTS)
]


@pytest.mark.parametrize("event", _CHOSEN)
def test_a_week(week: Week, event: Callable[[Week], None]) -> None:
    if week.broken_at:
        pytest.skip(f"It went wrong at {week.broken_at}.")
    week.broken_at = event.__name__
    event(week)
    week.broken_at = ""


def _code(week: Week, **change: int) -> None:
    for name, value in change.items():
        setattr(week, name, value)
    week.restart()


def _samples(week: Week) -> int:
    return sum(map(len, week.captions.values()))


def _killed(week: Week, shard: str, kill: Callable[[], object]) -> None:
    """A shard comes whose values take some seconds to compute, by processes, and something is killed meanwhile."""
    captions = [f"slow {shard} {number}" for number in range(150)]

    def comes() -> None:
        week.put(shard, captions)
        week.wait(lambda: week.processes("factory_lib.compute.worker"))
        kill()

    done = _after(week, comes)
    # What was staged before is taken up; of what was computed for nothing no version tells.
    assert 0 < done.computed <= len(captions)
    _check(week, done, runs=4, computed=done.computed)
