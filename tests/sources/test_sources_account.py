"""Nothing is ignored in silence: every file and column is used, or left out with a reason; nothing bad ends a run."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster import AssetCheckSeverity
from rich.console import Console

from factory_assets.demo.report import print_ingest
from factory_lib import DatasetQuery, open_source
from factory_lib.errors import FileChanged, SourceError
from factory_lib.orchestration.checks.sources import check_ingest
from factory_lib.sources import OpenedSource, ShardReport, SourceShard
from factory_lib.sources.account import Account, lines, losses
from factory_lib.sources.surviving import surviving, without_the_bad
from tests.samples import read_all, rows, write_tar


def left_out(source: OpenedSource) -> dict[str, str]:
    """The name of each file and column that is not used (of large groups the first three) -> the reason."""
    entries = source.account.data()
    return {name: entry["reason"] for entry in entries if not entry["used"] for name in entry["examples"]}


def test_every_file_stands_in_the_account(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("1.jpg", "1.txt", "2.JPG", "2.HEIC", "3.jpg.part", "alone.txt", ".hidden.jpg", "README.md", "odd.xyz"):
        (folder / name).write_bytes(b"x")
    (folder / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.symlink(folder, folder / "again")
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    source = open_source(str(folder))
    found = left_out(source)
    assert found.keys() == {
        "2.HEIC", "3.jpg.part", "alone.txt", ".hidden.jpg", "README.md", "odd.xyz", "broken.jpg", "again",
        "caf\\udce9.jpg",
    }  # fmt: skip
    assert "convert it to JPEG" in found["2.HEIC"]
    assert found["broken.jpg"] == "a broken link"
    assert found["3.jpg.part"] == "looks like an unfinished download"
    assert found[".hidden.jpg"] == "hidden"
    assert "UTF-8" in found["caf\\udce9.jpg"]
    data = source.account.data()
    files = [entry for entry in data if entry["kind"] == "files"]
    assert sum(entry["count"] for entry in files) == 12
    assert sum(entry["count"] for entry in files if entry["used"]) == 3
    assert losses(data) == 7  # all but the hidden one and the README
    assert lines(data)[0].startswith("files: 3 used (2 .jpg, 1 .txt), 9 left out:")
    assert [row["key"] for row in rows(source, "key")] == ["1", "2"]


@pytest.mark.usefixtures("engine")
def test_the_account_is_in_the_provenance(tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "0.tar", [("1.jpg", b"x")])
    (tmp_path / "t" / "notes.bin").write_bytes(b"x")
    version = DatasetQuery.from_source(str(tmp_path / "t")).save("accounted")
    assert version.provenance is not None
    account = version.provenance.sources[0]["account"]
    assert [(e["what"], e["count"]) for e in account if e["kind"] == "files" and not e["used"]] == [(".bin", 1)]
    assert {name for e in account if e["kind"] == "columns" for name in e["examples"]} == {"key", "image"}
    console = Console(record=True, width=200, file=io.StringIO())
    print_ingest(version, console)
    printed = console.export_text()
    assert "1 samples, 1 shards (webdataset)" in printed
    assert "1 .bin (notes.bin): belongs to no sample of the format webdataset" in printed


@pytest.mark.usefixtures("engine")
def test_a_file_that_cannot_be_opened_is_no_success(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tar(tmp_path / "t" / f"{name}.tar", [(f"{n}.jpg", b"x") for n in range(9)])
    DatasetQuery.from_source(str(tmp_path / "t")).save("opened")
    assert check_ingest("opened").passed
    (tmp_path / "t" / "a.tar").write_bytes(b"no tar" * 400)
    DatasetQuery.from_source(str(tmp_path / "t")).save("opened")
    found = check_ingest("opened")
    assert not found.passed
    assert found.description is not None
    assert found.severity == AssetCheckSeverity.ERROR
    assert "9 samples read, 0 lost (0.0%). Nothing was read of 1 shards: a: " in found.description
    assert found.metadata["unreadable_tars"].value == 1


def test_columns_stand_in_the_account_by_the_names_that_they_get(tmp_path: Path) -> None:
    nested = pa.array([{"a": 1}])
    table = {"url": ["u"], "标题": ["t"], "描述": ["d"], "text": ["x"], "one": nested, "two": nested}
    pq.write_table(pa.table(table), tmp_path / "0.parquet")
    source = open_source(str(tmp_path), caption="one", drop_columns=["two"])
    columns = [e for e in source.account.data() if e["kind"] == "columns"]
    used = {name: e["reason"] for e in columns if e["used"] for name in e["examples"] if e["reason"]}
    assert used["caption"] == "nested values as JSON text"
    assert (used["column"], used["column_2"]) == ("called '标题' there", "called '描述' there")
    assert sum(e["count"] for e in columns if e["used"]) == len(source.schema.names)
    assert left_out(source) == {"two": "left out by choice"}


def test_groups_are_counted_and_keep_three_names() -> None:
    account = Account()
    for number in range(10):
        account.leave_out("files", ".heic", f"{number}.heic", "why")
        account.leave_out("files", ".heic", f"{number}.heic", "why")
    (entry,) = account.data()
    assert entry["count"] == 10
    assert entry["examples"] == ["0.heic", "1.heic", "2.heic"]
    assert lines(account.data()) == [
        "files: 0 used, 10 left out:",
        "  10 .heic (0.heic, 1.heic, 2.heic, …): why",
    ]


@dataclass(frozen=True)
class Broken:
    """A source whose reader fails after its first batch, with whatever it is told."""

    error: BaseException
    uri: str = "/broken"
    format: str = "broken"
    schema: pa.Schema = field(default_factory=lambda: pa.schema([("key", pa.string())]))

    def shards(self) -> list[SourceShard]:
        """One without files."""
        return [SourceShard("s", ())]

    def read(self, shard: SourceShard, report: ShardReport) -> Iterator[pa.RecordBatch]:
        """One row, then the error."""
        report.samples += 1
        yield pa.RecordBatch.from_pylist([{"key": "a"}], self.schema)
        raise self.error


@pytest.mark.parametrize(
    "error",
    [ValueError("5,000 digits"), MemoryError(), RecursionError(), UnicodeEncodeError("utf-8", "\udc80", 0, 1, "no"),
     ZeroDivisionError(), pa.ArrowInvalid("x"), OSError(5, "I/O"), SourceError("said \udc80"), AssertionError()],
)  # fmt: skip
def test_whatever_a_reader_raises_ends_its_shard_alone(error: Exception) -> None:
    source = OpenedSource("s", Broken(error), {"key": "key"})
    table, reports = read_all(source)
    assert table["key"].to_pylist() == ["a"]
    assert reports["s"].counts == {"unreadable_shards": 1}
    assert reports["s"].problems[0].encode()


def test_what_says_nothing_of_a_file_is_an_error() -> None:
    for error in (FileChanged("overwritten"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            list(OpenedSource("s", Broken(error), {"key": "key"}).read(SourceShard("s", ()), ShardReport("s")))


def test_the_bad_sample_alone_is_left_out() -> None:
    bad = {3, 4, 17}
    report = ShardReport("s")

    def build(start: int, stop: int) -> list[int]:
        report.count("built", stop - start)
        if bad & set(range(start, stop)):
            raise OverflowError("10^400")
        return list(range(start, stop))

    found = [n for part in without_the_bad(20, build, str, "unreadable_samples", report) for n in part]
    assert found == [n for n in range(20) if n not in bad]
    assert report.counts == {"built": 17, "unreadable_samples": 3}
    assert report.problems == [f"sample '{n}' cannot be read: OverflowError: 10^400" for n in sorted(bad)]


def test_rows_before_the_damage_are_kept() -> None:
    report = ShardReport("s")

    def numbers() -> Iterator[int]:
        yield 1
        raise ValueError("x" * 10_000)

    assert list(surviving(numbers(), "/data/a.tar", "unreadable_tars", report)) == [1]
    assert report.counts == {"unreadable_tars": 1}
    assert report.problems[0].startswith("/data/a.tar cannot be read: ValueError: xxx")
    assert len(report.problems[0]) < 500
