"""Datasets that are brought up to date, and runs that are killed and taken up."""

from __future__ import annotations

import os
import signal as system_signals
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, fn, signal
from factory_lib.errors import QueryError
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.retention import find_sweepable, sweep
from factory_lib.warehouse.versions import Version, versions
from tests.dagster_graph import write_tar

pytestmark = pytest.mark.usefixtures("engine")


@signal
def length(caption: str) -> int:
    return len(caption)


@signal
def longer(caption: str) -> int:
    return len(caption) + 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", [name, name * 3])
    return tmp_path


def run(folder: Path, query: object = None) -> tuple[Version, Version]:
    samples = DatasetQuery.from_source(str(folder)).refresh("samples")
    return samples, DatasetQuery("samples").add_signals(length).filter(C.length > 1).refresh("measured")


def lengths(version: Version) -> dict[str, list[int]]:
    rows = DatasetQuery(version).group_by("shard").agg(n=fn.arraySort(fn.groupArray(C.length))).to_arrow().to_pylist()
    return dict(sorted((row["shard"], row["n"]) for row in rows))


def computed(version: Version) -> tuple[int, int]:
    record = version.provenance
    assert record is not None
    return record.reused, record.computed


def names(dataset: str) -> list[str]:
    return [str(v) for v in versions(warehouse(), dataset)]


def test_only_what_changed_is_made(folder: Path) -> None:
    samples, measured = run(folder)
    assert lengths(measured) == {"a": [3], "b": [3], "c": [3]}
    assert computed(measured) == (0, 6)
    again, measured_again = run(folder)
    assert (str(again), str(measured_again)) == ("samples.v1", "measured.v1")
    assert names("samples") + names("measured") == ["samples.v1", "measured.v1"]
    write_tar(folder / "d.tar", ["dd"])
    samples, measured = run(folder)
    assert samples.provenance is not None
    assert list(samples.provenance.sources[0]["shards"]) == ["d"]
    assert computed(measured) == (0, 1)
    assert lengths(measured) == {"a": [3], "b": [3], "c": [3], "d": [2]}
    write_tar(folder / "b.tar", ["b", "bbb", "bbbb"])
    (folder / "c.tar").unlink()
    samples, measured = run(folder)
    assert samples.shard_rows() == {"a": 2, "b": 3, "d": 1}
    assert lengths(measured) == {"a": [3], "b": [3, 4], "d": [2]}
    assert computed(measured)[1] == 2  # the filter before had dropped the shortest caption with its value
    assert run(folder) == (samples, measured)


def test_a_signal_may_have_a_name_that_queries_use(folder: Path) -> None:
    samples = DatasetQuery.from_source(str(folder)).refresh("samples")
    query = DatasetQuery(samples).add_signals(*(length.named(name) for name in ("n", "h", "m", "t", "value", "row")))
    first = query.refresh("m")
    assert query.refresh("m") == first
    assert computed(query.save("m")) == (36, 0)


def test_a_shard_that_is_gone_and_no_other_change(folder: Path) -> None:
    run(folder)
    (folder / "b.tar").unlink()
    samples, measured = run(folder)
    assert lengths(measured) == {"a": [3], "c": [3]}
    assert list(samples.shards) == ["a", "c"]
    assert run(folder) == (samples, measured)


def test_a_shard_of_which_nothing_is_kept_is_not_made_again(folder: Path) -> None:
    write_tar(folder / "b.tar", ["b"])
    _, measured = run(folder)
    assert lengths(measured) == {"a": [3], "c": [3]}
    assert run(folder)[1] == measured


def test_other_code_makes_all_shards_and_values_of_the_same_signals_are_taken_over(folder: Path) -> None:
    DatasetQuery.from_source(str(folder)).refresh("samples")
    query = DatasetQuery("samples")
    query.add_signals(length).refresh("measured")
    version = query.add_signals(length, longer).refresh("measured")
    assert computed(version) == (6, 6)
    assert set(version.columns) >= {"length", "length_error", "longer", "longer_error"}
    assert query.add_signals(length, longer).refresh("measured") == version
    one = DatasetQuery("samples", shards=["a"]).add_signals(length, longer).filter(C.longer > 2).refresh("measured")
    assert one.shard_rows() == {"a": 1, "b": 2, "c": 2}
    assert query.add_signals(length, longer).refresh("measured").shard_rows() == {"a": 2, "b": 2, "c": 2}


