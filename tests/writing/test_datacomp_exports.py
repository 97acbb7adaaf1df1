"""What DataComp's programs read: the resharder's rules written out, subset files by numpy."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from factory_lib import DatasetQuery, export, fn
from factory_lib.errors import ColumnNotFound, ExportError, FactoryError
from factory_lib.plan.expressions import C
from factory_lib.writing import ReshardedExport, SubsetExport
from tests.writing.exports import contents, pool, sample, tar_samples

__all__ = ["pool"]


def write_subset(path: Path, uids: list[str], *, raw: bool = False) -> Path:
    """A subset file as DataComp's own code makes one."""
    records = np.array([(int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids], np.dtype("u8,u8"))
    records.sort()
    if raw:
        path.write_bytes(records.tobytes())
    else:
        np.save(path, records)
    return path


@pytest.mark.parametrize("raw", [False, True])
def test_the_resharder_s_output(pool: Path, tmp_path: Path, raw: bool) -> None:
    wanted = [3, 3, 7, 11, 59, 59, 59]
    subset = write_subset(tmp_path / "subset.npy", [f"{n:032x}" for n in wanted] + ["f" * 32], raw=raw)
    made = export("pool", str(tmp_path / "out"), ReshardedExport(subset=str(subset), samples_per_file=3))
    # resharder.py: each sample `count` times under `{uid}-{j}`, so many a tar, in the order of the pool
    copies = Counter(wanted)
    keys = [f"{n:032x}-{j}" for n in range(60) for j in range(copies[n])]
    out = tmp_path / "out"
    tars = [tar_samples(out / f"{n:08d}.tar") for n in range(3)]
    assert [key for tar in tars for key in tar] == keys
    assert [json.loads((out / f"{n:08d}_stats.json").read_text()) for n in range(3)] == [
        {"successes": 3},
        {"successes": 3},
        {"successes": 1},
    ]
    for key, members in (item for tar in tars for item in tar.items()):
        original = sample(int(key.split("-")[0], 16))
        about = json.loads(members["json"])
        assert {name: about[name] for name in original["json"]} == original["json"]
        assert members["txt"].decode() == original["txt"]
        kind = "png" if "png" in original else "jpg"
        assert members[kind] == original[kind]
    assert (out / "sample_ids.npy").read_bytes() == subset.read_bytes()
    meta = json.loads((out / "meta.json").read_text())
    assert (meta["processed_count"], meta["output_count"], meta["output_shard_count"]) == (60, 7, 3)
    assert made.left_out == made.provenance["left_out"] == {"uids": 1}
    assert (made.samples, made.made) == (7, True)
    assert not export("pool", str(out), ReshardedExport(subset=str(subset), samples_per_file=3)).made
    with pytest.raises(ExportError, match="holds an export"):
        export("pool", str(out), ReshardedExport(subset=str(write_subset(tmp_path / "b.npy", ["0" * 31 + "1"]))))


def test_uids_are_numbers_whatever_their_case_and_zeros(pool: Path, tmp_path: Path) -> None:
    short = DatasetQuery("pool").mutate(uid=fn.upper(fn.substring(C.uid, 31, 2)))
    subset = write_subset(tmp_path / "subset.npy", [f"{n:032x}" for n in (10, 43)])
    export(short, str(tmp_path / "out"), ReshardedExport(subset=str(subset)))
    assert list(tar_samples(tmp_path / "out" / "00000000.tar")) == ["0A-0", "2B-0"]


def test_a_subset_goes_out_and_comes_in(pool: Path, tmp_path: Path) -> None:
    export(DatasetQuery("pool").filter(C.score < 2), str(tmp_path / "out"), SubsetExport())
    assert contents(tmp_path / "out").keys() == {"subset.npy", "provenance.json"}
    records = np.load(tmp_path / "out" / "subset.npy")
    assert records.dtype == np.dtype("u8,u8")
    assert records.tolist() == [(0, n) for n in range(16)]
    export("pool", str(tmp_path / "tars"), ReshardedExport(subset=str(tmp_path / "out" / "subset.npy")))
    assert len(tar_samples(tmp_path / "tars" / "00000000.tar")) == 16


def test_what_is_no_subset_is_said(pool: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.npy").write_bytes(b"seventeen bytes..")
    with pytest.raises(FactoryError, match="bad.npy is no subset file"):
        export("pool", str(tmp_path / "out"), ReshardedExport(subset=str(tmp_path / "bad.npy")))
    with pytest.raises(ExportError, match="needs a subset file"):
        ReshardedExport()
    with pytest.raises(ColumnNotFound, match="Did you mean 'uid'"):
        export("pool", str(tmp_path / "out"), ReshardedExport(subset=str(tmp_path / "bad.npy"), key="uids"))
    none = write_subset(tmp_path / "none.npy", ["f" * 32])
    with pytest.raises(ExportError, match="no samples to export"):
        export("pool", str(tmp_path / "out"), ReshardedExport(subset=str(none)))
    assert not (tmp_path / "out").exists()
