"""Where exports go: half of one is never taken for whole, one that was killed goes on, and nothing is lost unasked."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from factory_lib import C, DatasetQuery, export, fn
from factory_lib.errors import ExportError, FileMissing, StoreError
from factory_lib.owners import Owner
from factory_lib.progress import reporting
from factory_lib.storage.local import LocalFiles
from factory_lib.storage.store import Store, store
from factory_lib.writing import (
    CocoExport,
    CsvExport,
    ExportFormat,
    HuggingFaceExport,
    ParquetExport,
    SubsetExport,
    WebDatasetExport,
)
from factory_lib.writing.parts import ExportPart, PartReport
from factory_lib.writing.place import ExportPlace
from factory_lib.writing.rows import ExportRows
from tests.s3 import Bucket
from tests.writing.exports import contents, pool, said, tar_samples

__all__ = ["pool"]

SMALL = WebDatasetExport(samples_per_file=10)
KILLED = """
import os, signal, sys
from factory_lib import export
from factory_lib.writing import WebDatasetExport, webdataset
from factory_lib.storage.tars import TarWriter

add = TarWriter.add
def killed(self, key, members):
    if key == "000025":
        self._out.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return add(self, key, members)
TarWriter.add = killed
export("pool", sys.argv[1], WebDatasetExport(samples_per_file=10), workers=1)
"""


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parts that are written from now on."""
    names: list[str] = []
    write = WebDatasetExport.write

    def noted(self: WebDatasetExport, part: ExportPart, rows: ExportRows, to: str, parts: int) -> Any:
        names.append(part.name)
        return write(self, part, rows, to, parts)

    monkeypatch.setattr(WebDatasetExport, "write", noted)
    return names


def test_a_killed_export_is_not_whole_and_goes_on(pool: Path, tmp_path: Path, written: list[str]) -> None:
    out = tmp_path / "out"
    done = subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (out / "provenance.json").exists()
    assert sorted(path.name for path in out.glob("0*.tar")) == ["00000.tar", "00001.tar"]
    export("pool", str(out), SMALL, workers=1)
    assert written == ["00002", "00003", "00004", "00005"]
    export("pool", str(tmp_path / "fresh"), SMALL)
    assert contents(out) == contents(tmp_path / "fresh")


def test_the_same_export_is_not_made_again(pool: Path, tmp_path: Path, written: list[str]) -> None:
    first = export("pool", str(tmp_path / "out"), SMALL)
    before = contents(tmp_path / "out")
    written.clear()
    again = export("pool.v1", str(tmp_path / "out"), SMALL)
    assert (first.made, again.made, written) == (True, False, [])
    assert (again.samples, again.files) == (60, first.files)
    assert contents(tmp_path / "out") == before


