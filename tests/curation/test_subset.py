"""DataComp's subset files, in and out, against the definition in DataComp's own words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_lib import DatasetQuery
from factory_lib.curation.subset import in_subset, read_subset, write_subset
from factory_lib.errors import FileMissing, QueryError

UIDS = ["ff" + "0" * 29 + "1", "0" * 31 + "7", "0123456789abcdef" * 2, "a" * 32]


def reference(uids: list[str]) -> np.ndarray:
    records = np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids], np.dtype("u8,u8"))
    return np.sort(records)


def saved(path: Path, uids: list[str]) -> str:
    np.save(path, reference(uids))
    return str(path)


def keys(samples: DatasetQuery) -> list[str]:
    found: list[str] = sorted(samples.select("key").to_arrow()["key"].to_pylist())
    return found


@pytest.fixture
def pool(engine: None) -> DatasetQuery:
    table = pa.table({"key": list("abcd"), "uid": UIDS})
    return DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))


def test_a_subset_selects_and_is_written(pool: DatasetQuery, tmp_path: Path) -> None:
    chosen = in_subset(pool, saved(tmp_path / "in.npy", [UIDS[0], UIDS[2], UIDS[2], "b" * 32]))
    assert keys(chosen) == ["a", "c"]
    assert DatasetQuery(chosen.save("chosen")).columns == pool.columns
    assert write_subset(pool, str(tmp_path / "out.npy")) == 4
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), reference(UIDS))


def test_copies_come_through(pool: DatasetQuery, tmp_path: Path) -> None:
    named = [UIDS[0], *[UIDS[2]] * 3, "b" * 32]
    chosen = DatasetQuery(in_subset(pool, saved(tmp_path / "in.npy", named), copies="times").save("chosen"))
    assert chosen.columns == {**pool.columns, "times": chosen.columns["times"]}
    rows = chosen.select("key", "uid", "times").to_arrow().to_pylist()
    assert {row["key"]: (row["uid"], row["times"]) for row in rows} == {"a": (UIDS[0], 1), "c": (UIDS[2], 3)}
    assert write_subset(chosen, str(tmp_path / "out.npy"), copies="times") == 4
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), reference(named[:4]))
    with pytest.raises(QueryError, match="have a column 'times' already"):
        in_subset(chosen, str(tmp_path / "in.npy"), copies="times")


def test_uids_without_leading_zeros_in_either_case(engine: None, tmp_path: Path) -> None:
    given_uids = ["7", "0" * 30 + "AB", "f" * 32, "f" * 33]
    table = pa.table({"key": list("abcd"), "uid": given_uids})
    samples = DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))
    subset = saved(tmp_path / "in.npy", [uid.lower().rjust(32, "0") for uid in given_uids[:3]])
    assert keys(in_subset(samples, subset)) == ["a", "b", "c"]
    assert write_subset(samples.filter("key != 'd'"), str(tmp_path / "out.npy")) == 3
    assert (tmp_path / "out.npy").read_bytes() == Path(subset).read_bytes()


@pytest.mark.parametrize("wrong", [None, "", "xyz", "0x1", "f" * 33, " 1"])
def test_samples_without_a_uid_are_counted(engine: None, tmp_path: Path, wrong: str | None) -> None:
    table = pa.table({"uid": pa.array(["1", wrong, "2", wrong], pa.string())})
    samples = DatasetQuery.from_arrow(table).save("pool")
    with pytest.raises(QueryError, match=r"a uid of up to 32 hex digits of every sample, and 2 have none"):
        write_subset(DatasetQuery(samples), str(tmp_path / "out.npy"))
    assert not (tmp_path / "out.npy").exists()


def test_copies_are_numbers_from_0_on(engine: None, tmp_path: Path) -> None:
    table = pa.table({"uid": list("1234"), "copies": pa.array([2, 0, -1, None])})
    samples = DatasetQuery(DatasetQuery.from_arrow(table).save("pool"))
    with pytest.raises(QueryError, match="2 samples have no number of copies in 'copies'"):
        write_subset(samples, str(tmp_path / "out.npy"), copies="copies")
    assert write_subset(samples.filter("copies >= 0"), str(tmp_path / "out.npy"), copies="copies") == 2
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), reference(["0" * 31 + "1"] * 2))
    for odd in (0.5, -1.0, float("nan"), float("inf"), 1e10):
        with pytest.raises(QueryError, match="1 samples have no number of copies in 'times': a whole one"):
            write_subset(samples.limit(1).mutate(times=odd), str(tmp_path / "out.npy"), copies="times")
    assert write_subset(samples.mutate(times=2.0), str(tmp_path / "out.npy"), copies="times") == 2 * samples.count()


@given(st.lists(st.sampled_from([*UIDS, "0" * 16 + "f" * 16, "0" * 15 + "1" + "0" * 16]), max_size=30))
def test_a_subset_is_a_multiset_in_any_order(tmp_path_factory: pytest.TempPathFactory, uids: list[str]) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.npy"
    np.save(path, np.array([(int(uid[:16], 16), int(uid[16:], 16)) for uid in uids], "u8,u8"))
    assert read_subset(str(path)).to_pylist() == [
        {"uid": uid, "copies": copies} for uid, copies in sorted(Counter(uids).items())
    ]


def test_files_with_and_without_the_magic_of_npy(tmp_path: Path) -> None:
    records = reference([UIDS[1], UIDS[3], UIDS[3]])
    np.save(tmp_path / "a.npy", records)
    (tmp_path / "raw.npy").write_bytes(records.tobytes())
    expected = [{"uid": UIDS[1], "copies": 1}, {"uid": UIDS[3], "copies": 2}]
    for name in ("a.npy", "raw.npy"):
        assert read_subset(str(tmp_path / name)).to_pylist() == expected


def test_files_that_are_no_subsets(tmp_path: Path) -> None:
    np.save(tmp_path / "floats.npy", np.zeros(3))
    np.save(tmp_path / "square.npy", reference(UIDS).reshape(2, 2))
    np.save(tmp_path / "big.npy", reference(UIDS).astype(">u8,>u8"))
    (tmp_path / "short.npy").write_bytes(Path(saved(tmp_path / "a.npy", UIDS)).read_bytes()[:-3])
    (tmp_path / "odd.npy").write_bytes(b"1234567")
    (tmp_path / "empty.npy").write_bytes(b"")
    for name, said in {
        "floats": "it holds float64",
        "square": r"of shape \(2, 2\)",
        "big": "not u8,u8",
        "short": "",
        "odd": "7 bytes are no records of 16",
        "empty": "0 bytes are no records of 16",
    }.items():
        with pytest.raises(QueryError, match=f"{name}.npy is no subset file: .*{said}"):
            read_subset(str(tmp_path / f"{name}.npy"))
    with pytest.raises(FileMissing):
        read_subset(str(tmp_path / "none.npy"))
