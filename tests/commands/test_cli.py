"""The command line: what it prints, its exit codes, wrong arguments, broken input."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from factory_lib import C, DatasetQuery
from factory_lib.cli import factory
from factory_lib.commands import output
from factory_lib.warehouse.client import warehouse
from tests.command_line import data, photos, run

__all__ = ["photos"]


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


# Ingest ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("engine")
def test_ingest(tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=60, shards=3)
    made = run("ingest", str(folder.path), "--name", "laion", "--shards", "00000,00001")
    assert made.stdout == "laion.v1\n"
    assert "samples read" in made.stderr
    found = data("ingest", str(folder.path), "--name", "laion", "--shards", "00002", "--overwrite-shards")
    assert (found["version"], found["shards"]) == ("laion.v2", 3)
    whole = data("ingest", str(folder.path), "--name", "grouped", "--tars-per-shard", "2")
    assert (whole["rows"], whole["shards"]) == (found["rows"], 2)
    assert data("show", "laion")["sources"][0]["samples"] == found["rows"]
    old = run("ingest", str(folder.path), "--name", "laion", "--shards", "00002", "--merge")
    assert old.stdout == "laion.v3\n"
    assert "--merge is called --overwrite-shards now" in old.stderr
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
def test_search() -> None:
    rows = data("search", "photos", "--sample", "a7", "--column", "v", "-k", "3")
    assert (len(rows), rows[0]["distance"]) == (3, pytest.approx(0, abs=1e-6))
    assert {"distance", "key", "shard", "position", "sample_id"} <= rows[0].keys()
    assert re.search(r"^distance +key ", run("search", "photos", "--sample", "a7", "--column", "v").stdout)
    assert (
        "no index of 'v'" in run("search", "photos", "--sample", "a7", "--column", "v", "--approximate", code=1).stderr
    )
    assert "Give one of text=" in run("search", "photos", "--column", "v", code=1).stderr
    assert "'clip'" in run("search", "photos", "--text", "x", code=1).stderr


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
        text = run(name, "--help").stdout
        assert f"factory {name}" in text.partition("Example:")[2], name
        assert "--debug" in text


def test_packages_bring_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "demo" in factory.list_commands(None)  # type: ignore[arg-type]
    about = tmp_path / "polisher-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: polisher\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[dataset_factory.commands]\npolish = polisher_of_a_test:polish\n")
    text = "import click\n\n@click.command()\ndef polish() -> None:\n    'Polish it.'\n    click.echo('it shines')\n"
    (tmp_path / "polisher_of_a_test.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert run("polish").stdout == "it shines\n"
    assert re.search("^  polish +Polish it", run("--help").stdout, re.MULTILINE)
    mistyped = run("polsh", code=2)
    assert "Did you mean 'polish'?" in mistyped.stderr


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