def test_another_export_is_overwritten_only_when_asked(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export("pool", str(out), SMALL)
    before = contents(out)
    few = DatasetQuery("pool").filter(C.width == 16).limit(5)
    with pytest.raises(ExportError, match=r"holds an export of DatasetQuery\('pool.v1'\). .*--overwrite"):
        export(few, str(out), SMALL)
    assert contents(out) == before
    export(few, str(out), SMALL, overwrite=True)
    assert contents(out).keys() == {"00000.tar", "sizes.json", "provenance.json"}
    assert len(tar_samples(out / "00000.tar")) == 5


def test_what_is_left_of_another_export_goes_when_asked(pool: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert subprocess.run([sys.executable, "-c", KILLED, str(out)], check=False).returncode
    with pytest.raises(ExportError, match=r"holds an unfinished export of DatasetQuery\('pool.v1'\)"):
        export("pool", str(out), WebDatasetExport(samples_per_file=30))
    export("pool", str(out), WebDatasetExport(samples_per_file=60), overwrite=True)
    assert contents(out).keys() == {"00000.tar", "sizes.json", "provenance.json"}


class _Kill(BaseException):
    pass


def _place_files(folder: Path, identity: str, names: list[str]) -> None:
    """An export of files with the identity as content, one of them in no part."""
    place = ExportPlace(str(folder), identity)
    if place.begin(identity, overwrite=True) is not None:
        return
    place.announce(names)
    done = place.done(names[:-1])
    for name in names:
        if name not in done:
            store().write(f"{folder}/{name}", identity.encode())
        if name != names[-1]:
            place.record(name, PartReport(files={name: len(identity)}))
    place.finish({"export": identity, "what": identity, "files": dict.fromkeys(names, len(identity))})


def test_whatever_is_killed_the_next_export_is_whole_and_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = {"old": ["0.tar", "1.tar", "2.tar", "sizes.json"], "another": ["1.tar", "sizes.json"]}
    left = 0

    def counted(of: Any) -> Any:
        def step(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise _Kill
            return of(*args)

        return step

    for cls, name in ((Store, "remove"), (LocalFiles, "publish"), (LocalFiles, "write")):
        monkeypatch.setattr(cls, name, counted(getattr(cls, name)))
    ends = 0
    for at in range(1, 100):
        for first, then in (("old", "another"), ("another", "old"), ("old", "old"), ("another", "another")):
            out = tmp_path / f"{at}-{first}-{then}"
            left = 0
            _place_files(out, "old", exports["old"])
            left = at
            with contextlib.suppress(_Kill):
                _place_files(out, first, exports[first])
                _place_files(out, "another", exports["another"])
                ends += 1
            left = 0
            (out / "thesis.tex").write_text("of somebody else")
            _place_files(out, then, exports[then])
            found = contents(out)
            assert found.pop("thesis.tex") == b"of somebody else"
            assert json.loads(found.pop("provenance.json"))["export"] == then
            assert found == dict.fromkeys(exports[then], then.encode())
        if ends == 4:
            return
    raise AssertionError("it never came to its end")


def test_a_file_that_was_made_and_not_recorded_goes_with_its_export(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    record = ExportPlace.record

    def killed(self: ExportPlace, name: str, report: PartReport) -> None:
        if name == "00003":
            raise _Kill
        record(self, name, report)

    monkeypatch.setattr(ExportPlace, "record", killed)
    with pytest.raises(_Kill):
        export("pool", str(out), SMALL, workers=1)
    monkeypatch.setattr(ExportPlace, "record", record)
    assert (out / "00003.tar").exists()
    export(DatasetQuery("pool").filter(C.width == 16).limit(5), str(out), SMALL, overwrite=True)
    assert contents(out).keys() == {"00000.tar", "sizes.json", "provenance.json"}


@pytest.mark.parametrize(
    "format",
    [
        WebDatasetExport(samples_per_file=25),
        ParquetExport(samples_per_file=25),
        HuggingFaceExport(samples_per_file=25),
        CsvExport(samples_per_file=25),
        CocoExport(samples_per_file=25),
        SubsetExport(),
    ],
    ids=lambda one: one.name,
)
def test_a_format_names_its_files_before_it_writes_them(
    pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: ExportFormat
) -> None:
    named: list[str] = []
    announce = ExportPlace.announce

    def noted(self: ExportPlace, files: Any) -> None:
        named[:] = list(files)
        announce(self, named)

    monkeypatch.setattr(ExportPlace, "announce", noted)
    made = export("pool", str(tmp_path / "out"), format)
    assert [file for file in made.files if file not in named and f"{file.partition('/')[0]}/" not in named] == []


def test_files_of_others_are_never_touched(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("all of it")
    for overwrite in (False, True):
        with pytest.raises(ExportError, match="out is no export and holds thesis.tex. Name a folder that is empty"):
            export("pool", str(tmp_path / "out"), SMALL, overwrite=overwrite)
    assert contents(tmp_path / "out") == {"thesis.tex": b"all of it"}


def test_an_export_that_was_changed_is_not_taken_for_whole(pool: Path, tmp_path: Path) -> None:
    export("pool", str(tmp_path / "out"), SMALL)
    whole = contents(tmp_path / "out")
    (tmp_path / "out" / "00001.tar").unlink()
    with pytest.raises(ExportError, match="its files are not what provenance.json says"):
        export("pool", str(tmp_path / "out"), SMALL)
    export("pool", str(tmp_path / "out"), SMALL, overwrite=True)
    assert contents(tmp_path / "out") == whole


def test_two_processes_do_not_write_to_one_place(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    parent = Owner.process(os.getppid())
    (tmp_path / "out" / "_unfinished.json").write_text(json.dumps({"export": "x", "owner": parent.as_dict()}))
    with pytest.raises(ExportError, match=f"process {os.getppid()} is writing to"):
        export("pool", str(tmp_path / "out"), SMALL, overwrite=True)


def test_samples_that_cannot_be_read_are_left_out_and_named(pool: Path, tmp_path: Path) -> None:
    tar = pool / "00001.tar"
    status = tar.stat()
    uris = DatasetQuery("pool").filter(C.key == "000039").select(C.image.offset).to_arrow()
    cut = uris.column(0)[0].as_py()
    data = tar.read_bytes()[:cut]
    tar.unlink()
    tar.write_bytes(data)
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns))
    (pool / "00002.tar").unlink()
    made = export("pool", str(tmp_path / "out"), SMALL)
    found = said(tmp_path / "out")
    # The tar that was cut is another file than the one that was ingested, and the third is gone.
    assert (made.samples, made.unreadable, found["left_out"]) == (20, 40, {"unreadable": 40})
    assert set(made.named) == {f"{n:06d}" for n in range(20, 60)}
    assert "00001.tar was overwritten" in made.named["000020"]
    assert "00002.tar does not exist" in made.named["000059"]
    assert sum(len(tar_samples(path)) for path in (tmp_path / "out").glob("*.tar")) == 20
    with pytest.raises(StoreError, match="0000[12].tar"):
        export("pool", str(tmp_path / "strict"), WebDatasetExport(strict=True))
    assert not (tmp_path / "strict" / "provenance.json").exists()


def test_samples_without_a_member_are_written_and_counted(pool: Path, tmp_path: Path) -> None:
    (pool / "00003.tar").write_bytes(b"")
    from tests.samples import write_tar

    write_tar(
        pool / "00003.tar", [("000060.txt", "no picture"), ("000061.jpg", b"\xff\xd8\xff"), ("000061.seg.npy", b"")]
    )
    DatasetQuery.from_source(str(pool)).save("pool")
    made = export(DatasetQuery("pool", shards=["00003"]), str(tmp_path / "out"), SMALL)
    assert made.without == {"image": 1, "seg_npy": 1}
    assert {k: set(v) for k, v in tar_samples(tmp_path / "out" / "00000.tar").items()} == {
        "000060": {"json", "txt"},
        "000061": {"jpg", "json", "seg.npy"},
    }


def test_keys_are_looked_at_before_anything_is_written(pool: Path, tmp_path: Path) -> None:
    twice = DatasetQuery("pool").mutate(key=fn.substring(C.license, 1, 2))
    with pytest.raises(ExportError, match="59 samples have a key that another one has, such as 'CC'"):
        export(twice, str(tmp_path / "out"), SMALL)
    dotted = DatasetQuery("pool").mutate(key=fn.concat(C.key, ".v1"))
    with pytest.raises(ExportError, match="60 keys cannot be names of files, such as '0000"):
        export(dotted, str(tmp_path / "out"), SMALL)
    with pytest.raises(ExportError, match="no samples to export"):
        export(DatasetQuery("pool").filter(C.width > 99), str(tmp_path / "out"), SMALL)
    with pytest.raises(LookupError, match="no column 'uuid' to be named by. Did you mean 'uid'"):
        export("pool", str(tmp_path / "out"), WebDatasetExport(key="uuid"))
    with pytest.raises(ExportError, match="have no position and no shard"):
        export(DatasetQuery("pool").group_by("license").agg(n=fn.count()), str(tmp_path / "out"), SMALL)
    assert not (tmp_path / "out").exists()
    export(twice, str(tmp_path / "out"), WebDatasetExport(key="sample_id"))
    ids = DatasetQuery("pool").to_arrow()["sample_id"].to_pylist()
    assert list(tar_samples(tmp_path / "out" / "00000.tar")) == [str(one) for one in ids]


def test_an_interrupt_ends_an_export_soon_and_leaves_no_half(pool: Path, tmp_path: Path) -> None:
    def interrupt(what: str, done: int, total: int | None) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), reporting(interrupt):
        export("pool", str(tmp_path / "out"), _Slow(samples_per_file=1), workers=2)
    assert not (tmp_path / "out" / "provenance.json").exists()
    assert len(list((tmp_path / "out").glob("*.tar"))) < 60
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".part")]


class _Slow(WebDatasetExport):
    """So slow that progress is told of."""

    def write(self, part: ExportPart, rows: ExportRows, to: str, parts: int) -> Any:
        rows.stopped.wait(0.2)
        return super().write(part, rows, to, parts)


def test_s3_to_s3(engine: None, pool: Path, s3: Bucket, tmp_path: Path) -> None:
    DatasetQuery.from_source(s3.put_folder(pool, "pool")).save("remote")
    export("remote", f"{s3.uri}/out", SMALL, shuffle=True)
    found = {
        one["Key"]: s3.client.get_object(Bucket=s3.name, Key=one["Key"])["Body"].read()
        for one in s3.client.list_objects_v2(Bucket=s3.name, Prefix="out/")["Contents"]
    }
    assert found.keys() == {"out/provenance.json", "out/sizes.json", *(f"out/0000{n}.tar" for n in range(6))}
    for name, data in found.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    keys = [key for path in sorted((tmp_path / "out").glob("*.tar")) for key in tar_samples(path)]
    assert sorted(keys) == [f"{n:06d}" for n in range(60)]
    assert not export("remote", f"{s3.uri}/out", SMALL, shuffle=True).made
    with pytest.raises(FileMissing, match="s3://nowhere"):
        export("remote", "s3://nowhere/out", SMALL)
