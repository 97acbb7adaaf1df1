"""Who commits, tags and drops at once: nothing committed is lost, and what was said stands."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery, signal
from factory_lib.errors import CommitError, EngineError, VersionNotFound
from factory_lib.history.verifying import verify
from factory_lib.warehouse import policy, provenance
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.locking import _table, locked
from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
from factory_lib.warehouse.tags import set_tag, tags_of
from factory_lib.warehouse.versions import Version, resolve, versions

pytestmark = pytest.mark.usefixtures("engine")


def shard(name: str, rows: int = 3) -> DatasetQuery:
    table = pa.table({"part": [name] * rows, "key": [f"{name}-{i}" for i in range(rows)], "n": list(range(rows))})
    return DatasetQuery.from_arrow(table, shard="part")


def test_writers_at_once_lose_nothing() -> None:
    shard("base").save("laion")

    def write(writer: int) -> None:
        for i in range(3):
            shard(f"w{writer}-{i}").save("laion", mode="overwrite_shards")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    found = versions(warehouse(), "laion")
    assert [v.number for v in found] == list(range(1, 14))
    assert found[-1].shards.keys() == {"base", *(f"w{w}-{i}" for w in range(4) for i in range(3))}
    assert [v.rows for v in found] == list(range(3, 42, 3))


@pytest.mark.parametrize("code", [0, 57])
def test_a_version_whose_answer_was_lost_is_committed_once(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """As after a connection that broke, and after a proxy on the way to a server that asked twice."""
    shard("base").save("laion")
    executed = Warehouse.execute
    renamed: list[str] = []

    def losing(self: Warehouse, sql: str, *given: Any) -> None:
        executed(self, sql, *given)
        if sql.startswith("RENAME") and not renamed:
            renamed.append(sql)
            raise EngineError("The statement may or may not have been applied.", code=code)

    with monkeypatch.context() as lost:
        lost.setattr(Warehouse, "execute", losing)
        assert str(shard("more").save("laion", mode="overwrite_shards")) == "laion.v2"
    assert [v.rows for v in versions(warehouse(), "laion")] == [3, 6]
    assert verify(warehouse(), "laion").findings == []


@pytest.mark.parametrize("on_server", [False, True])
def test_a_lock_has_one_holder_and_none_that_is_dead(on_server: bool) -> None:
    inside: list[int] = []
    most = []

    def hold(number: int) -> None:
        with _table(warehouse(), "laion") if on_server else locked(warehouse(), "laion", "coco"):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.01)
            inside.remove(number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(hold, range(6)))
    assert most == [1] * 6
    if on_server:
        warehouse().execute(
            'CREATE TABLE factory.lock_laion (held UInt8) ENGINE = Memory COMMENT \'{"host": "x", "pid": "?"}\''
        )
        hold(7)  # of nobody's


def test_a_server_lets_writers_in_as_they_came() -> None:
    came: list[int] = []

    def enter(number: int) -> None:
        with _table(warehouse(), "laion"):
            came.append(number)

    def waiting() -> int:
        return int(warehouse().scalar("SELECT count() FROM system.tables WHERE startsWith(name, 'lock_laion.')"))

    with ThreadPoolExecutor(5) as pool, _table(warehouse(), "laion"):
        for number in range(5):
            pool.submit(enter, number)
            until = time.monotonic() + 60
            while waiting() <= number and time.monotonic() < until:
                time.sleep(0.02)
    assert came == list(range(5))
    assert waiting() == 0


def three() -> list[Version]:
    return [shard(f"s{i}").save("laion") for i in range(3)]


def test_what_is_tagged_or_made_a_parent_before_its_turn_is_kept() -> None:
    made = three()
    gone = expired(warehouse(), KeepPolicy(days=0))
    assert [one.version for one in gone] == ["laion.v1", "laion.v2"]
    set_tag(warehouse(), "laion", "laion.v1", made[0].uuid, "paper")
    DatasetQuery("laion.v2").filter("n > 0").save("child")
    assert drop_versions(warehouse(), gone, KeepPolicy(days=0)) == []
    assert [str(v) for v in versions(warehouse(), "laion")] == ["laion.v1", "laion.v2", "laion.v3"]


def test_a_version_that_was_dropped_meanwhile_is_not_tagged() -> None:
    first = three()[0]
    drop_versions(warehouse(), expired(warehouse(), KeepPolicy(days=0)))
    with pytest.raises(VersionNotFound, match=r"laion\.v1 was dropped"):
        set_tag(warehouse(), "laion", "laion.v1", first.uuid, "paper")
    assert tags_of(warehouse(), "laion") == {}


def test_gc_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy, "QUIET_SECONDS", 0.05)
    three()
    # Far more than is buffered anywhere: the query waits for its reader.
    stream: Any = warehouse().stream("SELECT n, number FROM numbers(10000000) AS many, laion.v1")
    next(iter(stream))
    told: list[str] = []
    gone = [one for one in expired(warehouse(), KeepPolicy(days=0)) if one.version == "laion.v1"]
    with ThreadPoolExecutor(1) as pool:
        dropping = pool.submit(drop_versions, warehouse(), gone, KeepPolicy(days=0), told.append)
        until = time.monotonic() + 60
        while not told and not dropping.done() and time.monotonic() < until:
            time.sleep(0.02)
        assert [str(v) for v in versions(warehouse(), "laion")] == ["laion.v2", "laion.v3"]
        del stream
        assert [one.version for one in dropping.result(timeout=60)] == ["laion.v1"]
    assert told == ["laion.v1 is still read: its space is free when whoever reads it is done. Waiting."]


@pytest.mark.parametrize("lost", ["_record_recipe", "record_held"])
def test_what_is_recorded_is_counted_before_it_is_published(monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    from factory_lib.build import commit

    @signal
    def double(n: int) -> int:
        return 2 * n

    shard("a").save("laion")
    monkeypatch.setattr(provenance if lost == "_record_recipe" else commit, lost, lambda *_: None)
    with pytest.raises(CommitError, match="not all in the warehouse"):
        DatasetQuery("laion").add_signals(double).save("doubled")
    assert versions(warehouse(), "doubled") == []


def test_names_of_datasets_and_columns_are_never_taken_for_ours() -> None:
    """Values are taken over from datasets that are called like aliases in our SQL, with columns called like clauses."""

    @signal
    def double(n: int) -> int:
        return 2 * n

    words = ("index", "projection", "constraint", "primary", "foreign", "statistics", "t", "m", "order", "left", "to")
    table = pa.table({"key": ["a", "b"], "n": [1, 2], **{word: [3, 4] for word in words}})
    DatasetQuery.from_arrow(table).save("words")
    first = DatasetQuery("words").add_signals(double)
    for name in ("m", "t", "f0", "c0", "i", "v", "n", "p", "l", "r"):
        version = first.save(name)
        again = DatasetQuery("words").add_signals(double).save("again")
        assert again.provenance is not None
        assert (again.provenance.reused, again.provenance.computed) == (2, 0), name
    query = (
        DatasetQuery(version).mutate(index=DatasetQuery("words").plan.column("index") + 1).filter("`constraint` > 3")
    )
    assert query.select("key", "index", new="projection").to_arrow().to_pylist() == [{"key": "b", "index": 5, "new": 4}]
    DatasetQuery("words").drop("primary").rename(primary="n").save("renamed")
    assert resolve(warehouse(), "renamed").columns["primary"] == "Nullable(Int64)"
