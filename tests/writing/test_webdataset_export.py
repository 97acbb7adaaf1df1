"""Exports as WebDataset's tars: what is in them, in which order, and what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory_lib import C, DatasetQuery, export, version
from factory_lib.errors import ExportError
from factory_lib.writing import CsvExport, ExportFormat, HuggingFaceExport, ParquetExport, WebDatasetExport
from tests.writing.exports import contents, pool, said, sample, tar_samples

__all__ = ["pool"]


def keys_of(folder: Path) -> list[str]:
    return [key for path in sorted(folder.glob("*.tar")) for key in tar_samples(path)]


def test_samples_come_out_as_they_went_in(pool: Path, tmp_path: Path) -> None:
    made = export("pool", str(tmp_path / "out"), WebDatasetExport(samples_per_file=25))
    found = {}
    for name in ("00000", "00001", "00002"):
        found |= tar_samples(tmp_path / "out" / f"{name}.tar")
    assert list(found) == [f"{n:06d}" for n in range(60)]
    for n in range(60):
        members, expected = found[f"{n:06d}"], sample(n)
        assert list(members) == sorted(members)
        about = json.loads(members.pop("json"))
        assert about == {"key": f"{n:06d}", "caption": expected["txt"], **expected.pop("json")}
        assert members == {**expected, "txt": expected["txt"].encode()}
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == {
        "00000.tar": 25,
        "00001.tar": 25,
        "00002.tar": 10,
    }
    assert made.made
    assert made.samples == 60
    assert {name: len(data) for name, data in contents(tmp_path / "out").items()} == {
        **made.files,
        "provenance.json": (tmp_path / "out" / "provenance.json").stat().st_size,
    }


def test_an_export_reads_back_as_the_same_samples(pool: Path, tmp_path: Path) -> None:
    export("pool", str(tmp_path / "out"), WebDatasetExport(samples_per_file=25))
    DatasetQuery.from_source(str(tmp_path / "out")).save("again")
    names = ["key", "caption", "uid", "width", "score", "license"]
    before, after = (DatasetQuery(name).order_by("key") for name in ("pool", "again"))
    assert after.columns == before.columns
    assert after.select(*names).to_arrow() == before.select(*names).to_arrow()
    assert (
        after.select(C.image.size, C.seg_npy.size).to_arrow() == before.select(C.image.size, C.seg_npy.size).to_arrow()
    )


def test_what_is_written_follows_from_rows_and_arguments(pool: Path, tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 4)):
        export(
            "pool", str(tmp_path / name), WebDatasetExport(samples_per_file=7), shuffle=True, seed=3, workers=workers
        )
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


@pytest.mark.parametrize(("seed", "epoch"), [(0, 0), (5, 2)])
def test_a_shuffled_export_mirrors_what_training_reads(pool: Path, tmp_path: Path, seed: int, epoch: int) -> None:
    export("pool", str(tmp_path / "out"), WebDatasetExport(samples_per_file=7), shuffle=True, seed=seed, epoch=epoch)
    loader = DatasetQuery("pool").to_torch(columns=["key"], batch_size=6, seed=seed, decoders="raw", progress=False)
    loader.set_epoch(epoch)
    trained = [key for batch in loader for key in batch["key"]]
    assert keys_of(tmp_path / "out") == trained
    assert trained != sorted(trained)


def test_tars_are_cut_by_bytes(pool: Path, tmp_path: Path) -> None:
    sizes = [len(sample(n)["jpg" if n % 5 < 4 else "png"]) + 40 for n in range(60)]
    export("pool", str(tmp_path / "out"), WebDatasetExport(bytes_per_file=5_000))
    tars = [len(tar_samples(path)) for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert sum(tars) == 60
    ends = np.cumsum(tars)
    for start, stop in zip([0, *ends[:-1]], ends, strict=True):
        assert sum(sizes[start:stop]) <= 5_000
        assert stop == 60 or sum(sizes[start : stop + 1]) > 5_000


def test_the_order_is_that_of_training_when_pictures_stay_behind(engine: None, tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(bytes(1_500_000))  # so large that a unit is one sample, and not three
    pointer = {"uri": str(tmp_path / "one"), "offset": 0, "size": 1_500_000}
    kind = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
    rows = pa.table({"key": [f"{n:03d}" for n in range(190)], "image": pa.array([pointer] * 190, kind)})
    DatasetQuery.from_arrow(rows).save("large")
    export("large", str(tmp_path / "out"), WebDatasetExport(members=[]), shuffle=True, seed=5)
    loader = DatasetQuery("large").to_torch(columns=["key"], batch_size=10, seed=5, decoders="raw", progress=False)
    assert keys_of(tmp_path / "out") == [key for batch in loader for key in batch["key"]]


def test_an_attribute_called_key_stays_when_another_names_the_samples(pool: Path, tmp_path: Path) -> None:
    export("pool", str(tmp_path / "tars"), WebDatasetExport(key="uid"))
    found = tar_samples(tmp_path / "tars" / "00000.tar")
    assert {name: json.loads(members["json"])["key"] for name, members in found.items()} == {
        f"{n:032x}": f"{n:06d}" for n in range(60)
    }
    export("pool", str(tmp_path / "tables"), ParquetExport(key="uid", members=[]))
    table = pq.read_table(tmp_path / "tables" / "00000.parquet")
    assert table.column_names == ["key", "caption", "uid", "width", "score", "license"]
    assert table["key"].to_pylist() == [f"{n:06d}" for n in range(60)]


@pytest.mark.parametrize(
    "format",
    [
        WebDatasetExport(members=[], columns=[]),
        ParquetExport(members=[], columns=[]),
        ParquetExport(images=True, members=[], columns=[]),
        HuggingFaceExport(members=[], columns=[]),
        CsvExport(members=[], columns=[]),
    ],
    ids=lambda one: one.name,
)
def test_a_table_without_columns_is_refused(pool: Path, tmp_path: Path, format: ExportFormat) -> None:
    with pytest.raises(ExportError, match=f"Nothing of the samples is chosen for {format.name}"):
        export("pool", str(tmp_path / "out"), format)
    assert not (tmp_path / "out").exists()


def test_two_members_of_one_extension_are_refused(pool: Path, tmp_path: Path) -> None:
    twice = DatasetQuery("pool").mutate(json=C.seg_npy)
    with pytest.raises(ExportError, match="'000000' would have the same name in a tar: jpg, json, json, seg.npy, txt"):
        export(twice, str(tmp_path / "out"), WebDatasetExport())
    few = WebDatasetExport(members=["image", "json"], columns=[])
    export(twice, str(tmp_path / "few"), few)
    assert tar_samples(tmp_path / "few" / "00000.tar")["000007"]["json"] == sample(7)["seg.npy"]


def test_an_export_into_its_own_source_is_refused(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "sources.toml").write_text('pool = "pool"')
    DatasetQuery.from_source(str(tmp_path / "sources.toml")).save("declared")
    DatasetQuery.from_source(f"{pool}/*.tar").filter(C.score < 5).save("matched")
    DatasetQuery("pool").filter(C.score < 5).save("derived")
    for name in ("pool", "declared", "matched", "derived"):
        with pytest.raises(ExportError, match=r"/pool/exports/out lies in .*/pool, a source of these samples"):
            export(name, str(pool / "exports" / "out"), WebDatasetExport())
    assert sorted(path.name for path in pool.iterdir()) == ["00000.tar", "00001.tar", "00002.tar"]
    assert export("derived", f"{pool}-out", WebDatasetExport()).made


def test_members_and_columns_are_chosen(pool: Path, tmp_path: Path) -> None:
    few = DatasetQuery("pool").filter(C.score > 7).select("key", "image", "caption", "score")
    export(few, str(tmp_path / "a"), WebDatasetExport(columns=["score"]))
    (first, *_), *_ = (list(one.items()) for one in [tar_samples(tmp_path / "a" / "00000.tar")])
    assert first[0] == "000057"
    assert set(first[1]) == {"jpg", "json"}
    assert json.loads(first[1]["json"]) == {"score": 57 / 8}
    export("pool", str(tmp_path / "b"), WebDatasetExport(members=["seg_npy"], columns=[]))
    assert set(tar_samples(tmp_path / "b" / "00000.tar")["000000"]) == {"seg.npy"}
    with pytest.raises(ExportError, match="no member 'seg'. Did you mean 'seg_npy'"):
        export("pool", str(tmp_path / "c"), WebDatasetExport(members=["seg"]))
    with pytest.raises(ExportError, match="no column 'scor'. Did you mean 'score'"):
        export("pool", str(tmp_path / "c"), WebDatasetExport(columns=["scor"]))
    assert not (tmp_path / "c").exists()


def test_an_export_says_what_it_is(pool: Path, tmp_path: Path) -> None:
    query = DatasetQuery("pool").filter(C.score < 5)
    export(query, str(tmp_path / "out"), WebDatasetExport(samples_per_file=30))
    found, of = said(tmp_path / "out"), version("pool")
    assert found["query"] == repr(query)
    assert [(one["name"], one["uuid"], one["rows"]) for one in found["versions"]] == [("pool.v1", of.uuid, 60)]
    assert found["sources"] == {str(pool): "webdataset"}
    assert found["licences"] == {"license": {"CC0-1.0": 26, "CC BY 4.0": 14}}
    assert (found["rows"], found["samples"], found["left_out"]) == (40, 40, {})
    assert found["files"].keys() == {"00000.tar", "00001.tar", "sizes.json"}
    assert found["how"]["format"] == "webdataset"
    assert found["software"].keys() == {"dataset-factory"}
