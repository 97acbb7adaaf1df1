"""Real tars, pools and broken files; expected values are counted without our readers."""

from __future__ import annotations

import csv
import io
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_lib.errors import FactoryError, SourceError
from factory_lib.sources import ShardReport, open_source
from factory_lib.storage.store import store
from tests.s3 import Bucket, Relay
from tests.samples import read_all


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))


def members(path: Path) -> dict[str, bytes]:
    """Contents of a tar, by tarfile."""
    with tarfile.open(path) as archive:
        return {m.name: archive.extractfile(m).read() for m in archive if m.isreg()}  # type: ignore[union-attr]


def bytes_of(table: pa.Table) -> list[bytes]:
    """What the image pointers of rows lead to."""
    found: list[bytes] = []
    for pointer in table["image"].to_pylist():
        found += map(bytes, store().read_ranges(pointer["uri"], [(pointer["offset"], pointer["size"])]))
    return found


def test_clothing(shared_data: Path) -> None:
    source = open_source(str(shared_data / "clothing"))
    assert source.format == "webdataset"
    table, reports = read_all(source)
    assert [report.counts for report in reports.values()] == [{}, {}]
    assert [report.problems for report in reports.values()] == [[], []]
    assert table.num_rows == 1_705
    expected = [members(path) for path in sorted((shared_data / "clothing" / "train96").glob("*.tar"))]
    pictures = [data for tar in expected for name, data in tar.items() if name.endswith(".jpg")]
    assert bytes_of(table) == pictures
    captions = [data.decode() for tar in expected for name, data in tar.items() if name.endswith(".txt")]
    assert table["caption"].to_pylist() == captions
    # The caption names the label; no two columns were swapped.
    assert all(label in caption for label, caption in zip(table["label"].to_pylist(), captions, strict=True))
    assert str(table.schema.field("width").type) == "int32"


def test_datacomp_like(shared_data: Path) -> None:
    folder = shared_data / "datacomp_like"
    table, reports = read_all(open_source(str(folder)))
    truth = {row["uid"]: row for row in csv.DictReader((folder / "groundtruth.csv").open())}
    failed = {uid for uid, row in truth.items() if row["failed"] == "1"}
    assert (table.num_rows, len(truth), len(failed)) == (461, 484, 23)
    assert set(table["uid"].to_pylist()) == truth.keys() - failed
    assert sum(report.counts["failed_rows"] for report in reports.values()) == 23
    assert reports["00000000"].counts["failed: HTTP Error 404: Not Found"] == 7
    assert "no_metadata" not in reports["00000000"].counts

    # The join once more, by numpy: sort all uids of the metadata, look up those of the samples.
    names, vectors, scores = [], [], []
    for path in sorted((folder / "metadata").glob("*.parquet")):
        metadata = pq.read_table(path)
        names.append(np.array(metadata["uid"].to_pylist()))
        scores.append(metadata["clip_b32_similarity_score"].to_numpy())
        with np.load(path.with_suffix(".npz")) as arrays:
            vectors.append({name: arrays[name] for name in arrays.files})
    uids = np.concatenate(names)
    order = np.argsort(uids)
    wanted = np.array(table["uid"].to_pylist())
    at = order[np.searchsorted(uids, wanted, sorter=order)]
    np.testing.assert_array_equal(uids[at], wanted)
    np.testing.assert_array_equal(table["clip_b32_similarity_score"].to_numpy(), np.concatenate(scores)[at])
    for name, dim in (("b32_img", 512), ("b32_txt", 512), ("l14_img", 768), ("l14_txt", 768), ("dedup", 256)):
        expected = np.concatenate([arrays[name] for arrays in vectors])[at].astype(np.float32)
        assert table.schema.field(name).type == pa.list_(pa.float32(), dim)
        found = table[name].combine_chunks().flatten().to_numpy().reshape(-1, dim)
        np.testing.assert_array_equal(found, expected)


def test_datacomp_like_without_its_metadata(shared_data: Path) -> None:
    source = open_source(str(shared_data / "datacomp_like" / "shards"))
    assert source.format == "img2dataset"
    table, _ = read_all(source)
    for shard in ("00000000", "00000001"):
        rows = table.filter(pa.compute.equal(table["shard"], shard))
        parquet = pq.read_table(shared_data / "datacomp_like" / "shards" / f"{shard}.parquet")
        by_key = {row["key"]: row for row in parquet.to_pylist()}
        assert rows["width"].to_pylist() == [by_key[key]["width"] for key in rows["key"].to_pylist()]
        assert rows["uid"].to_pylist() == [by_key[key]["uid"] for key in rows["key"].to_pylist()]
        assert rows["key"].to_pylist() != sorted(by_key)[: len(rows)]  # not what a join by position would give


def test_tars_of_webdataset_itself(shared_data: Path) -> None:
    table, reports = read_all(open_source(str(shared_data / "webdataset")))
    assert {name: report.samples for name, report in reports.items()} == {"compressed": 3, "mpdata": 100, "sample": 0}
    assert table["key"].to_pylist()[:3] == ["compressed/0001", "compressed/0002", "compressed/0003"]
    assert reports["sample"].counts == {"unreadable_tars": 1}
    assert "sample.tgz is compressed with gzip" in reports["sample"].problems[0]
    with pytest.raises(
        SourceError, match=r"sample.tgz is compressed with gzip.*--unpack-to.*unpack it first \(gzip -d\)"
    ):
        open_source(str(shared_data / "webdataset" / "sample.tgz"))


def test_laion_rows(shared_data: Path) -> None:
    source = open_source(str(shared_data / "laion400m" / "test_1000.parquet"))
    table, _ = read_all(source)
    expected = pq.read_table(shared_data / "laion400m" / "test_1000.parquet")
    assert source.schema.names == ["key", "url", "caption"]
    assert table["url"].to_pylist() == expected["URL"].to_pylist()
    assert table["caption"].to_pylist() == expected["TEXT"].to_pylist()


