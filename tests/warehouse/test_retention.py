"""Tags, and which versions a policy keeps."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery
from factory_lib.errors import InvalidName, TagExists, VersionNotFound
from factory_lib.warehouse import tags
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
from factory_lib.warehouse.retention import forget_unpublished
from factory_lib.warehouse.tags import all_tags, delete_tag, set_tag, tags_of
from factory_lib.warehouse.versions import Version, resolve, versions

pytestmark = pytest.mark.usefixtures("engine")


def save(dataset: str, shard: str = "a", rows: int = 10) -> Version:
    table = pa.table({"part": [shard] * rows, "x": range(rows)})
    return DatasetQuery.from_arrow(table, shard="part").save(dataset, mode="overwrite_shards")


def tag(version: Version, name: str, *, force: bool = False) -> bool:
    return set_tag(warehouse(), version.dataset, str(version), version.uuid, name, force=force)


# Tags ------------------------------------------------------------------------------------------------------------


def test_a_tag_stays_where_it_is_put() -> None:
    one, two = save("d"), save("d", "b")
    assert tag(one, "icml")
    assert not tag(one, "icml")
    with pytest.raises(TagExists, match=r"d@icml is d\.v1 already"):
        tag(two, "icml")
    assert str(resolve(warehouse(), "d@icml")) == "d.v1"
    assert DatasetQuery("d@icml").count() == 10
    assert tag(two, "icml", force=True)
    assert str(resolve(warehouse(), "d@icml")) == "d.v2"
    assert str(delete_tag(warehouse(), "d", "icml")) == "d@icml"
    with pytest.raises(VersionNotFound, match=r"no tag 'icml'.*latest version is d\.v2"):
        resolve(warehouse(), "d@icml")
    assert tag(one, "icml")  # free again
    save("e")
    assert all_tags(warehouse()).keys() == {"d"}


def test_of_many_who_take_a_tag_at_once_one_has_it() -> None:
    made = [save("d", f"s{i}") for i in range(6)]

    def take(version: Version) -> bool:
        try:
            return tag(version, "best")
        except TagExists:
            return False

    with ThreadPoolExecutor(6) as threads:
        took = list(threads.map(take, made))
    assert sum(took) == 1
    assert tags_of(warehouse(), "d")["best"].version == str(made[took.index(True)])


def test_a_clock_that_goes_back_does_not_undo_what_was_done_last(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = save("d"), save("d", "b")
    wh = warehouse()
    entry = f"'d', 'icml', 'd.v1', '{one.uuid}', 0, 0, now64(6) + INTERVAL 1 DAY, generateUUIDv4()"
    wh.execute(f"INSERT INTO factory.tags SELECT {entry}")  # by a machine whose clock is a day ahead
    assert tag(two, "icml", force=True)
    assert tags_of(wh, "d")["icml"].version == "d.v2"


@pytest.mark.parametrize("name", ["", "ICML", "-x", "a b", "v3", "12", "latest", "x@y", "a/b", "'"])
def test_what_cannot_be_a_tag(name: str) -> None:
    with pytest.raises(InvalidName):
        tags.check_tag(name)


@pytest.mark.parametrize("name", ["icml", "2026-11-22", "release_1.0", "v3-final", "a"])
def test_what_can_be_a_tag(name: str) -> None:
    version = save("d")
    assert tag(version, name)
    assert str(resolve(warehouse(), f"d@{name}")) == "d.v1"


def test_a_tag_on_a_version_that_somebody_dropped() -> None:
    version = save("d")
    tag(version, "icml")
    save("d", "b")
    warehouse().execute("DROP TABLE d.v1 SYNC")
    with pytest.raises(VersionNotFound, match=r"d@icml is d\.v1, which is not there any more.*--delete d@icml"):
        resolve(warehouse(), "d@icml")


# Policy ----------------------------------------------------------------------------------------------------------


def names(policy: KeepPolicy, now: dt.datetime | None = None) -> list[str]:
    return [e.version for e in expired(warehouse(), policy, now)]


def in_days(days: float) -> dt.datetime:
    return dt.datetime.now(dt.UTC) + dt.timedelta(days=days)


def test_what_a_policy_keeps() -> None:
    for i in range(5):
        last = save("d", f"s{i}")
    save("other")
    assert names(KeepPolicy(1)) == []  # all are younger than an hour
    assert names(KeepPolicy(1), in_days(1)) == ["d.v1", "d.v2", "d.v3", "d.v4"]  # the latest ones stay for ever
    assert names(KeepPolicy(3, days=0)) == ["d.v1", "d.v2"]
    assert names(KeepPolicy(3, days=10), in_days(9)) == []
    assert names(KeepPolicy(3, days=10), in_days(11)) == ["d.v1", "d.v2"]
    tag(resolve(warehouse(), "d.v2"), "icml")
    assert names(KeepPolicy(1, days=0)) == ["d.v1", "d.v3", "d.v4"]
    DatasetQuery("d.v3").filter(C.x > 1).save("kept")
    DatasetQuery("kept").mutate(y=C.x).save("end")
    DatasetQuery("kept").save("kept")
    assert names(KeepPolicy(1, days=0)) == ["d.v1", "d.v4"]  # d.v3 made kept.v1, which made end.v1
    assert last.rows == 50


def test_dropping_versions_takes_nothing_from_others_and_keeps_what_is_known_of_them() -> None:
    for name in "abc":
        save("d", name)
    DatasetQuery("d").filter(C.x > 4).mutate(y=C.x * 2).save("kept")
    save("d", "a", rows=3)
    wh = warehouse()
    before = wh.rows("SELECT * FROM d.v4 ORDER BY shard, position"), wh.rows("SELECT * FROM kept.v1 ORDER BY shard, x")
    gone = expired(wh, KeepPolicy(1, days=0))
    assert [e.version for e in gone] == ["d.v1", "d.v2"]
    assert all(e.bytes > 0 for e in gone)
    drop_versions(wh, gone)
    drop_versions(wh, gone)  # twice is once
    assert [str(v) for v in versions(wh, "d")] == ["d.v3", "d.v4"]
    after = wh.rows("SELECT * FROM d.v4 ORDER BY shard, position"), wh.rows("SELECT * FROM kept.v1 ORDER BY shard, x")
    assert after == before
    wh.execute(
        "ALTER TABLE factory.versions UPDATE created = created - INTERVAL 2 HOUR WHERE 1",
        settings={"mutations_sync": 2},
    )
    forget_unpublished(wh)  # of commits that failed, not of versions that were dropped
    assert wh.scalar("SELECT count() FROM factory.versions") == 5
    wh.execute("DROP TABLE d.v3 SYNC")
    forget_unpublished(wh)  # what somebody dropped by hand is forgotten
    assert wh.scalar("SELECT count() FROM factory.versions") == 4


def test_a_table_that_took_a_dropped_version_s_name_is_left_alone() -> None:
    save("d")
    save("d", "b")
    wh = warehouse()
    gone = expired(wh, KeepPolicy(1, days=0))
    wh.execute("DROP TABLE d.v1 SYNC")
    wh.execute("CREATE TABLE d.v1 AS d.v2 ENGINE = MergeTree ORDER BY x SETTINGS allow_nullable_key = 1")
    drop_versions(wh, gone)
    assert [str(v) for v in versions(wh, "d")] == ["d.v1", "d.v2"]