def test_what_others_put_there_stays(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    write_tar(other / "x.tar", ["x"])
    DatasetQuery.from_source(str(folder)).refresh("samples")
    DatasetQuery.from_source(str(other)).refresh("samples")
    (folder / "c.tar").unlink()
    assert list(DatasetQuery.from_source(str(folder)).refresh("samples").shards) == ["a", "b", "x"]
    assert len(names("samples")) == 3
    DatasetQuery.from_source(str(other)).refresh("samples")
    assert len(names("samples")) == 3


def test_what_depends_on_other_shards_is_refused(folder: Path) -> None:
    DatasetQuery.from_source(str(folder)).refresh("samples")
    query = DatasetQuery("samples")
    for whole in (query.limit(3), query.order_by("caption"), query.group_by("shard").agg(n=fn.count())):
        with pytest.raises(QueryError, match="works shard by shard"):
            whole.refresh("some")


def test_a_condition_on_another_dataset_is_an_input(folder: Path) -> None:
    DatasetQuery.from_source(str(folder)).refresh("samples")
    chosen = DatasetQuery("samples").filter(C.caption == "aaa").save("chosen")

    def kept() -> Version:
        query = DatasetQuery("samples")
        return query.join(DatasetQuery("chosen").select("caption"), on="caption", how="semi").refresh("kept")

    version = kept()
    assert version.rows == 1
    assert kept() == version
    del chosen
    DatasetQuery("samples").filter(C.caption != "aaa").save("chosen")
    assert kept().rows == 5


def test_a_join_is_made_again_for_the_shards_of_its_left_side_that_changed(folder: Path) -> None:
    """Whatever was updated in whatever order, the dataset is what the query gives."""
    DatasetQuery.from_source(str(folder)).refresh("samples")

    def wanted(*rows: tuple[str, int]) -> None:
        names, weights = zip(*rows, strict=True)
        DatasetQuery.from_arrow(pa.table({"name": names, "weight": weights})).save("wanted")

    def updated(how: Literal["inner", "left"]) -> tuple[Version, set[str]]:
        query = DatasetQuery("samples").join(DatasetQuery("wanted"), on={"caption": "name"}, how=how)
        query = query.filter(C.caption != "no").mutate(twice=C.weight * 2)
        before = {} if how not in made else {name: s.origin for name, s in made[how].shards.items()}
        version = made[how] = query.refresh(how)
        columns = ["shard", "key", "caption", "weight", "twice"]
        rows = [one.select(*columns).to_arrow().to_pylist() for one in (DatasetQuery(version), query)]
        assert sorted(map(repr, rows[0])) == sorted(map(repr, rows[1]))
        assert query.refresh(how) == version
        return version, {name for name, s in version.shards.items() if s.origin != before.get(name)}

    made: dict[str, Version] = {}
    wanted(("a", 1), ("a", 2), ("aaa", 3))
    assert updated("inner")[0].rows == 3
    assert updated("left")[0].rows == 7
    write_tar(folder / "d.tar", ["a", "b"])
    DatasetQuery.from_source(str(folder)).refresh("samples")
    assert updated("inner")[1] == {"d"}
    assert updated("left")[1] == {"d"}
    wanted(("a", 1), ("bbb", 9))
    version, again = updated("inner")
    assert (version.rows, again) == (3, {"a", "b", "d"})
    assert updated("left")[0].rows == 8
    (folder / "a.tar").unlink()
    DatasetQuery.from_source(str(folder)).refresh("samples")
    assert updated("inner")[0].rows == 2
    assert set(updated("left")[0].shards) == {"b", "c", "d"}
    DatasetQuery.from_arrow(pa.table({"name": ["a"], "weight": [1]})).save("wanted")
    for how in ("right", "full"):
        query = DatasetQuery("samples").join(DatasetQuery("wanted"), on={"caption": "name"}, how=how)  # type: ignore[arg-type]
        with pytest.raises(QueryError, match="works shard by shard"):
            query.refresh("whole")


SCRIPT = """
import sys, time
from pathlib import Path
from typing import Literal
from factory_lib import DatasetQuery, signal

log, stop = Path(sys.argv[1]), int(sys.argv[2])

@signal
def slow(caption: str) -> int:
    time.sleep(0.02)
    with log.open("a") as file:
        file.write(caption + "\\n")
    return len(caption)

query = DatasetQuery("samples").add_signals(slow)
version = query.save("measured")
print(version.provenance.reused, version.provenance.computed)
"""


def test_a_run_that_was_killed_is_taken_up(tmp_path: Path, factory_home: Path) -> None:
    rows = 200
    captions = [f"{'x' * (i % 7)}{i}" for i in range(rows)]
    write_tar(tmp_path / "a.tar", captions)
    DatasetQuery.from_source(str(tmp_path)).save("samples")
    script, log = tmp_path / "script.py", tmp_path / "log"
    script.write_text(textwrap.dedent(SCRIPT))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "FACTORY_WORKERS": "1"}
    call = [sys.executable, str(script), str(log), str(rows)]
    process = subprocess.Popen(call, env=environment, start_new_session=True)
    try:
        _wait_for(log, rows * 9 // 10, process)
    finally:
        os.killpg(process.pid, system_signals.SIGKILL)
        process.wait()
    assert names("measured") == []
    done = len(log.read_text().splitlines())
    log.unlink()
    finished = subprocess.run(call, env=environment, capture_output=True, text=True, check=True)
    reused, anew = map(int, finished.stdout.split())
    assert reused + anew == rows
    assert anew == len(log.read_text().splitlines())
    # what was staged within the last second, and what was under way
    assert reused >= done - 110
    assert reused > rows // 3
    rows_of = DatasetQuery("measured").select("caption", "slow").to_arrow().to_pylist()
    assert {row["caption"]: row["slow"] for row in rows_of} == {caption: len(caption) for caption in captions}
    # the staging tables of the killed run are left, and swept
    left = [table for table in find_sweepable(warehouse()) if "_stage_" in table.table]
    assert left
    sweep(warehouse(), left)
    tables = warehouse().rows("SELECT name FROM system.tables WHERE database = 'factory_staging' AND total_rows > 0")
    assert tables == []


def _wait_for(log: Path, lines: int, process: subprocess.Popen[bytes]) -> None:
    begun = time.monotonic()
    while not log.exists() or len(log.read_text().splitlines()) < lines:
        assert process.poll() is None
        assert time.monotonic() - begun < 120
        time.sleep(0.02)


def test_whatever_is_looked_up_is_an_input(folder: Path) -> None:
    def of_rows(*names: str) -> DatasetQuery:
        return DatasetQuery.from_arrow(pa.table({"name": list(names)}))

    samples = DatasetQuery.from_source(str(folder)).refresh("looking")
    wanted = [str(v) for v in (of_rows("a", "b").save("wanted"), of_rows("a").save("wanted"))]
    base = DatasetQuery(samples)
    queries = {
        "semi join": lambda n: base.join(DatasetQuery(wanted[n]), on={"caption": "name"}, how="semi"),
        "anti join": lambda n: base.join(DatasetQuery(wanted[n]), on={"caption": "name"}, how="anti"),
        "isin": lambda n: base.filter(C.caption.isin(DatasetQuery(wanted[n]).select("name"))),
        "before a signal": lambda n: base.join(DatasetQuery(wanted[n]), {"caption": "name"}, "semi").add_signals(length),
        "a column": lambda n: base.mutate(known=C.caption.isin(DatasetQuery(wanted[n]).select("name"))),
        "memory": lambda n: base.join(of_rows(*("a", "b")[: 2 - n]), on={"caption": "name"}, how="semi"),
        "text": lambda n: base.filter(f"caption IN (SELECT name FROM {wanted[n]})"),
        "itself": lambda n: base.filter(C.caption.isin(base.filter(C.caption.isin(["a", "b"][: 2 - n])).select("caption"))),
    }  # fmt: skip
    for name, query in queries.items():
        first = query(0).refresh("found")
        assert query(0).refresh("found") == first, name
        second = query(1).refresh("found")
        rows = DatasetQuery(second).to_arrow().num_rows
        assert rows == query(1).count(), name
        assert second != first, name
        if name not in ("memory", "itself"):
            assert wanted[1] in [parent["name"] for parent in second.provenance.parents], name
