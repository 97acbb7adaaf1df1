"""`factory sql`: formats, limits, what it refuses, and what it says of mistakes."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from factory_lib.warehouse.client import warehouse
from tests.command_line import data, photos, run

__all__ = ["photos"]


QUERY = (
    "SELECT key, width, v, toUUID('00000000-0000-0000-0000-000000000001') AS id, caption FROM photos.v2 ORDER BY width"
)


@pytest.mark.usefixtures("photos")
def test_sql_in_every_format(tmp_path: Path) -> None:
    expected = [f"{name}{i}" for name in "ab" for i in range(100)]
    rows = json.loads(run("sql", QUERY, "--json").stdout)
    assert [row["key"] for row in rows] == expected
    assert rows[1]["v"] == [1.0, 0.5]
    assert rows[1]["id"] == "00000000-0000-0000-0000-000000000001"
    lines = run("sql", QUERY, "--format", "jsonl").stdout.splitlines()
    assert [json.loads(line)["key"] for line in lines] == expected
    table = pa.csv.read_csv(io.BytesIO(run("sql", QUERY, "--format", "csv").stdout_bytes))
    assert table["key"].to_pylist() == expected
    assert table["caption"].to_pylist()[3] == 'a, "b" [3]'
    assert [json.loads(v) for v in table["v"].to_pylist()][2] == [2.0, 0.5]
    arrow = pa.ipc.open_stream(run("sql", QUERY, "--format", "arrow").stdout_bytes).read_all()
    assert arrow["width"].to_pylist() == list(range(200))
    for name in ("rows.parquet", "rows.csv", "rows.json", "rows.jsonl", "rows.arrow"):
        assert run("sql", QUERY, "-o", str(tmp_path / name)).stdout == ""
    assert pq.read_table(tmp_path / "rows.parquet")["v"].to_pylist()[5] == [5.0, 0.5]
    assert len(json.loads((tmp_path / "rows.json").read_text())) == 200
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "rows.arrow",
        "rows.csv",
        "rows.json",
        "rows.jsonl",
        "rows.parquet",
    ]
    assert json.loads(run("sql", "SELECT 1 AS x WHERE 0", "--json").stdout) == []
    assert run("sql", "SELECT 1 AS x WHERE 0", "--format", "csv").stdout.strip() == '"x"'
    assert json.loads(run("sql", "SELECT nan AS x, inf AS y, NULL AS z", "--json").stdout) == [
        {"x": None, "y": None, "z": None}
    ]


@pytest.mark.usefixtures("photos")
def test_sql_limits() -> None:
    shown = run("sql", "SELECT width FROM photos.v2 ORDER BY width")
    assert shown.stdout.split()[2:] == [str(i) for i in range(100)]
    assert "the first 100 rows" in shown.stderr
    exact = run("sql", "SELECT width FROM photos.v1 ORDER BY width")
    assert exact.stderr == ""
    assert len(run("sql", "SELECT width FROM photos.v2", "--limit", "150").stdout.split()) == 152
    assert len(run("sql", "SELECT width FROM photos.v2", "--limit", "3", "--format", "jsonl").stdout.splitlines()) == 3
    assert run("sql", "-", "--format", "csv", stdin="SELECT 42 AS x").stdout.split() == ['"x"', "42"]
    threads = "SELECT value FROM system.settings WHERE name = 'max_threads'"
    assert data("sql", threads, "--setting", "max_threads=3") == [{"value": "3"}]


@pytest.mark.usefixtures("photos")
def test_sql_of_tags() -> None:
    run("tag", "photos.v1", "old-1.0")
    run("tag", "photos.v2", "new")
    assert data("sql", "SELECT count() AS n FROM photos@old-1.0") == [{"n": 100}]
    both = "WITH (SELECT count() FROM photos@old-1.0) AS old SELECT old, count() AS n, 'a photos@new' AS `é` FROM `photos`@new"
    assert data("sql", both + " -- photos@none") == [{"old": 100, "n": 200, "é": "a photos@new"}]
    assert re.search(r"no tag 'nwe'.*'new'", run("sql", "SELECT 1 FROM photos@nwe", code=1).stderr, re.DOTALL)
    assert "no dataset 'phots'" in run("sql", "SELECT 1 FROM phots@new", code=1).stderr
    assert "Error: " in run("sql", "SELECT @x, 1 @ 2", code=1).stderr


CHANGES = [
    "DROP TABLE photos.v1",
    "INSERT INTO photos.v1 SELECT * FROM photos.v1",
    "ALTER TABLE photos.v1 DELETE WHERE 1",
    "DELETE FROM photos.v1 WHERE 1",
    "TRUNCATE TABLE photos.v1",
    "RENAME TABLE photos.v1 TO photos.v8",
    "CREATE DATABASE other",
    "CREATE TABLE photos.t (x Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE t (x Int8)",
    "CREATE VIEW photos.w AS SELECT 1",
    "OPTIMIZE TABLE photos.v1",
    "DETACH TABLE photos.v1",
    "KILL QUERY WHERE 1",
    " /* x */ kill query where 1",
    "SYSTEM STOP MERGES",
    "SET readonly = 0",
    "SELECT 1 SETTINGS readonly = 0",
    "USE photos",
    "INSERT INTO FUNCTION file('{folder}/stolen.csv') SELECT 1 AS a",
    "SELECT 1 INTO OUTFILE '{folder}/stolen.csv'",
    "SELECT 1; DROP TABLE photos.v1",
    " ",
]


@pytest.mark.usefixtures("photos")
def test_sql_changes_nothing(tmp_path: Path) -> None:
    tables = "SELECT database, name, uuid FROM system.tables WHERE database != 'system' ORDER BY ALL"
    before = (warehouse().rows(tables), data("ls"))
    for statement in CHANGES:
        result = run("sql", statement.replace("{folder}", str(tmp_path)), code=1)
        assert result.stdout == "", statement
        assert result.stderr.startswith("Error: "), statement
        assert (warehouse().rows(tables), data("ls")) == before, statement
    assert list(tmp_path.iterdir()) == []


HINTS = [
    ("SELECT widht FROM photos.v2", "no column 'widht'.*Did you mean 'width'"),
    ("SELECT 1 FROM photos.v7", "no version photos.v7.*photos has v1 to v2"),
    ("SELECT 1 FROM phots.v1", "no dataset 'phots'.*Did you mean 'photos'"),
    ("SELECT 1 FROM photos", "'photos' is a dataset.*photos.v2"),
    ("SELECT 1 SETTINGS max_threads = 77", "'max_threads'.*--setting max_threads="),
    ("SELECT nosuch(1)", "nosuch"),
    ("SELEC 1", "Syntax error"),
    ("SELECT 1 FORMAT CSV", "without FORMAT"),
    ("DROP TABLE photos.v1", "only reading is allowed"),
]


@pytest.mark.usefixtures("photos")
def test_sql_errors_say_what_to_write_instead() -> None:
    for statement, says in HINTS:
        assert re.search(says, run("sql", statement, code=1).stderr, re.DOTALL), statement


def test_sql_keeps_a_file_that_is_there_until_the_new_one_is_whole(engine: None, tmp_path: Path) -> None:
    target = tmp_path / "rows.csv"
    target.write_text("old")
    query = "SELECT number, throwIf(number = 3000000) FROM numbers(5000000)"
    result = run("sql", query, "-o", str(target), "--setting", "max_block_size=1000", code=1)
    assert "Error:" in result.stderr
    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["rows.csv"]
