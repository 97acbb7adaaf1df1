"""Wrong arguments, names, paths, settings and folders: a message, the next step and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import re
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from factory_lib import settings
from factory_lib.cli import factory
from tests.command_line import COMMAND, photos, run

__all__ = ["photos"]

LONG = "x" * 5000

CALLS: list[tuple[list[str], int, str]] = [
    # names
    (["show", "phots"], 1, "no dataset 'phots'.*Did you mean 'photos'"),
    (["show", "phötos"], 1, "'phötos' cannot name a dataset.*Try 'photos'"),
    (["show", "photos.v9"], 1, "no version photos.v9.*photos has v1 to v2"),
    (["show", "photos@icm"], 1, "no tag 'icm'.*latest version is photos.v2"),
    (["show", "photos.vx"], 1, "'photos.vx' does not name.*laion.v3"),
    (["show", LONG], 1, "'x{40}…'.*5,000 characters.*200 at most"),
    (["show", "\U0001f4f7"], 1, "cannot name a dataset"),
    (["ls", "photos.v9"], 1, "no version photos.v9"),
    (["ls", "photos@new"], 1, "no tag 'new'"),
    (["verify", "photos@new"], 1, "no tag 'new'"),
    (["diff", "photos", "photos.v9"], 1, "no version photos.v9"),
    (["tag", "photos", "A b"], 1, "'A b' cannot be a tag.*Try 'a-b'"),
    (["tag", "photos", "v7"], 1, "reads like a version"),
    (["trace", "photos", "nobody"], 1, "Keys look like"),
    (["search", "photos", "--column", "v", "--sample", "nobody"], 1, "no sample with that key or id"),
    (["search", "photos", "--text", "x"], 1, "no column 'clip'.*Columns of vectors: v"),
    (["reproduce", "wied"], 1, "Did you mean 'wide'"),
    (["lineage", "trained_model"], 1, "'trained_model' is a stage of the graph, and was never made"),
    (["lineage", "trained_modle"], 1, "no dataset 'trained_modle'"),
    (["uses", "phsh"], 1, "signal 'phsh'"),
    (["uses", "/nowhere/00000.tar"], 1, "No version points into /nowhere/00000.tar"),
    (["unsynced", "bsic_filter"], 1, "Did you mean 'basic_filter'"),
    (["why-stale", "bsic_filter"], 1, "Did you mean 'basic_filter'"),
    (["unsynced", "--module", "nosuch.module"], 1, "nosuch.module cannot be loaded.*No module named 'nosuch'"),
    # words
    (["cache", "shwo"], 2, "Did you mean 'show'"),
    (["sql", "SELECT 1", "--format", "cvs"], 2, "'cvs' is not one of .*Did you mean 'csv'"),
    (["sql", "SELECT 1", "--formt", "csv"], 2, "Did you mean '--format'"),
    (["sql", "SELECT 1", "--setting", "max_thread=3"], 1, "Did you mean 'max_threads'"),
    (["ingest", "{folder}", "--name", "a", "--format", "webdatset"], 1, "Did you mean 'webdataset'"),
    # empty ones, of variables that were not set
    (["show", ""], 2, "'VERSION' is empty"),
    (["ls", ""], 2, "'\\[DATASET\\|URI\\]' is empty"),
    (["verify", ""], 2, "is empty"),
    (["backup", ""], 2, "'DIR' is empty"),
    (["ingest", "", "--name", "a"], 2, "'URI' is empty"),
    (["ingest", "/data", "--name", ""], 2, "'--name' is empty"),
    (["ingest", "/data", "--name="], 2, "'--name' is empty"),
    (["unsynced", ""], 2, "is empty"),
    (["sql", "SELECT 1", "-o", ""], 2, "'-o' / '--output' is empty"),
    # numbers
    (["show", "photos", "--rows", "-1"], 2, "-1 is not in the range"),
    (["gc", "--keep-days", "-1"], 2, "-1.0 is not in the range"),
    (["sql", "SELECT 1", "--limit", "many"], 2, "'many' is not a valid integer"),
    # paths
    (["ingest", "{folder}/shrds", "--name", "a"], 1, "shrds does not exist.*Did you mean 'shards'"),
    (["ingest", "{folder}/shrds/train", "--name", "a"], 1, "{folder} has no 'shrds'. Did you mean 'shards'"),
    (["ingest", "{folder}/zebra/train", "--name", "a"], 1, "{folder} is there, and holds a.tar, shards"),
    (["ingest", "{folder}/shards/train", "--name", "a"], 1, "{folder}/shards is there, and holds nothing of that name"),
    (["ingest", "{folder}/a.tar/train", "--name", "a"], 1, "{folder}/a.tar is there, and holds nothing of that name"),
    (["backup", "{folder}/a.tar"], 2, "a.tar' is a file"),
    (["restore", "{folder}/shrds"], 2, "does not exist. Did you mean 'shards'"),
    (["sql", "SELECT 1", "-o", "{folder}"], 2, "is a directory"),
    (["sql", "SELECT 1", "-o", "{folder}/shrds/x.csv"], 2, "no folder .*shrds. Did you mean 'shards'"),
    (["sql", "SELECT 1", "-o", "/proc/x.csv"], 1, "/proc/x.csv: No such file"),
    (["up", "--source", "{folder}/shrds"], 1, "shrds does not exist.*Did you mean 'shards'"),
    (["ingest", "nosuch://bucket/x", "--name", "a"], 1, "nosuch://bucket/x cannot be opened.*fsspec"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file and an empty folder."""
    found = tmp_path_factory.mktemp("data")
    (found / "shards").mkdir()
    (found / "a.tar").write_bytes(b"no tar")
    return found