def test_plain_photos(shared_data: Path) -> None:
    table, _ = read_all(open_source(str(shared_data / "near_dups")))
    images = sorted(path for path in (shared_data / "near_dups" / "images").iterdir())
    assert table.num_rows == len(images) == 595
    assert sum(pointer["size"] for pointer in table["image"].to_pylist()) == sum(p.stat().st_size for p in images)


def test_every_broken_tar_is_a_problem_and_no_crash(shared_data: Path) -> None:
    table, reports = read_all(open_source(str(shared_data / "corrupt"), format="webdataset"))
    said = {name: (report.samples, report.counts) for name, report in reports.items()}
    assert said == {
        "tar_empty": (0, {}),
        "tar_gz_named_tar": (0, {"unreadable_tars": 1}),
        "tar_missing_members_dup_key": (7, {"no_image": 2, "repeated_keys": 1, "hidden_members": 1}),
        "tar_no_eof_blocks": (7, {"no_image": 2, "repeated_keys": 1, "hidden_members": 1, "unfinished_tars": 1}),
        "tar_truncated": (4, {"no_image": 1, "damaged_tars": 1}),
        "tar_zero": (0, {"unreadable_tars": 1}),
    }
    assert reports["tar_truncated"].problems[0].startswith("tar_truncated.tar: truncated at offset 110592")
    assert "no end marker" in reports["tar_no_eof_blocks"].problems[0]
    assert "is empty (0 bytes)" in reports["tar_zero"].problems[0]
    whole = members(shared_data / "corrupt" / "tar_missing_members_dup_key.tar")
    rows = table.filter(pa.compute.equal(table["shard"], "tar_missing_members_dup_key"))
    assert bytes_of(rows)[0] == whole["000000000.jpg"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("npz_row_mismatch.npz", "its arrays have these lengths: {'b32_img': 3, 'l14_img': 2}"),
        ("npz_truncated.npz", "npz_truncated.npz is not an npz"),
        ("parquet_truncated.parquet", "parquet_truncated.parquet cannot be read as parquet"),
        ("tar_gz_named_tar.tar", "is compressed with gzip"),
        ("tar_zero.tar", r"is empty \(0 bytes\)"),
        ("tar_empty.tar", "has no members with an extension"),
    ],
)
def test_each_broken_file_alone_says_what_is_wrong(shared_data: Path, name: str, said: str) -> None:
    problems: list[str] = []
    try:
        _, reports = read_all(open_source(str(shared_data / "corrupt" / name)))
        problems += [problem for report in reports.values() for problem in report.problems]
    except SourceError as error:
        problems.append(str(error))
    assert len(problems) == 1
    assert re.search(said, problems[0])


def test_bad_rows_of_a_parquet_are_kept_as_they_are(shared_data: Path) -> None:
    table, reports = read_all(open_source(str(shared_data / "corrupt" / "parquet_bad_rows.parquet")))
    assert table["caption"].to_pylist() == ["ok", None, "", "\x00bad"]
    assert table["original_width"].to_pylist() == [10, -1, None, 0]
    assert reports["parquet_bad_rows"].counts == {"rows_without_key": 1}


def test_no_file_at_all_crashes(shared_data: Path) -> None:
    said = {}
    for path in sorted((shared_data / "corrupt").iterdir()):
        try:
            read_all(open_source(str(path)))
        except FactoryError as error:
            said[path.name] = str(error)
    assert all(name in message for name, message in said.items())
    assert said.keys() == {
        "npz_truncated.npz",
        "parquet_truncated.parquet",
        "tar_empty.tar",
        "tar_gz_named_tar.tar",
        "tar_zero.tar",
    }


def test_a_pool_on_s3(shared_data: Path, s3: Bucket) -> None:
    local, reports = read_all(open_source(str(shared_data / "datacomp_like")))
    uri = s3.put_folder(shared_data / "datacomp_like", "pool")
    source = open_source(uri)
    remote, remote_reports = read_all(source)
    assert source.format == "datacomp"
    assert remote.drop_columns("image").equals(local.drop_columns("image"))
    assert {name: report.counts for name, report in remote_reports.items()} == {n: r.counts for n, r in reports.items()}
    pointers = remote["image"].to_pylist()
    assert {pointer["uri"] for pointer in pointers} == {f"{uri}/shards/{n:08d}.tar" for n in (0, 1)}
    assert bytes_of(remote.slice(0, 20)) == bytes_of(local.slice(0, 20))


def test_a_tar_on_s3_is_read_by_one_request(shared_data: Path, s3: Bucket, relay: Relay) -> None:
    source = open_source(s3.put_folder(shared_data / "clothing", "clothing"))
    shard = source.shards()[0]
    relay.gets.clear()
    report = ShardReport(shard.name)
    assert sum(len(batch) for batch in source.read(shard, report)) == 853
    assert relay.gets == [""]


def test_a_shard_on_s3_that_was_overwritten(shared_data: Path, s3: Bucket) -> None:
    uri = s3.put_folder(shared_data / "clothing" / "train96", "clothing")
    source = open_source(uri)
    before = source.shards()
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("0.jpg"))
    s3.put("clothing/00000001.tar", other.getvalue())
    with pytest.raises(FactoryError, match=r"s3://shards/clothing/00000001.tar was overwritten since it was listed"):
        list(source.read(before[1], ShardReport("00000001")))
    after = open_source(uri).shards()
    assert [shard.name for shard in after] == [shard.name for shard in before]
    assert [a.fingerprint == b.fingerprint for a, b in zip(after, before, strict=True)] == [True, False]
