"""Parquet, npz and npy: types, pairs, joins by key, and files that lie."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from factory_lib.errors import SourceError
from factory_lib.sources import keyhash, keyindex, npz, open_source
from factory_lib.sources.keyhash import hash_strings
from factory_lib.sources.npz import array_members, read_rows
from factory_lib.storage.store import store
from tests.s3 import Bucket, Relay
from tests.samples import read_all, rows, write_tar


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))


def saved(path: Path, compressed: bool = False, **arrays: Any) -> Path:
    """An npz; numpy adds `.npz` to other names, so it is given a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return path


def column_of(path: Path, name: str, numbers: list[int] | None = None) -> np.ndarray[Any, Any]:
    file = store().info(str(path))
    wanted = None if numbers is None else np.array(numbers, np.int64)
    return read_rows(store(), file, array_members(store(), file)[name], wanted)


@pytest.mark.parametrize("compressed", [False, True])
def test_rows_of_arrays(tmp_path: Path, compressed: bool) -> None:
    rng = np.random.default_rng(1)
    arrays = {
        "half": rng.standard_normal((500, 7)).astype(np.float16),
        "whole": rng.integers(0, 9, 500),
        "columns_first": np.asfortranarray(rng.standard_normal((500, 3))),
        "cube": rng.standard_normal((500, 2, 2)).astype(">f4"),
        "name": np.array([f"n{n}" for n in range(500)]),
    }
    path = saved(tmp_path / "a.npz", compressed, **arrays)
    for name, expected in arrays.items():
        np.testing.assert_array_equal(column_of(path, name), expected)
        np.testing.assert_array_equal(column_of(path, name, [499, 0, 7, 7]), expected[[499, 0, 7, 7]])
        np.testing.assert_array_equal(column_of(path, name, [*range(0, 500, 2)]), expected[::2])


def test_rows_of_a_stored_array_are_read_alone(s3: Bucket, relay: Relay, tmp_path: Path) -> None:
    values = np.arange(2_000_000, dtype=np.float32).reshape(2_000, 1_000)
    file = store().info(s3.put("a.npz", saved(tmp_path / "a.npz", x=values).read_bytes()))
    member = array_members(store(), file)["x"]
    relay.gets.clear()
    found = read_rows(store(), file, member, np.array([1_500, 10, 11]))
    np.testing.assert_array_equal(found, values[[1_500, 10, 11]])
    spans = [tuple(map(int, text.removeprefix("bytes=").split("-"))) for text in relay.gets]
    assert sorted(end - start + 1 for start, end in spans) == [4_000, 8_000]


def test_npy_is_an_array_of_its_own_name(tmp_path: Path) -> None:
    np.save(tmp_path / "emb.npy", np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(column_of(tmp_path / "emb.npy", "emb", [2, 0]), [[4, 5], [0, 1]])


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", x=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SourceError, match=r"a.npz: array 'x' holds Python objects, which are not unpickled"):
        column_of(path, "x")


def header(shape: str, descr: str = "'<f4'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (header("(1000000000000, 512)") + b"x" * 64, "claims 2048000000000000 bytes"),
        (header("(-4, 4)") + b"x" * 64, "claims"),
        (header("(4,)", "'|O'") + b"x" * 32, "holds Python objects"),
        (header("__import__('os').getcwd()") + b"x" * 64, "no valid npy header"),
        (b"\x93NUMPY\x09\x00" + b"x" * 100, "no valid npy header"),
        (b"hello", "no valid npy header"),
        (header("(4,)") + b"x" * 12, "claims 16 bytes"),
    ],
)
def test_headers_that_lie(tmp_path: Path, content: bytes, said: str) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("x.npy", content)
        with pytest.raises(SourceError, match=f"a.npz: array 'x' .*{said}"):
            column_of(tmp_path / "a.npz", "x")


