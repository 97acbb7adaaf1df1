"""Sources without byte ranges: unpacked once, every byte and caption the same, and taken up again after a kill."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from factory_lib import open_source
from factory_lib.errors import SourceError
from factory_lib.sources import unpack
from factory_lib.sources.shards import ShardReport
from factory_lib.storage.store import Store, store
from tests.s3 import Bucket
from tests.samples import read_all, rows, write_tar
from tests.sources.test_sources_pictures import jpeg

CODECS: dict[str, Callable[[bytes], bytes]] = {
    "0.tar.gz": gzip.compress,
    "0.tgz": lambda data: gzip.compress(data[:5000]) + gzip.compress(data[5000:]),
    "0.tar.zst": lambda data: zstandard.ZstdCompressor().compress(data),
    "0.tar.bz2": bz2.compress,
    "0.tar.xz": lzma.compress,
    "0.tar": lz4.frame.compress,
}


def content(pointer: dict[str, Any]) -> bytes:
    return store().read(pointer["uri"], pointer["offset"], pointer["size"])


def members(count: int) -> list[tuple[str, bytes | str]]:
    return [
        member for n in range(count) for member in ((f"a/{n:04d}.jpg", jpeg(n % 8)), (f"a/{n:04d}.txt", f"caption {n}"))
    ]


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "PART_BYTES", 4000)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", CODECS)
def test_compressed_tars(tmp_path: Path, name: str) -> None:
    plain = write_tar(tmp_path / "plain.tar", members(12)).read_bytes()
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(CODECS[name](plain))
    with pytest.raises(SourceError, match="--unpack-to"):
        open_source(str(tmp_path / "in"))
    for _ in range(2):  # the second time out of what was unpacked
        source = open_source(str(tmp_path / "in"), unpack_to=str(tmp_path / "out"))
        table, reports = read_all(source)
        assert table["key"].to_pylist() == [f"a/{n:04d}" for n in range(12)]
        assert table["caption"].to_pylist() == [f"caption {n}" for n in range(12)]
        assert [content(pointer) for pointer in table["image"].to_pylist()] == [jpeg(n % 8) for n in range(12)]
        assert [report.counts for report in reports.values()] == [{}]
    parts = sorted((tmp_path / "out").rglob("*.tar"))
    assert len(parts) > 2
    with tarfile.open(parts[0]) as archive:  # what is there is a tar to others, too
        assert archive.getnames()[:2] == ["a/0000.jpg", "a/0000.txt"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "bad header"])
def test_damage_is_said_each_time(tmp_path: Path, damage: str) -> None:
    noise = np.random.default_rng(1)
    plain = bytearray(
        write_tar(tmp_path / "plain.tar", [(f"{n}.jpg", noise.bytes(50_000)) for n in range(12)]).read_bytes()
    )
    if damage == "bad header":
        at = plain.index(b"5.jpg")
        plain[at : at + 200] = b"x" * 200
    packed = bytearray(gzip.compress(bytes(plain)))
    if damage == "cut":
        del packed[len(packed) // 2 :]
    if damage == "flipped":
        packed[len(packed) // 2] ^= 0xFF
    (tmp_path / "0.tgz").write_bytes(packed)
    for _ in range(2):
        table, reports = read_all(open_source(str(tmp_path / "0.tgz"), unpack_to=str(tmp_path / "out")))
        assert 0 < table.num_rows <= 12 - (damage != "flipped")
        assert reports["0"].counts["damaged_tars"] == 1
        assert "0.tgz: damaged" in "".join(reports["0"].problems)


@pytest.mark.usefixtures("small_parts")
def test_a_kill_is_taken_up_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = write_tar(tmp_path / "plain.tar", members(12)).read_bytes()
    (tmp_path / "0.tgz").write_bytes(gzip.compress(plain))
    written: list[str] = []
    whole = Store.write

    def write(self: Store, uri: str, data: bytes) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(uri)
        whole(self, uri, data)

    monkeypatch.setattr(Store, "write", write)
    source = open_source(str(tmp_path / "0.tgz"), unpack_to=str(tmp_path / "out"))
    with pytest.raises(KeyboardInterrupt):
        list(source.read(source.shards()[0], ShardReport("0")))
    first = list(written)
    written.clear()
    monkeypatch.setattr(Store, "write", lambda self, uri, data: (written.append(uri), whole(self, uri, data))[1])
    assert [row["caption"] for row in rows(source, "caption")] == [f"caption {n}" for n in range(12)]
    assert not set(first) & set(written)
    assert written[-1].endswith("/unpacked.json")


def test_unpacked_into_a_bucket(tmp_path: Path, s3: Bucket) -> None:
    plain = write_tar(tmp_path / "plain.tar", members(3)).read_bytes()
    uri = s3.put("in/0.tar.gz", gzip.compress(plain))
    for _ in range(2):
        found = rows(open_source(uri, unpack_to=f"{s3.uri}/out"), "image", "caption")
        assert [content(row["image"]) for row in found] == [jpeg(n) for n in range(3)]
        assert found[0]["image"]["uri"].startswith(f"{s3.uri}/out/0.tar.gz-")


def hugging_face(count: int) -> pa.Table:
    files = [{"bytes": jpeg(n % 8), "path": f"{n}.jpg"} if n % 5 else None for n in range(count)]
    return pa.table(
        {
            "image": pa.array(files, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "mask": pa.array([[{"bytes": jpeg(n % 3), "path": None}] * (n % 3) for n in range(count)]),
            "text": [f"caption {n}" for n in range(count)],
            "digest": pa.array([bytes([n]) * 16 for n in range(count)], pa.binary()),
        }
    )


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)


WRITERS: dict[str, Callable[[pa.Table, Path], Any]] = {
    "train-00000.parquet": lambda table, path: pq.write_table(table, path, row_group_size=7),
    "data-00000.arrow": write_stream,
}


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", WRITERS)
def test_pictures_inside_tables(tmp_path: Path, name: str) -> None:
    (tmp_path / "in").mkdir()
    WRITERS[name](hugging_face(20), tmp_path / "in" / name)
    with pytest.raises(SourceError, match=r"'image', 'mask'.*--unpack-to"):
        open_source(str(tmp_path / "in"))
    for _ in range(2):
        source = open_source(str(tmp_path / "in"), unpack_to=str(tmp_path / "out"))
        assert source.schema.names == ["key", "image", "mask", "caption"]
        table, reports = read_all(source)
        images, masks = table["image"].to_pylist(), table["mask"].to_pylist()
        assert [content(p) if p["size"] else None for p in images] == [
            jpeg(n % 8) if n % 5 else None for n in range(20)
        ]
        assert [content(p) if p["size"] else None for p in masks] == [jpeg(n % 3) if n % 3 else None for n in range(20)]
        assert table["caption"].to_pylist() == [f"caption {n}" for n in range(20)]
        [report] = reports.values()
        assert report.counts == {"extra_files": sum(n % 3 == 2 for n in range(20))}


def test_parquet_that_img2dataset_wrote(tmp_path: Path) -> None:
    keys = [f"{n:09d}" for n in range(5)]
    good = [n != 2 for n in range(5)]
    table = pa.table(
        {
            "jpg": pa.array([jpeg(n) if ok else None for n, ok in enumerate(good)], pa.binary()),
            "key": keys,
            "caption": [f"c{n}" for n in range(5)],
            "url": [f"u{n}" for n in range(5)],
            "status": ["success" if ok else "failed_to_download" for ok in good],
            "error_message": [None if ok else "timed out" for ok in good],
        }
    )
    (tmp_path / "in").mkdir()
    pq.write_table(table, tmp_path / "in" / "00000.parquet")
    found, reports = read_all(open_source(str(tmp_path / "in"), unpack_to=str(tmp_path / "out")))
    assert found["key"].to_pylist() == [key for key, ok in zip(keys, good, strict=True) if ok]
    assert [content(p) for p in found["image"].to_pylist()] == [jpeg(n) for n in (0, 1, 3, 4)]
    assert reports["00000"].counts == {"failed_rows": 1, "failed: timed out": 1}


def test_hashes_in_binary_columns_are_no_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a"], "digest": pa.array([b"x" * 32], pa.binary())}), tmp_path / "a.parquet")
    assert open_source(str(tmp_path)).schema.names == ["key", "uid"]
