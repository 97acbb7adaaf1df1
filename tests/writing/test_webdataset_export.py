"""Exports as WebDataset's tars: what is in them, in which order, and what they say of themselves."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from factory_lib import C, DatasetQuery, export, version
from factory_lib.errors import ExportError
from factory_lib.writing import WebDatasetExport
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