def test_bombs_are_not_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_INFLATED_BYTES", 1_000_000)
    path = saved(tmp_path / "a.npz", True, x=np.zeros(1_000_000, np.float32))
    assert path.stat().st_size < 10_000
    with pytest.raises(SourceError, match=r"would inflate to 4000128 bytes; at most 1000000 are. Write it with"):
        column_of(path, "x")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_damaged_archives_give_errors_of_ours(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    stream = io.BytesIO()
    compressed = data.draw(st.booleans())
    (np.savez_compressed if compressed else np.savez)(stream, x=np.arange(40.0), y=np.ones((40, 3), np.float16))
    content = bytearray(stream.getvalue())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    path.write_bytes(content)
    file = store().info(str(path))
    try:
        members = array_members(store(), file)
        read = [len(read_rows(store(), file, member)) == member.rows for member in members.values()]
    except SourceError as error:
        said = str(error)
    else:
        said = "a.npz"
        assert all(read)
    assert "a.npz" in said


def test_laion_columns_have_one_name_and_type(tmp_path: Path) -> None:
    for number, (columns, kinds) in enumerate(
        [
            (("URL", "TEXT", "HEIGHT", "WIDTH", "similarity", "NSFW"), (pa.int32(), pa.float64())),
            (("url", "caption", "height", "width", "similarity", "nsfw"), (pa.float64(), pa.float32())),
        ]
    ):
        table = pa.table(
            {
                columns[0]: ["https://a", None],
                columns[1]: pa.array(["one", "two"]).dictionary_encode(),
                columns[2]: pa.array([600, None], kinds[0]),
                columns[3]: pa.array([800.0, float("nan")] if number else [800, None], kinds[0]),
                columns[4]: pa.array([0.25, 0.5], kinds[1]),
                columns[5]: ["UNLIKELY", None],
                "__index_level_0__": [0, 1],
                "jpg": pa.array([b"bytes", b"stay"]),
                "meta": pa.array([{"a": 1}, None]),
            }
        )
        pq.write_table(table, tmp_path / f"part-{number}.parquet")
    source = open_source(str(tmp_path))
    assert source.format == "tables"
    assert {field.name: str(field.type) for field in source.schema} == {
        "key": "string", "url": "string", "caption": "string", "height": "int32", "width": "int32",
        "similarity": "float", "nsfw": "string", "meta": "string",
    }  # fmt: skip
    assert rows(source) == [
        {
            "shard": f"part-{number}", "key": str(row), "url": "https://a" if row == 0 else None,
            "caption": ["one", "two"][row], "height": 600 if row == 0 else None, "width": 800 if row == 0 else None,
            "similarity": [0.25, 0.5][row], "nsfw": ["UNLIKELY", None][row], "meta": '{"a": 1}' if row == 0 else None,
        }
        for number in range(2)
        for row in range(2)
    ]  # fmt: skip


def test_values_that_do_not_fit_are_null_and_counted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a", "b", "c"], "width": ["640", "wide", "480.5"]}), tmp_path / "a.parquet")
    table, reports = read_all(open_source(str(tmp_path)))
    assert table["width"].to_pylist() == [640, None, None]
    assert table["key"].to_pylist() == ["a", "b", "c"]
    assert reports["a"].counts == {"misfit_values": 2}


def test_vectors_of_the_npz_stand_beside_their_rows(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((130, 4)).astype(np.float16)
    pq.write_table(pa.table({"uid": [f"{n:03d}" for n in range(130)]}), tmp_path / "a.parquet", row_group_size=50)
    saved(tmp_path / "a.npz", img=vectors, score=np.arange(130, dtype=np.float32), note=np.array(3))
    source = open_source(str(tmp_path))
    assert source.schema.field("img").type == pa.list_(pa.float32(), 4)
    table, _ = read_all(source)
    np.testing.assert_array_equal(np.array(table["img"].to_pylist(), np.float16), vectors)
    assert table["score"].to_pylist() == [*range(130)]
    assert open_source(str(tmp_path), vectors=["score"]).schema.names == ["key", "uid", "score"]
    with pytest.raises(SourceError, match=r"There is no array 'imgs' in a.parquet \+ a.npz. Did you mean 'img'"):
        open_source(str(tmp_path), vectors=["imgs"])


def test_an_npz_with_keys_of_its_own_is_joined_by_them(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": ["a", "b", "c"], "n": [1, 2, 3]}), tmp_path / "a.parquet")
    saved(tmp_path / "a.npz", key=np.array(["c", "a"]), img=np.array([[3.0], [1.0]]))
    assert rows(open_source(str(tmp_path)), "key", "n", "img") == [
        {"key": "a", "n": 1, "img": [1.0]}, {"key": "b", "n": 2, "img": None}, {"key": "c", "n": 3, "img": [3.0]},
    ]  # fmt: skip


def test_pairs_of_different_length_are_an_error_that_names_both(tmp_path: Path) -> None:
    pq.write_table(pa.table({"uid": ["a", "b", "c"]}), tmp_path / "m.parquet")
    saved(tmp_path / "m.npz", img=np.zeros((2, 4)), txt=np.zeros((3, 4)))
    _, reports = read_all(open_source(str(tmp_path)))
    [problem] = reports["m"].problems
    assert "m.parquet has 3 rows, but" in problem
    assert "m.npz has 2 in 'img': row i of one must be row i of the other" in problem


def img2dataset(folder: Path, keys: list[str], failed: dict[str, str], vectors: bool = True) -> None:
    """A shard as img2dataset writes it: tar and parquet in different orders."""
    good = [key for key in keys if key not in failed]
    write_tar(
        folder / "00000.tar",
        [
            m
            for key in good
            for m in ((f"{key}.jpg", b"x"), (f"{key}.txt", f"txt {key}"), (f"{key}.json", {"uid": "j"}))
        ],
    )
    order = keys[::-1]
    table = pa.table(
        {
            "uid": [f"uid-{key}" for key in order],
            "caption": [f"parquet {key}" for key in order],
            "key": order,
            "status": ["failed_to_download" if key in failed else "success" for key in order],
            "error_message": [failed.get(key) for key in order],
            "width": pa.array([None if key in failed else int(key) for key in order], pa.int32()),
        }
    )
    pq.write_table(table, folder / "00000.parquet")
    (folder / "00000_stats.json").write_text(f'{{"count": {len(keys)}, "successes": {len(good)}}}')
    if vectors:
        saved(folder / "00000.npz", img=np.array([[float(key)] * 3 for key in order], np.float16))


def test_img2dataset_is_joined_by_key(tmp_path: Path) -> None:
    img2dataset(tmp_path, ["5", "1", "4", "2"], {"4": "HTTP Error 404: Not Found"})
    source = open_source(str(tmp_path))
    assert source.format == "img2dataset"
    assert rows(source, "key", "caption", "uid", "width", "img") == [
        {"key": key, "caption": f"txt {key}", "uid": f"uid-{key}", "width": int(key), "img": [float(key)] * 3}
        for key in ("5", "1", "2")
    ]
    [shard] = source.shards()
    assert [file.uri.rsplit("/")[-1] for file in shard.files] == [
        "00000.tar", "00000.parquet", "00000.npz", "00000_stats.json",
    ]  # fmt: skip
    assert read_all(source)[1]["00000"].counts == {"failed_rows": 1, "failed: HTTP Error 404: Not Found": 1}


def test_keys_that_pandas_wrote_as_floats_are_the_integers_that_they_were(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", [(f"{n:09d}.jpg", b"x") for n in (0, 7, 120)])
    keys = pa.array([120.0, None, 7.0, 0.5])
    pq.write_table(pa.table({"key": keys, "url": ["a", "b", "c", "d"]}), tmp_path / "0.parquet")
    found, _ = read_all(open_source(str(tmp_path)))
    assert found.select(["key", "url"]).to_pylist() == [
        {"key": "000000000", "url": None}, {"key": "000000007", "url": "c"}, {"key": "000000120", "url": "a"},
    ]  # fmt: skip
    found, _ = read_all(open_source(str(tmp_path / "0.parquet")))
    assert found["key"].to_pylist() == ["120", "", "7", ""]


def test_img2dataset_whose_files_disagree(tmp_path: Path) -> None:
    img2dataset(tmp_path, ["5", "1", "4", "2"], {})
    table = pq.read_table(tmp_path / "00000.parquet")
    keys = pa.array(["5", "2", "2", None])
    pq.write_table(table.set_column(2, "key", keys), tmp_path / "00000.parquet")
    found, reports = read_all(open_source(str(tmp_path)))
    assert found.select(["key", "uid"]).to_pylist() == [
        {"key": "5", "uid": "uid-2"}, {"key": "1", "uid": None}, {"key": "4", "uid": None}, {"key": "2", "uid": "uid-4"},
    ]  # fmt: skip
    assert reports["00000"].counts == {
        "rows_without_key": 1, "repeated_rows": 1, "no_metadata": 2, "missing_members": 1,
    }  # fmt: skip
    (tmp_path / "00000_stats.json").write_text('{"successes": 9}')
    (tmp_path / "00000.parquet").write_bytes(b"PAR1 and then nothing")
    pq.write_table(table, tmp_path / "00001.parquet")
    write_tar(tmp_path / "00001.tar", [("5.jpg", b"x")])
    found, reports = read_all(open_source(str(tmp_path)))
    assert len(found) == 5
    counts = reports["00000"].counts
    assert counts == {"unreadable_tables": 1, "no_metadata": 4, "different_stats": 1}
    assert "00000.parquet cannot be read as parquet" in reports["00000"].problems[0]
    assert reports["00000"].problems[-1] == "00000_stats.json says 9 successes, the tar has 4 samples"


def pool(folder: Path, uids: list[str], tables: int = 3, dim: int = 5, seed: int = 0) -> dict[str, list[float]]:
    """A DataComp pool: shards of 10 samples, and metadata shuffled into other shards; returns the vector of each uid."""
    rng = np.random.default_rng(seed)
    for start in range(0, len(uids), 10):
        members: list[tuple[str, Any]] = []
        for n, uid in enumerate(uids[start : start + 10]):
            members += [(f"{start + n:06d}.jpg", b"x"), (f"{start + n:06d}.json", {"uid": uid})]
        write_tar(folder / "shards" / f"{start:08d}.tar", members)
    truth: dict[str, list[float]] = {}
    (folder / "metadata").mkdir()
    for number, part in enumerate(np.array_split(rng.permutation(len(uids)), tables)):
        names = [uids[n] for n in part]
        vectors = rng.standard_normal((len(names), dim)).astype(np.float16)
        truth |= dict(zip(names, vectors.astype(float).tolist(), strict=True))
        pq.write_table(
            pa.table({"uid": names, "score": [float(n) for n in part]}), folder / "metadata" / f"{number:032x}.parquet"
        )
        saved(folder / "metadata" / f"{number:032x}.npz", l14_img=vectors)
    return truth


def test_datacomp_is_joined_by_uid_across_shards(tmp_path: Path) -> None:
    uids = [f"{n * 2**96 + 12345:032x}" for n in range(57)]
    truth = pool(tmp_path / "pool", uids)
    source = open_source(str(tmp_path / "pool"))
    assert source.format == "datacomp"
    found = rows(source, "key", "uid", "score", "l14_img")
    assert [row["uid"] for row in found] == uids
    assert [row["score"] for row in found] == [*range(57)]
    assert {row["uid"]: row["l14_img"] for row in found} == truth
    tables = {file.uri for shard in source.shards() for file in shard.files[1:]}
    assert len(tables) == 6
    assert all(len(shard.files) == 7 for shard in source.shards())


def test_samples_without_metadata_are_counted(tmp_path: Path) -> None:
    uids = [f"{n:032x}" for n in range(20)]
    truth = pool(tmp_path / "pool", uids)
    write_tar(tmp_path / "pool" / "shards" / "x.tar", [("1.jpg", b"x"), ("1.json", {"uid": "f" * 32}), ("2.jpg", b"y")])
    table, reports = read_all(open_source(str(tmp_path / "pool")))
    assert table["l14_img"].to_pylist() == [*truth_of(truth, uids), None, None]
    assert reports["x"].counts == {"no_metadata": 2}


def truth_of(truth: dict[str, list[float]], uids: list[str]) -> list[list[float]]:
    return [truth[uid] for uid in uids]


def folders(home: Path) -> list[Path]:
    return [path for path in home.iterdir() if path.is_dir()]


def test_index_is_built_once_and_again_when_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uids = [f"{n:032x}" for n in range(30)]
    pool(tmp_path / "pool", uids)
    read_all(open_source(str(tmp_path / "pool")))
    home = tmp_path / "home" / "sources"
    [built] = folders(home)
    monkeypatch.setattr(keyindex, "_build", lambda *args: pytest.fail("built again"))
    read_all(open_source(str(tmp_path / "pool")))
    monkeypatch.undo()
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(keyindex, "_OLD_SECONDS", 0.0)
    path = next((tmp_path / "pool" / "metadata").glob("*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "score", pa.array([-1.0] * len(table))), path)
    found, _ = read_all(open_source(str(tmp_path / "pool")))
    assert found["score"].to_pylist().count(-1.0) == len(table)
    assert len(folders(home)) == 1
    assert folders(home) != [built]


def test_processes_may_build_the_index_at_once(tmp_path: Path) -> None:
    pool(tmp_path / "pool", [f"{n:032x}" for n in range(30)])
    code = (
        "import sys; from factory_lib.sources import *\n"
        "s = open_source(sys.argv[1])\n"
        "print(sum(len(b) - b['score'].null_count for x in s.shards() for b in s.read(x, ShardReport(x.name))))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "pool")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) for _ in range(2)]
    assert [child.communicate()[0].strip() for child in children] == [b"30"] * 2
    assert len(folders(tmp_path / "home" / "sources")) == 1


def test_equal_hashes_are_told_apart_by_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def weak(keys: pa.StringArray) -> np.ndarray[Any, Any]:
        return np.array([len(key or "") for key in keys.to_pylist()], np.uint64)

    monkeypatch.setattr(keyindex, "hash_strings", weak)
    uids = [f"{n:032x}" for n in range(40)]
    pool(tmp_path / "pool", uids)
    table, _ = read_all(open_source(str(tmp_path / "pool")))
    assert table["score"].to_pylist() == [*range(40)]


def test_repeated_uids_give_the_first_row(tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "0.tar", [("1.jpg", b"x"), ("1.json", {"uid": "a"})])
    (tmp_path / "m").mkdir()
    pq.write_table(pa.table({"uid": ["b", "a", "a"], "n": [0, 1, 2]}), tmp_path / "m" / "0.parquet")
    pq.write_table(pa.table({"uid": ["a"], "n": [3]}), tmp_path / "m" / "1.parquet")
    assert rows(open_source(str(tmp_path / "t"), metadata=str(tmp_path / "m")), "n") == [{"n": 1}]


def test_any_table_can_be_joined_by_any_column(tmp_path: Path) -> None:
    write_tar(tmp_path / "t" / "0.tar", [(f"{n}.{e}", f"c{n}") for n in range(3) for e in ("jpg", "txt")])
    (tmp_path / "m").mkdir()
    saved(tmp_path / "m" / "v.npz", key=np.array(["2", "0"]), emb=np.array([[2.0, 2.0], [0.0, 0.0]]))
    source = open_source(str(tmp_path / "t"), metadata=str(tmp_path / "m"))
    assert rows(source, "key", "emb") == [
        {"key": "0", "emb": [0.0, 0.0]}, {"key": "1", "emb": None}, {"key": "2", "emb": [2.0, 2.0]},
    ]  # fmt: skip
    pq.write_table(pa.table({"text": ["c1", "c0"], "key": ["x", "y"], "lang": ["en", "de"]}), tmp_path / "l.parquet")
    source = open_source(str(tmp_path / "t"), metadata=str(tmp_path / "l.parquet"), on="caption")
    assert rows(source, "key", "lang") == [
        {"key": "0", "lang": "de"}, {"key": "1", "lang": "en"}, {"key": "2", "lang": None},
    ]  # fmt: skip
    with pytest.raises(SourceError, match=r"l.parquet has no column 'captions' to join by. Did you mean 'caption'"):
        open_source(str(tmp_path / "t"), metadata=str(tmp_path / "l.parquet"), on="captions")
    pq.write_table(pa.table({"other": ["a"]}), tmp_path / "o.parquet")
    with pytest.raises(SourceError, match="has none of the columns key, uid"):
        open_source(str(tmp_path / "t"), metadata=str(tmp_path / "o.parquet"))


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=20))
def test_hash_depends_on_the_string_alone(texts: list[str]) -> None:
    together = hash_strings(pa.array(texts, pa.string()))
    alone = [int(hash_strings(pa.array(["x", text, "longer than the other one"]).slice(1, 1))[0]) for text in texts]
    assert together.tolist() == alone
    assert len(set(alone)) == len(set(texts))


def test_hash_is_the_same_for_ever() -> None:
    found = hash_strings(pa.array(["", "a", "0123456789abcdef0123456789abcdef", "é" * 20]))
    assert [f"{value:016x}" for value in found.tolist()] == GOLDEN


GOLDEN = ["0000000000000000", "74b99fa4b6d4ec4f", "987fa34bd058131e", "ac1a403cd16dc817"]


def test_hash_spreads_and_bounds_keys() -> None:
    found = hash_strings(pa.array([f"{n:032x}" for n in range(200_000)]))
    assert len(np.unique(found)) == 200_000
    ones = np.unpackbits(found.view(np.uint8)).reshape(-1, 64).mean(0)
    assert (abs(ones - 0.5) < 0.01).all()
    with pytest.raises(SourceError, match=f"at most {keyhash.MAX_KEY_BYTES} are joined by"):
        hash_strings(pa.array(["k" * 2_000]))


def test_plain_folders_of_images(tmp_path: Path) -> None:
    for name, data in {
        "cats/a.v2.jpg": b"one", "cats/a.v2.txt": b"a cat", "cats/b.PNG": b"two", "dogs/c.webp": b"three",
        "dogs/c.json": b'{"age": 3}', "dogs/notes.txt": b"of nothing", "LICENSE": b"x", "d.gif": b"",
    }.items():  # fmt: skip
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    source = open_source(str(tmp_path / "in"))
    root = f"{tmp_path}/in"
    assert source.format == "folder"
    assert [shard.name for shard in source.shards()] == ["cats", "dogs", "in"]
    found = {row["key"]: row for row in rows(source, "key", "image", "caption", "age", "folder")}
    assert [*found] == ["cats/a.v2", "cats/b", "dogs/c", "d"]
    assert found["cats/a.v2"]["image"] == {"uri": f"{root}/cats/a.v2.jpg", "offset": 0, "size": 3}
    assert found["d"]["image"] == {"uri": f"{root}/d.gif", "offset": 0, "size": 0}
    assert [row["caption"] for row in found.values()] == ["a cat", None, None, None]
    assert [row["age"] for row in found.values()] == [None, None, 3, None]
    assert [row["folder"] for row in found.values()] == ["cats", "cats", "dogs", ""]