@pytest.mark.usefixtures("photos")
def test_wrong_calls_say_what_is_wrong_and_what_to_do(folder: Path) -> None:
    for arguments, code, says in CALLS:
        given = [one.replace("{folder}", str(folder)) for one in arguments]
        result = CliRunner().invoke(factory, given)
        about = (arguments, result.output, result.exception)
        assert result.exit_code == code, about
        assert result.stdout == "", about
        assert re.search(says.replace("{folder}", str(folder)), result.stderr, re.DOTALL), about
        assert max(map(len, result.stderr.splitlines())) < 500, about
    assert sorted(one.name for one in folder.iterdir()) == ["a.tar", "shards"]


SETTINGS = [
    ("FACTORY_WORKERS", "two", "'two' is not a number.*room for"),
    ("FACTORY_WORKERS", "-1", "below 0"),
    ("FACTORY_CACHE_BYTES", "nan", "no number that can be used.*20000000000"),
    ("FACTORY_TARS_PER_SHARD", "inf", "no number that can be used.*default, 1\\."),
    ("FACTORY_TARS_PER_SHARD", "2.5", "2.5 is no whole number.*default, 1\\."),
    ("FACTORY_WORKER_BYTES", "1", "below 67108864"),
    ("FACTORY_MAPPING", 'image="', "cannot be taken apart"),
    ("FACTORY_MAPPING", "image", "words such as"),
    ("FACTORY_HOME", "~nobody-of-that-name/x", "no such user here.*whole path"),
    ("FACTORY_CACHE", "~nobody-of-that-name/x", "no such user here.*whole path"),
    ("RANK", "first", "not a whole number"),
]


@pytest.mark.parametrize(("name", "value", "says"), SETTINGS)
def test_settings_that_cannot_be_are_told(name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    result = run("cache", "show", code=1)
    assert name in result.stderr
    assert re.search(says, result.stderr, re.DOTALL), result.stderr


def test_a_setting_that_is_mistyped_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOEM", "/data")
    monkeypatch.setenv("FACTORY_FLOOR_PLAN", "of somebody else")
    assert settings.mistyped() == {"FACTORY_HOEM": "FACTORY_HOME"}


COMMANDS = ("ls", "tag", "status", "down", "unsynced", "cache show", "cache clear")


@pytest.mark.parametrize("home", ["{file}", "{file}/below", "/proc/nowhere"])
def test_a_data_folder_that_cannot_be_used_is_told(home: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FACTORY_HOME", home.replace("{file}", str(tmp_path / "file")))
    for command in COMMANDS:
        result = CliRunner().invoke(factory, command.split())
        assert result.exit_code in (0, 1), (command, result.exception)
        assert result.exit_code == 0 or "Set FACTORY_HOME to a folder" in result.stderr, (command, result.output)
    assert run("ls", code=1).stderr.startswith("Error: The data folder ")


@contextlib.contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Have the system refuse to write more to a file, as a disk does that runs full."""
    was, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, was[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, was)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("engine")
def test_a_file_that_cannot_be_written_is_named_and_nothing_is_left_of_it(tmp_path: Path) -> None:
    run("sql", "SELECT 1")
    with files_up_to(1000):
        result = run("sql", "SELECT * FROM numbers(10000)", "-o", str(tmp_path / "rows.csv"), code=1)
    assert f"{tmp_path}/rows.csv: File too large" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("engine")
def test_an_output_that_is_full_or_closed_is_no_traceback() -> None:
    run("sql", "SELECT 1")
    called = " ".join([*COMMAND, "sql", "'SELECT * FROM numbers(100000)'", "--format", "csv"])
    full = subprocess.run(["bash", "-c", f"{called} > /dev/full"], capture_output=True, text=True, timeout=60)
    said = "Error: The output cannot be written: No space left on device."
    assert (full.returncode, full.stderr.splitlines()[0]) == (1, said)
    closed = subprocess.run(["bash", "-c", f"{sys.executable} -m factory_lib.cli ls <&- >&-"], capture_output=True)
    assert (closed.returncode, b"Traceback" in closed.stderr) == (0, False)
