"""`factory export`: what it prints, and what it says of wrong arguments."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import data, run
from tests.writing.exports import pool, tar_samples

__all__ = ["pool"]


def test_a_version_is_exported(pool: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    said = run(
        "export", "pool.v1", out, "--format", "webdataset", "--samples-per-file", "25", "--shuffle", "1",
        "--members", "image", "--columns", "uid,score",
    )  # fmt: skip
    assert said.stdout.startswith(f"{out}: 60 samples in 4 files, ")
    tar = tar_samples(tmp_path / "out" / "00000.tar")
    assert list(tar) != sorted(tar)
    assert json.loads(next(iter(tar.values()))["json"]).keys() == {"uid", "score"}


def test_json_says_what_was_written(pool: Path, tmp_path: Path) -> None:
    arguments = ("export", "pool", str(tmp_path / "out"), "--format", "csv", "--columns", "key")
    found = data(*arguments)
    assert (found["made"], found["samples"], found["unreadable"]) == (True, 60, 0)
    assert found["provenance"] == json.loads((tmp_path / "out" / "provenance.json").read_text())
    assert found["bytes"] == sum(found["files"].values())
    assert not data(*arguments)["made"]


def test_unreadable_samples_are_told(pool: Path, tmp_path: Path) -> None:
    (pool / "00001.tar").unlink()
    said = run("export", "pool", str(tmp_path / "out"), "--format", "webdataset").stdout
    assert "40 samples in 2 files" in said
    assert "20 samples could not be read and were left out" in said
    assert "00001.tar does not exist" in said
    failed = run("export", "pool", str(tmp_path / "strict"), "--format", "webdataset", "--strict", code=1)
    assert "00001.tar" in failed.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--format", "webdatasets"], 2, "Did you mean 'webdataset'?"),
        (["--format", "csv", "--subset", "a.npy"], 2, "--subset means nothing to the format csv"),
        (["--format", "csv", "--epoch", "1"], 2, "give --shuffle, too"),
        (["--format", "resharded"], 1, "needs a subset file"),
        (["--format", "csv", "--columns", "scor"], 1, "Did you mean 'score'?"),
        (["--format", "webdataset", "--key", "license"], 1, "--key sample_id"),
        (["--format", "webdataset", "--samples-per-file", "0"], 2, "--samples-per-file"),
        ([], 2, "--format"),
    ],
)
def test_wrong_arguments(pool: Path, tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    assert text in run("export", "pool", str(tmp_path / "out"), *arguments, code=code).stderr
    assert not (tmp_path / "out").exists()


def test_a_dataset_that_is_not_there(pool: Path, tmp_path: Path) -> None:
    assert "Did you mean 'pool'?" in run("export", "pol", str(tmp_path), "--format", "csv", code=1).stderr
