"""The command line: what it prints, its exit codes, wrong arguments, broken input, and being killed."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from factory_lib import C, DatasetQuery
from factory_lib.cli import factory
from factory_lib.commands import output
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import engine_status, stop_engine

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "factory_lib.cli"]


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
    """Run a command in this process and check its exit code."""
    result = CliRunner().invoke(factory, list(arguments), input=stdin)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def data(*arguments: str) -> Any:
    """What a command prints with --json."""
    return json.loads(run(*arguments, "--json").stdout)


@pytest.fixture
def photos(engine: None) -> None:
    """photos.v1 and v2, and wide.v1 made of it."""
    for name, start in (("a", 0), ("b", 100)):
        table = pa.table(
            {
                "part": [name] * 100,
                "key": [f"{name}{i}" for i in range(100)],
                "width": range(start, start + 100),
                "caption": [f'a, "b" [{i}]' for i in range(100)],
                "v": [[float(i), 0.5] for i in range(100)],
            }
        )
        DatasetQuery.from_arrow(table, shard="part").save("photos", mode="merge")
    DatasetQuery("photos").filter(C.width >= 150).save("wide")


# Listing and showing ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("photos")
def test_ls() -> None:
    found = {one["dataset"]: one for one in data("ls")}
    assert found.keys() == {"photos", "wide"}
    assert (found["photos"]["latest"], found["photos"]["versions"], found["photos"]["rows"]) == ("photos.v2", 2, 200)
    versions = data("ls", "photos")
    assert [(v["name"], v["rows"], v["shards"]) for v in versions] == [("photos.v1", 100, 1), ("photos.v2", 200, 2)]
    assert data("ls", "wide")[0]["parents"] == ["photos.v2"]
    table = run("ls").stdout
    assert re.search(r"^photos +v2 +2 +200 ", table, re.MULTILINE)
    assert "mask" in run("ls", "wide").stdout


@pytest.mark.usefixtures("engine")
def test_nothing_there_yet() -> None:
    assert data("ls") == []
    empty = run("ls")
    assert empty.stdout == ""
    assert "factory ingest" in empty.stderr
    assert "There are no tags" in run("tag").stderr
    assert "nothing to delete" in run("gc").stderr


@pytest.mark.usefixtures("photos")
def test_show() -> None:
    shown = data("show", "photos", "--rows", "2", "--shards")
    assert shown["version"] == "photos.v2"
    assert (shown["rows"], shown["shards"]) == (200, {"count": 2, "rows_min": 100, "rows_max": 100})
    assert shown["columns"]["width"] == "Nullable(Int64)"
    assert shown["made_by"] == {"photos.v1": 1, "photos.v2": 1}
    assert [s["made_by"] for s in shown["shard_list"]] == ["photos.v1", "photos.v2"]
    assert shown["samples"][0]["v"] == [0.0, 0.5]
    assert shown["provenance"]["storage"] == "insert"
    text = run("show", "wide.v1").stdout
    assert "50 rows in 1 shard" in text
    assert "DatasetQuery('photos.v2').filter((C.width >= 150)).save('wide')" in text
    assert "mask" in text
    assert re.search(r"^width +Nullable\(Int64\) +150 +151", text, re.MULTILINE)
    assert 'a, "b" [99]' in run("show", "wide", "--rows", "60").stdout  # below the columns, not beside them


@pytest.mark.usefixtures("photos")
def test_show_of_a_table_without_provenance() -> None:
    warehouse().execute(
        "CREATE TABLE photos.v9 AS photos.v2 ENGINE = MergeTree PARTITION BY shard ORDER BY (shard, position)"
    )
    warehouse().execute("INSERT INTO photos.v9 SELECT * FROM photos.v2")
    assert (data("show", "photos.v9")["rows"], data("show", "photos.v9")["provenance"]) == (200, None)
    assert "not recorded" in run("show", "photos.v9", "--shards").stdout


# SQL -------------------------------------------------------------------------------------------------------------

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
    "",
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


# Ingest ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
def test_ingest(tmp_path: Path) -> None:
    from factory_lib.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=60, shards=3)
    made = run("ingest", str(folder.path), "--name", "laion", "--shards", "00000,00001")
    assert made.stdout == "laion.v1\n"
    assert "samples read" in made.stderr
    found = data("ingest", str(folder.path), "--name", "laion", "--shards", "00002", "--merge")
    assert (found["version"], found["shards"]) == ("laion.v2", 3)
    whole = data("ingest", str(folder.path), "--name", "grouped", "--tars-per-shard", "2")
    assert (whole["rows"], whole["shards"]) == (found["rows"], 2)
    assert data("show", "laion")["sources"][0]["samples"] == found["rows"]
    bad = run("ingest", str(folder.path), "--name", "laion", "--shards", "0000x", code=1)
    assert "0000x" in bad.stderr
    assert "Did you mean '0000" in bad.stderr


@pytest.mark.usefixtures("engine")
def test_ingest_of_what_cannot_be_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "00000.tar").write_bytes(b"")
    (broken / "00001.tar").write_bytes(b"this is no tar" * 100)
    result = run("ingest", str(broken), "--name", "laion", code=1)
    assert "00000" in result.stderr
    assert "Error:" in result.stderr
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "Error:" in run("ingest", str(empty), "--name", "laion", code=1).stderr
    assert "does not exist" in run("ingest", str(tmp_path / "nowhere"), "--name", "laion", code=1).stderr
    assert "Try 'laion_5b'" in run("ingest", str(broken), "--name", "LAION-5B", code=1).stderr
    assert data("ls") == []


# Comparing, descent, tags ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("photos")
def test_diff() -> None:
    found = data("diff", "photos.v1", "photos.v2")
    assert (found["added"], found["removed"], found["changed"], found["is_same"]) == (100, 0, 0, False)
    text = run("diff", "photos", "wide").stdout
    assert "150 removed" in text
    assert "C.width >= 150" in text
    assert "The same samples" in run("diff", "photos", "photos.v2").stdout
    DatasetQuery("photos").mutate(width=C.width + 1).save("photos")
    changed = run("diff", "photos.v2", "photos.v3").stdout
    assert re.search(r"^width +200$", changed, re.MULTILINE)
    assert data("diff", "photos.v2", "photos.v3")["columns"] == {"width": 200}


@pytest.mark.usefixtures("photos")
def test_lineage_and_trace() -> None:
    assert [v["name"] for v in data("lineage", "wide")["versions"]] == ["wide.v1", "photos.v2"]
    assert "└── photos.v2" in run("lineage", "wide").stdout
    assert run("lineage", "wide", "--mermaid").stdout.startswith("flowchart LR\n")
    run("lineage", "wide", "--mermaid", "--json", code=2)
    found = data("trace", "wide", "a7")
    assert (found["dropped_by"], found["is_kept"]) == ("wide.v1", False)
    assert "does not meet (C.width >= 150)  (width = 7)" in run("trace", "wide", "a7").stdout
    assert data("trace", "wide", "b60")["is_kept"] is True
    assert "Keys look like" in run("trace", "wide", "nobody", code=1).stderr


@pytest.mark.usefixtures("photos")
def test_tags() -> None:
    assert run("tag", "photos.v1", "icml").stdout == "photos@icml is photos.v1.\n"
    assert run("tag", "photos.v1", "icml").stdout == "photos@icml is photos.v1 already.\n"
    assert data("show", "photos@icml")["tags"] == ["icml"]
    assert DatasetQuery("photos@icml").count() == 100
    taken = run("tag", "photos.v2", "icml", code=1)
    assert "photos@icml is photos.v1" in taken.stderr
    assert "--force" in taken.stderr
    assert data("tag", "photos.v2", "icml", "--force")["changed"] is True
    assert [t["version"] for t in data("tag")] == ["photos.v2"]
    assert data("ls")[0]["tags"] == {"icml": "photos.v2"}
    assert "Did you mean 'icml'" in run("show", "photos@icm", code=1).stderr
    assert data("tag", "--delete", "photos@icml") == {"deleted": "photos@icml", "version": "photos.v2"}
    assert "no tag" in run("show", "photos@icml", code=1).stderr
    assert "reads like a version" in run("tag", "photos.v1", "v7", code=1).stderr
    run("tag", "--delete", "photos", code=2)


@pytest.mark.usefixtures("photos")
def test_gc() -> None:
    warehouse().execute(
        "CREATE TABLE photos._stage_left (x Int8) ENGINE = MergeTree ORDER BY x"
        f" COMMENT '{json.dumps({'host': os.uname().nodename, 'pid': 2**22 - 1})}'"
    )
    shown = data("gc", "--keep-last", "1", "--keep-days", "0")
    assert [t["table"] for t in shown["leftovers"]] == ["photos._stage_left"]
    assert [v["version"] for v in shown["versions"]] == ["photos.v1"]  # v2 is what wide.v1 was made of
    assert shown["deleted"] is False
    assert "--yes" in run("gc").stderr
    assert data("gc")["versions"] == []  # without a policy versions stay
    assert data("gc", "--keep-last", "1")["versions"] == []  # younger than an hour
    assert data("gc", "--keep-last", "1", "--keep-days", "0", "--yes")["deleted"] is True
    assert [v["name"] for v in data("ls", "photos")] == ["photos.v2"]
    assert warehouse().scalar("SELECT count() FROM photos.v2") == 200  # shares parts with what was dropped
    assert "nothing to delete" in run("gc", "--keep-last", "1", "--keep-days", "0").stderr


# Calling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["lss"], "There is no command 'lss'. Did you mean 'ls'?"),
        (["show"], "Missing argument 'VERSION'"),
        (["show", "a", "b"], "unexpected extra argument"),
        (["show", "laion", "--row", "3"], "--rows"),
        (["show", "laion", "--rows", "-1"], "-1 is not in the range"),
        (["sql", "SELECT 1", "--format", "xml"], "'xml' is not one of"),
        (["sql", "SELECT 1", "--json", "--format", "csv"], "exclude each other"),
        (["sql", "SELECT 1", "-o", "rows.xls"], "give --format"),
        (["sql", "SELECT 1", "-o", "/nowhere/rows.csv"], "no folder /nowhere"),
        (["sql", "SELECT 1", "--setting", "max_threads"], "NAME=VALUE"),
        (["gc", "--keep-last", "0"], "0 is not in the range"),
        (["up", "--port", "99999"], "99999 is not in the range"),
        (["ingest", "/data"], "Missing option '--name'"),
    ],
)
def test_wrong_calls(engine_for_all: None, arguments: list[str], says: str) -> None:
    result = run(*arguments, code=2)
    assert says in result.stderr
    assert result.stdout == ""


def test_errors_are_a_message_and_a_hint_and_debug_shows_more(engine: None) -> None:
    warehouse().execute("CREATE DATABASE laion")
    result = run("show", "Laion", code=1)
    assert result.stderr.splitlines() == [
        "Error: 'Laion' cannot name a dataset: names are lower-case letters, digits and _, and begin with a letter.",
        "Try 'laion'.",
    ]
    debugged = CliRunner().invoke(factory, ["show", "Laion", "--debug"])
    assert type(debugged.exception).__name__ == "InvalidName"


def test_every_command_has_help_with_an_example_that_names_it() -> None:
    listed = run("--help").stdout
    names = factory.list_commands(None)  # type: ignore[arg-type]
    for name in names:
        assert re.search(rf"^  {name} +\S", listed, re.MULTILINE), name
        if name != "demo":
            text = run(name, "--help").stdout
            assert f"factory {name}" in text.partition("Example:")[2], name
            assert "--debug" in text


def test_tables_look_the_same_whoever_sets_them() -> None:
    from rich.console import Console

    columns, numbers = ("name", "rows", "note"), ("rows",)
    rows = [("laion.v1", "12", "–"), ("a", "1,234,567", "long text …"), ("", "", "")]
    lines = output._lines(columns, rows, set(numbers))
    console = Console(file=io.StringIO(), width=500)
    console.print(output._drawn(columns, rows, "", set(numbers)))
    assert lines == console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert output._lines(columns, [("ä", "", "")], set()) is None
    assert output._lines(columns, [("a\nb", "", "")], set()) is None


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12.3 MB"), (999_950, "1 MB"), (5 * 10**15, "5 PB")],
)
def test_sizes(n: int, text: str) -> None:
    assert output.size(n) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0421, "0.042 s"), (9.94, "9.9 s"), (99.4, "99 s"), (100, "1 min 40 s"), (7265, "2 h 1 min")]
)
def test_durations(value: float, text: str) -> None:
    assert output.seconds(value) == text


# Real processes --------------------------------------------------------------------------------------------------


def process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=120, env={**os.environ, **environment}
    )


@pytest.mark.usefixtures("photos")
def test_piped_output_is_not_cut_and_has_no_colours() -> None:
    long = "x" * 300
    done = process("sql", f"SELECT '{long}' AS a, '{long}' AS b, 'ä' AS c", COLUMNS="40", FORCE_COLOR="")
    assert done.returncode == 0
    assert done.stdout.count(long) == 2
    assert max(map(len, done.stdout.splitlines())) > 600
    assert "\x1b" not in done.stdout
    ascii_only = process("sql", "SELECT 'ä'", PYTHONIOENCODING="ascii")
    assert ascii_only.returncode == 0  # a terminal that cannot show it is no reason to fail


@pytest.mark.usefixtures("photos")
def test_a_reader_that_leaves_ends_the_command_and_its_query() -> None:
    command = " ".join([*COMMAND, "sql", "'SELECT number AS n FROM numbers(4000000000)'", "--format", "csv"])
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -n 3; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ['"n"', "0", "1", "141"]
    assert done.stderr == ""
    deadline = time.monotonic() + 30
    running = "SELECT count() FROM system.processes WHERE query LIKE '%numbers(40000000%' AND query NOT LIKE '%system.processes%'"
    while warehouse().scalar(running) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert warehouse().scalar(running) == 0


@pytest.mark.usefixtures("photos")
def test_interrupting_a_command() -> None:
    running = subprocess.Popen(
        [*COMMAND, "sql", "SELECT sleepEachRow(1) FROM numbers(60)", "--setting", "function_sleep_max_microseconds_per_block=0",
         "--setting", "max_block_size=1"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    asked = (
        "SELECT count() FROM system.processes WHERE query LIKE '%sleepEachRow%' AND query NOT LIKE '%system.processes%'"
    )
    while not warehouse().scalar(asked):
        assert running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors.strip() == "Interrupted."


@pytest.mark.usefixtures("engine")
def test_an_ingest_that_is_killed_leaves_nothing_that_gc_does_not_sweep(tmp_path: Path) -> None:
    from factory_lib.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=40, shards=4)
    staged = "SELECT count() FROM system.tables WHERE name LIKE '\\\\_stage\\\\_%'"
    for _ in range(20):
        running = subprocess.Popen([*COMMAND, "ingest", str(folder.path), "--name", "laion"], stdout=subprocess.DEVNULL)
        while running.poll() is None and not warehouse().scalar(staged):
            time.sleep(0.005)
        running.kill()
        running.wait()
        if warehouse().scalar(staged):
            break
    left = data("gc")["leftovers"]
    assert left
    assert all("is gone" in one["reason"] for one in left)
    assert data("gc", "--yes")["deleted"] is True
    assert warehouse().scalar(staged) == 0
    made = data("ingest", str(folder.path), "--name", "laion")
    assert made["shards"] == 4


def test_status_and_down_start_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("FACTORY_HOME", str(home))
    status = data("status")
    assert (status["engine"], status["ui"], status["datasets"]) == (None, None, None)
    assert "Nothing runs" in run("down").stdout
    assert not home.exists()
    warehouse().scalar("SELECT 1")
    try:
        assert data("status")["engine"]["pid"] == (engine_status(home) or {})["pid"]
        assert data("status")["datasets"] == {"datasets": 0, "versions": 0}
        assert data("down") == {"stopped": ["engine"]}
        assert engine_status(home) is None
    finally:
        stop_engine(home)


def test_a_token_is_never_shown(factory_home: Path, engine: None) -> None:
    warehouse().scalar("SELECT 1")
    token = json.loads((factory_home / "engine.json").read_text())["token"]
    for arguments in (["status", "--json"], ["status"], ["sql", "SELECT * FROM nowhere.v1"], ["ls", "--json"]):
        result = CliRunner().invoke(factory, arguments)
        assert token not in result.stdout + result.stderr


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_CLICKHOUSE_URL", "http://user:s3cret@127.0.0.1:9/")
    result = run("ls", code=1)
    assert "127.0.0.1:9" in result.stderr
    assert "s3cret" not in result.stderr
    monkeypatch.setenv("FACTORY_CLICKHOUSE_URL", "nonsense")
    assert "FACTORY_CLICKHOUSE_URL" in run("ls", code=1).stderr
    assert threading.active_count() < 50
