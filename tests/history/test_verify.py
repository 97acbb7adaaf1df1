"""Versions that were changed behind the factory's back are named; what the factory does itself is not."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from factory_lib import C, DatasetQuery
from factory_lib.cli import factory
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
from factory_lib.warehouse.retention import Sweepable, sweep
from factory_lib.warehouse.staging import create_stage
from factory_lib.warehouse.versions import LostRaceError, publish
from tests.samples import write_tar

pytestmark = pytest.mark.usefixtures("engine")
DONE = {"mutations_sync": 2, "lightweight_deletes_sync": 2}
CHANGES = {
    "laion.v1": [
        ("ALTER TABLE {t} UPDATE n = 100 WHERE key = '4'", "s1", "written anew"),
        ("DELETE FROM {t} WHERE key = '8'", "s2", "it has 2 rows, 3 were published"),
        ("INSERT INTO {t} SELECT * FROM {t} WHERE key = '1'", "s0", "it has 4 rows, 3 were published"),
        (
            "ALTER TABLE {t} ATTACH PARTITION 's''3\t' FROM other.v1",
            "s'3\t",
            "it is a shard of 1 rows that was not published",
        ),
    ],
    "laion.v2": [
        ("ALTER TABLE {t} DELETE WHERE shard = 's0'", "s0", "it has 0 rows, 3 were published"),
        ("ALTER TABLE {t} DROP PARTITION 's1'", "s1", "it has 0 rows, 3 were published"),
        ("ALTER TABLE {t} MODIFY COLUMN n Nullable(Int32)", "", "n is Nullable(Int32), it was Nullable(Int64)"),
        ("ALTER TABLE {t} COMMENT COLUMN key 'unit vectors'", "", "its column key is 'unit vectors', it was ''"),
    ],
    "laion.v3": [
        ("ALTER TABLE {t} DROP COLUMN n", "", "its column n is gone"),
        ("ALTER TABLE {t} ADD COLUMN m UInt8 DEFAULT 1", "", "it got a column m"),
        ("ALTER TABLE {t} MODIFY SETTING table_readonly = 0", "", "it can be written to"),
    ],
}
CATALOG_CHANGES = {
    "laion.v1": [
        ("DELETE FROM factory.versions WHERE uuid = {u}", "its entry is gone from factory.versions"),
        (
            "DELETE FROM factory.shards WHERE uuid = {u} AND shard = 's1'",
            "1 of its 3 entries are gone from factory.shards",
        ),
        (
            "ALTER TABLE factory.recipes UPDATE recipe = '{{}}' WHERE uuid = {u}",
            "its entry was edited in factory.recipes",
        ),
    ],
    "laion.v2": [
        (
            "INSERT INTO factory.versions SELECT * FROM factory.versions WHERE uuid = {u}",
            "it has 2 entries in factory.versions, 1 was",
        ),
        (
            "ALTER TABLE factory.shards UPDATE rows = 4 WHERE shard = 's1' AND uuid = {u}",
            "it has 3 rows, 4 were published",
        ),
    ],
    "laion.v3": [
        (
            "ALTER TABLE factory.versions UPDATE record = '{{}}' WHERE uuid = {u}",
            "its entry was edited in factory.versions",
        ),
        ("ALTER TABLE factory.fingerprints UPDATE fingerprint = 'x' WHERE origin = {u}", "it was edited"),
    ],
    "laion.v4": [("DELETE FROM factory.seals WHERE uuid = {u}", "its seal was removed")],
}


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    done = CliRunner().invoke(factory, ["verify", *arguments, "--json"])
    return done.exit_code, json.loads(done.stdout)


def findings(*arguments: str) -> list[tuple[str, str, str]]:
    code, found = run(*arguments)
    assert code == (1 if found["findings"] else 0)
    return [(one["version"], one["shard"], one["what"]) for one in found["findings"]]


def made(versions: int = 1, name: str = "laion") -> None:
    """Versions of three shards of three rows."""
    parts = [f"s{i // 3}" for i in range(9)]
    table = pa.table({"part": parts, "key": [str(i) for i in range(9)], "n": list(range(9))})
    for _ in range(versions):
        DatasetQuery.from_arrow(table, shard="part").save(name)


def change(table: str, *statements: str) -> None:
    wh = warehouse()
    wh.execute(f"ALTER TABLE {table} MODIFY SETTING table_readonly = 0")
    for statement in statements:
        wh.execute(statement.format(t=table), settings=DONE)
    if "readonly" not in statements[-1]:
        wh.execute(f"ALTER TABLE {table} MODIFY SETTING table_readonly = 1")


def shown(version: str) -> str:
    return CliRunner().invoke(factory, ["show", version, "--rows", "0"]).output


def test_what_the_factory_does_itself_is_no_finding() -> None:
    made(2)
    DatasetQuery("laion").filter(C.n > 5).mutate(m=C.n + 1).save("good")
    DatasetQuery.from_arrow(pa.table({"part": ["s0"], "n": [1]}), shard="part").save("laion", mode="overwrite_shards")
    DatasetQuery.from_arrow(pa.table({"part": ["z"], "z": [1]}), shard="part").save(
        "laion", mode="overwrite_shards", schema_evolution=True
    )
    assert findings() == []
    policy = KeepPolicy(days=0)
    gone = drop_versions(warehouse(), expired(warehouse(), policy), policy)
    assert [one.version for one in gone] == ["laion.v1", "laion.v3"]
    sweep(warehouse(), [])
    code, found = run("--all")
    assert (code, found["findings"]) == (0, [])
    assert found["read"] == found["compared"] == ["good.v1", "laion.v2", "laion.v4"]
    assert run("good")[1]["read"] == ["good.v1"]


def test_a_commit_that_lost_its_race_or_was_killed_is_no_finding() -> None:
    made(2)
    stage = create_stage(warehouse(), "laion", {}, like="laion.v2")
    for number in (1, 2):
        with pytest.raises(LostRaceError):
            publish(stage, number)
    assert findings() == []  # as a builder leaves it that was killed
    sweep(warehouse(), [Sweepable(f"laion.{stage.table}", "its builder is gone", 0)])
    assert findings() == []


def test_a_changed_table_is_named() -> None:
    made(4)
    DatasetQuery.from_arrow(pa.table({"part": ["s'3\t"], "key": ["9"], "n": [9]}), shard="part").save("other")
    for version, changes in CHANGES.items():
        change(version, *(statement for statement, _, _ in changes))
    for arguments in ((), ("--all",)):
        found = findings(*arguments)
        for version, changes in CHANGES.items():
            of_it = [(where, what) for name, where, what in found if name == version]
            for statement, shard, text in changes:
                assert any(where == shard and text in what for where, what in of_it), (statement, of_it)
        assert {version for version, _, _ in found} == CHANGES.keys()
    assert "NOT AS PUBLISHED" in shown("laion.v1")
    assert "NOT AS PUBLISHED" not in shown("laion")
    assert {version for version, _, _ in findings("laion.v2")} == {"laion.v2"}


def test_where_a_fingerprint_is_known_values_are_compared_and_not_files() -> None:
    made()
    assert findings() == []  # fingerprints are computed here
    change("laion.v1", "ALTER TABLE {t} UPDATE n = n + 0 WHERE 1")
    assert findings() == []
    change("laion.v1", "ALTER TABLE {t} UPDATE n = 5 WHERE key = '8'")
    assert findings() == [("laion.v1", "s2", "its values are not those that were published")]


def test_a_changed_catalog_is_named() -> None:
    made(4)
    assert findings("--all") == []
    rows = warehouse().rows("SELECT name, toString(uuid) AS id FROM system.tables WHERE database = 'laion'")
    uuids = {row["name"]: row["id"] for row in rows}
    for version, changes in CATALOG_CHANGES.items():
        uuid = uuids[version.partition(".")[2]]
        for statement, _ in changes:
            warehouse().execute(statement.format(u=f"toUUID('{uuid}')"), settings=DONE)
    found = findings("--all")
    for version, changes in CATALOG_CHANGES.items():
        of_it = [what for name, _, what in found if name == version]
        for statement, text in changes:
            assert any(text in what for what in of_it), (statement, of_it)


def test_tables_that_are_gone_or_called_otherwise_are_named() -> None:
    made(2)
    made(1, "good")
    wh = warehouse()
    wh.execute("DROP TABLE good.v1 SYNC")
    [(version, _, what)] = found = findings()
    assert version == "good.v1"
    assert what.endswith("was dropped, and not by factory gc")
    sweep(wh, [])  # forgets nothing of it
    assert findings("good") == findings("good.v1") == found
    assert findings("laion") == findings("laion.v2") == []
    wh.execute("EXCHANGE TABLES laion.v1 AND laion.v2")
    places = {(version, what) for version, _, what in findings("laion")}
    assert ("laion.v1", "it was published as laion.v2") in places
    assert ("laion.v2", "it was published as laion.v1") in places
    wh.execute("EXCHANGE TABLES laion.v1 AND laion.v2")
    wh.execute("RENAME TABLE laion.v2 TO laion.kept")
    [(version, _, what)] = findings("laion.v2")
    assert (version, what.rpartition(", ")[2]) == ("laion.v2", "is called laion.kept now")
    wh.execute("CREATE TABLE laion.v3 AS laion.v1")
    assert "nothing is recorded of it" in " ".join(
        what for version, _, what in findings("laion") if version == "laion.v3"
    )
    wh.execute("CREATE TABLE laion.v4 ENGINE = MergeTree ORDER BY tuple() AS SELECT 1 AS x")
    assert {"laion.v3", "laion.v4"} <= {version for version, _, what in findings() if "nothing is recorded" in what}
    wh.execute("DROP DATABASE laion SYNC")
    assert [version for version, _, _ in findings("laion")] == ["laion.v1", "laion.v2"]
    assert findings("--accept-gone") == findings() == []


def test_a_damaged_file_is_named() -> None:
    made()
    path = warehouse().scalar("SELECT path FROM system.parts WHERE active AND database = 'laion' AND partition = 's2'")
    file = Path(path) / "n.bin"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    os.chmod(file, 0o600)
    file.write_bytes(data)
    [(version, shard, what)] = findings()
    assert (version, shard) == ("laion.v1", "s2")
    assert what.startswith("it cannot be read")
    assert "it cannot be read" in shown("laion")


def test_files_in_storage_that_changed_are_listed_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / f"{name}.tar", [("0.txt", b"text")])
    DatasetQuery.from_source(str(tmp_path)).save("texts")
    assert run()[1]["sources"] == []
    write_tar(tmp_path / "a.tar", [("0.txt", b"other")])
    (tmp_path / "b.tar").unlink()
    code, found = run()
    assert (code, found["findings"]) == (0, [])
    changed = [(Path(one["uri"]).name, one["what"]) for one in found["sources"]]
    assert changed == [("a.tar", "it was changed since"), ("b.tar", "it is gone")]
    assert run("--no-sources")[1]["sources"] == []


def test_versions_without_a_seal_are_compared_from_then_on() -> None:
    made()
    DatasetQuery("laion").filter(C.n > 5).save("good")
    warehouse().execute("TRUNCATE TABLE factory.seals")  # as in a folder of an earlier release
    for name in ("laion.v1", "good.v1"):
        change(name, "ALTER TABLE {t} MODIFY COMMENT ''")
    assert findings("--all") == []
    change("laion.v1", "ALTER TABLE {t} UPDATE n = 100 WHERE key = '4'")
    assert findings("--all") == [("laion.v1", "s1", "its values are not those that were published")]
    warehouse().execute("DROP TABLE laion.v1 SYNC")
    assert findings() == [("laion.v1", "", "its table is gone; good.v1 was made of it")]
