"""DataComp's subset files, in and out, against the definition in DataComp's own words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.curation.subset import in_subset, read_subset, write_subset
from factory_lib.errors import QueryError

UIDS = ["ff" + "0" * 29 + "1", "0" * 31 + "7", "0123456789abcdef" * 2, "a" * 32]


def reference(uids: list[str]) -> np.ndarray:
    records = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids], np.dtype("u8,u8"))
    return np.sort(records)


@pytest.mark.usefixtures("engine")
def test_a_subset_selects_and_is_written(tmp_path: Path) -> None:
    table = pa.table({"key": list("abcd"), "uid": UIDS})
    DatasetQuery.from_arrow(table).save("pool")
    np.save(tmp_path / "in.npy", reference([UIDS[0], UIDS[2], UIDS[2]]))
    chosen = in_subset(DatasetQuery("pool"), str(tmp_path / "in.npy"))
    assert sorted(chosen.select("key").to_arrow()["key"].to_pylist()) == ["a", "c"]
    assert write_subset(DatasetQuery("pool"), str(tmp_path / "out.npy")) == 4
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), reference(UIDS))


def test_files_with_and_without_the_magic_of_npy(tmp_path: Path) -> None:
    records = reference([UIDS[1], UIDS[3], UIDS[3]])
    np.save(tmp_path / "a.npy", records)
    (tmp_path / "raw.npy").write_bytes(records.tobytes())
    expected = [{"uid": UIDS[1], "copies": 1}, {"uid": UIDS[3], "copies": 2}]
    for name in ("a.npy", "raw.npy"):
        assert read_subset(str(tmp_path / name)).to_pylist() == expected
    np.save(tmp_path / "wrong.npy", np.zeros(3))
    with pytest.raises(QueryError, match="no subset file"):
        read_subset(str(tmp_path / "wrong.npy"))
