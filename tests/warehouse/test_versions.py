"""Versions: the commit protocol, merges, what engine and provenance hold, and what is left after a kill."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from clickhouse_connect.driver._backend.http_sync import HttpSyncBackend

from factory_lib import C, DatasetQuery
from factory_lib import signal as signal_of
from factory_lib.errors import EngineError, QueryError
from factory_lib.plan.sqltext import quote
from factory_lib.redaction import without_credentials
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import engine_status, stop_engine
from factory_lib.warehouse.lifetimes import drop_left
from factory_lib.warehouse.provenance import code_of
from factory_lib.warehouse.retention import find_sweepable, sweep
from factory_lib.warehouse.versions import Version, datasets, latest, resolve, versions

pytestmark = pytest.mark.usefixtures("engine")


def shard(name: str, rows: int = 50, start: int = 0) -> pa.Table:
    """Rows of one shard."""
    return pa.table({"part": [name] * rows, "x": np.arange(start, start + rows), "y": np.arange(rows) / 7})


def save_shard(name: str, rows: int = 50, start: int = 0, dataset: str = "d", **options: object) -> Version:
    return DatasetQuery.from_arrow(shard(name, rows, start), shard="part").save(
        dataset, mode="overwrite_shards", **options
    )  # type: ignore[arg-type]


def test_a_version_is_a_table_that_nobody_can_change() -> None:
    version = save_shard("a")
    assert str(version) == "d.v1"
    wh = warehouse()
    assert wh.scalar("SELECT sum(x) FROM d.v1") == sum(range(50))
    for statement in (
        "INSERT INTO d.v1 SELECT * FROM d.v1",
        "ALTER TABLE d.v1 UPDATE x = 0 WHERE 1",
        "DELETE FROM d.v1 WHERE 1",
    ):
        with pytest.raises(EngineError):
            wh.execute(statement, settings={"mutations_sync": 2})
    assert wh.scalar("SELECT sum(x) FROM d.v1") == sum(range(50))


def test_merging_replaces_joins_and_carries_shards() -> None:
    save_shard("a")
    save_shard("b", start=100)
    third = save_shard("a", rows=20, start=1000)
    assert third.shard_rows() == {"a": 20, "b": 50}
    assert sorted(DatasetQuery(third).to_arrow()["x"].to_pylist()) == [*range(100, 150), *range(1000, 1020)]
    assert DatasetQuery("d.v2").count() == 100  # older versions stay as they were
    emptied = DatasetQuery("d", shards=["a"]).filter(C.x < 0).save("d", mode="overwrite_shards")
    assert emptied.shard_rows() == {"b": 50}
    removed = save_shard("c", removed=["b"])
    assert removed.shard_rows() == {"c": 50}
    alone = DatasetQuery.from_arrow(shard("z"), shard="part").save("d")
    assert alone.shard_rows() == {"z": 50}
    assert alone.number == 6


def test_what_a_commit_reads_does_not_grow_with_the_versions_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = HttpSyncBackend.request

    def counting(self: HttpSyncBackend, *args: object, **kwargs: object) -> object:
        response = original(self, *args, **kwargs)
        read.append(int(json.loads(response.headers.get("X-ClickHouse-Summary", "{}")).get("read_rows", 0)))
        return response

    @signal_of
    def double(x: int) -> int:
        return 2 * x

    def commit() -> int:
        read.clear()
        DatasetQuery.from_arrow(shard("a"), shard="part").add_signals(double).save("d", mode="overwrite_shards")
        return sum(read)

    monkeypatch.setattr(HttpSyncBackend, "request", counting)
    commit()
    before = commit()
    others = 100_000
    for table, values in {
        "versions": "u, 'other', now64(3), 1, '{}'",
        "recipes": "u, '{}'",
        "shards": "u, concat('other', toString(number)), 1, u, '', ''",
        "inputs": "u, concat('other', toString(number)), '', '', ''",
        "signal_values": "u, concat('other', toString(number)), '', '', '', map()",
        "seals": "u, 'other.v1', now64(6), [], map(), map()",
    }.items():
        warehouse().execute(
            f"INSERT INTO factory.{table} SELECT {values}"
            f" FROM (SELECT number, generateUUIDv4() AS u FROM numbers({others}))"
        )
    assert commit() - before < others / 2  # of one table or another all was read where this is more


def test_columns_that_differ_are_an_error_or_null_but_never_zero() -> None:
    save_shard("a")
    wider = DatasetQuery.from_arrow(shard("b").append_column("extra", pa.array([1.5] * 50)), shard="part")
    with pytest.raises(QueryError, match=r"d\.v1.*new: extra.*schema_evolution=True"):
        wider.save("d", mode="overwrite_shards")
    version = wider.save("d", mode="overwrite_shards", schema_evolution=True)
    rows = DatasetQuery(version).to_arrow()
    assert rows.filter(pa.compute.equal(rows["shard"], "a"))["extra"].null_count == 50
    assert rows.filter(pa.compute.equal(rows["shard"], "b"))["extra"].to_pylist() == [1.5] * 50
    text = DatasetQuery.from_arrow(shard("c").set_column(1, "x", pa.array(["t"] * 50)), shard="part")
    with pytest.raises(QueryError, match=r"'x' is .*Int64.* in .* and .*String"):
        text.save("d", mode="overwrite_shards", schema_evolution=True)
    assert [str(v) for v in versions(warehouse(), "d")] == ["d.v1", "d.v2"]


def test_content_fingerprints_follow_content_and_nothing_else() -> None:
    one, two = save_shard("a", dataset="one"), save_shard("a", dataset="two")
    assert one.fingerprints() == two.fingerprints()
    more = save_shard("b", dataset="one")
    assert more.fingerprints()["a"] == one.fingerprints()["a"]
    other = save_shard("a", start=1, dataset="two")
    assert other.fingerprints() != two.fingerprints()
    nulls = [pa.table({"part": ["a"] * 2, "x": [1, None], "y": [None, v]}) for v in (1, 2)]
    with_nulls = [DatasetQuery.from_arrow(t, shard="part").save("nulls").fingerprints() for t in nulls]
    assert with_nulls[0] != with_nulls[1]


def test_provenance_is_there_with_the_version_and_holds_no_secret() -> None:
    text = "s3://user:secret@bucket/x?X-Amz-Signature=abcdef https://u:p4ss@host/y?token=t0ken&n=1"
    version = save_shard("a", context={"uri": text, "run": "r1"})
    record = version.provenance
    assert record is not None
    assert record.context["run"] == "r1"
    everything = repr(dataclasses.asdict(record))
    for secret in ("secret", "abcdef", "p4ss", "t0ken"):
        assert secret not in everything
    assert "bucket/x" in everything
    assert record.rows == 50
    assert record.bytes_added > 0
    assert resolve(warehouse(), "d.v1").provenance == record


@pytest.mark.parametrize("writers", [8])
def test_writers_at_once_lose_nothing(tmp_path: Path, factory_home: Path, writers: int) -> None:
    save_shard("base")
    code = (
        "import sys, pyarrow as pa; from factory_lib import DatasetQuery;"
        "t = pa.table({'part': [sys.argv[1]] * 50, 'x': list(range(50)), 'y': [i / 7 for i in range(50)]});"
        "print(DatasetQuery.from_arrow(t, shard='part').save('d', mode='overwrite_shards'))"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, f"w{i}"], stdout=subprocess.PIPE, text=True, env=os.environ.copy()
        )
        for i in range(writers)
    ]
    # Starting so many interpreters takes minutes on a busy machine: only one that hangs shall end here.
    names = sorted(p.communicate(timeout=400)[0].strip() for p in running)
    assert all(p.returncode == 0 for p in running)
    assert names == sorted(f"d.v{i}" for i in range(2, writers + 2))
    previous: set[str] = set()
    for version in versions(warehouse(), "d"):
        shards = set(version.shard_rows())
        assert previous < shards
        assert DatasetQuery(version).count() == 50 * len(shards)
        previous = shards
    assert find_sweepable(warehouse()) == []


def check_everything(dataset: str) -> list[Version]:
    """Every version is whole: numbered without a gap, with as many rows as its provenance says."""
    found = versions(warehouse(), dataset)
    assert [v.number for v in found] == list(range(1, len(found) + 1))
    for version in found:
        record = version.provenance
        assert record is not None
        assert DatasetQuery(version).count() == record.rows == version.rows
    return found


@pytest.mark.parametrize("victim", ["writer", "engine"])
def test_killed_at_random_points_nothing_committed_is_lost(factory_home: Path, victim: str) -> None:
    code = (
        "import sys, pyarrow as pa; from factory_lib import C, DatasetQuery\n"
        "for i in range(1000):\n"
        "    t = pa.table({'part': ['s%d' % (i % 5)] * 200, 'x': list(range(200))})\n"
        "    v = DatasetQuery.from_arrow(t, shard='part').filter(C.x < 150).mutate(y=C.x * 2).save('d', mode='overwrite_shards')\n"
        "    print(v, flush=True)\n"
    )
    rng = random.Random(7)
    promised = 0
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ.copy(),
        )
        assert writer.stdout is not None
        promised = int(writer.stdout.readline().strip().removeprefix("d.v") or promised)
        time.sleep(rng.uniform(0.05, 1.0))
        if victim == "engine":
            status = engine_status(factory_home)
            assert status is not None
            os.kill(int(status["pid"]), signal.SIGKILL)
            time.sleep(0.1)
        writer.kill()
        said = writer.communicate()[0].split()
        promised = max([promised, *(int(name.removeprefix("d.v")) for name in said)])
        assert len(check_everything("d")) >= promised
    swept = find_sweepable(warehouse())
    sweep(warehouse(), swept)
    assert find_sweepable(warehouse()) == []
    assert len(check_everything("d")) >= promised
    save_shard("after", dataset="e")


def test_tables_of_living_builders_are_not_swept() -> None:
    from factory_lib.warehouse.staging import create_stage

    stage = create_stage(warehouse(), "d", {"shard": "String", "position": "UInt32"})
    assert find_sweepable(warehouse()) == []
    comment = json.dumps({"host": os.uname().nodename, "pid": 999999999})
    warehouse().execute(f"ALTER TABLE {stage.name} MODIFY COMMENT '{comment}'")
    assert [s.table for s in find_sweepable(warehouse())] == [f"d.{stage.table}"]


def test_dropping_a_version_harms_no_other() -> None:
    save_shard("a")
    derived = DatasetQuery("d").filter(C.x >= 10).mutate(z=C.x * 3).save("derived")
    warehouse().execute("DROP TABLE d.v1 SYNC")
    rows = DatasetQuery(derived).to_arrow()
    assert rows["z"].to_pylist() == [x * 3 for x in range(10, 50)]
    assert latest(warehouse(), "d") is None


def test_a_committed_version_survives_a_restart_of_the_engine(factory_home: Path) -> None:
    before = save_shard("a").fingerprints()
    stop_engine(factory_home)
    assert latest(warehouse(), "d") is not None
    assert resolve(warehouse(), "d").fingerprints() == before
    assert list(datasets(warehouse())) == ["d"]


def test_any_column_name_survives(engine: None) -> None:
    table = pa.table({"part": ["a"] * 3, "my column": [1, 2, 3], "q-1": ["x", "y", "z"], "select": [1.0, 2.0, 3.0]})
    query = DatasetQuery.from_arrow(table, shard="part")
    version = query.filter(C["my column"] > 1).mutate(**{"new one": C["select"] * 2}).save("odd")
    rows = DatasetQuery(version).select("my column", "q-1", "new one").to_arrow().to_pylist()
    assert rows == [{"my column": 2, "q-1": "y", "new one": 4.0}, {"my column": 3, "q-1": "z", "new one": 6.0}]
    assert quote("a`b") == "`a\\`b`"


def test_shards_of_odd_names_and_credentials_are_cut_out() -> None:
    version = DatasetQuery.from_arrow(pa.table({"part": ["it's a 'shard'", "b\\c"], "x": [1, 2]}), shard="part").save(
        "d"
    )
    assert version.shard_rows() == {"b\\c": 1, "it's a 'shard'": 1}
    assert save_shard("it's a 'shard'", rows=5, dataset="e").rows == 5
    assert DatasetQuery("d", shards=["it's a 'shard'"]).save("d", mode="overwrite_shards").rows == 2
    assert without_credentials("http://a:b@c/d") == "http://c/d"


def test_more_shards_than_an_insert_takes_by_default() -> None:
    rows = pa.table({"part": [f"s{i % 250}" for i in range(2500)], "x": np.arange(2500)})
    version = DatasetQuery.from_arrow(rows, shard="part").save("many")
    assert version.rows == DatasetQuery(version).count() == 2500
    query = DatasetQuery(version)
    copied = query.join(query.select("x", "key"), on="x").save("joined")
    assert (copied.rows, len(copied.shard_rows())) == (2500, 250)


def test_rows_that_the_engine_lost_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from factory_lib.errors import CommitError
    from factory_lib.warehouse.client import Warehouse

    insert = Warehouse.insert

    def losing(self: Warehouse, table: str, data: pa.Table, settings: dict[str, object] | None = None) -> int:
        insert(self, table, data.slice(1), settings)
        return data.num_rows

    monkeypatch.setattr(Warehouse, "insert", losing)
    with pytest.raises(CommitError, match="Of 50 rows that were sent to the warehouse, 49 are there"):
        save_shard("a")
    monkeypatch.undo()
    assert latest(warehouse(), "d") is None


def test_code_that_git_does_not_know_is_a_change(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True)

    git("init", "-q")
    (tmp_path / "graph.py").write_text("a = 1")
    git("add", "graph.py")
    git("commit", "-q", "-m", "first")
    (tmp_path / "notes.txt").write_text("no code")
    code_of.cache_clear()
    assert code_of(str(tmp_path))["changed"] == "no"
    (tmp_path / "stage.py").write_text("b = 2")
    code_of.cache_clear()
    assert code_of(str(tmp_path))["changed"] == "yes"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_rows_that_end_in_an_error_leave_no_table(error: type[BaseException]) -> None:
    schema = pa.schema([("key", pa.string()), ("n", pa.int64())])

    def rows() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"key": ["a", "b"], "n": [1, 2]}, schema=schema)
        raise error

    def reader() -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(schema, rows())

    DatasetQuery.from_arrow(pa.table({"key": ["a", "b"], "x": [1, 2]})).save("laion")
    other = DatasetQuery.from_arrow(pa.table({"key": ["c"], "x": ["text"]}))
    with pytest.raises(error):
        DatasetQuery.from_arrow(reader()).save("new")
    with pytest.raises(error):
        DatasetQuery("laion").add_columns(reader(), on=["key"]).save("new")
    with pytest.raises(QueryError, match="x"):
        DatasetQuery("laion").union(other).save("new")
    del other
    gc.collect()  # what was written of a query goes with it
    drop_left()
    left = "SELECT concat(database, '.', name) AS name FROM system.tables WHERE name LIKE '\\_stage\\_%'"
    assert warehouse().rows(left) == []
