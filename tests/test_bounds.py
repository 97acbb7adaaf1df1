"""Memory is bounded by bytes: batches of every reader, arrays that have no byte ranges, and the number of workers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_lib import bounded
from factory_lib.bounded import aligned, bytes_of, split
from factory_lib.memory import memory_limit, processes_that_fit
from factory_lib.settings import settings
from factory_lib.sources import jsontables, npz
from factory_lib.sources.shards import ShardReport
from factory_lib.sources.tablefiles import TableFile, open_table
from factory_lib.sources.tables import TablePair
from factory_lib.storage.store import store

KIB = 1024


def batch_of(texts: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict({"text": pa.array(texts, pa.string()), "n": list(range(len(texts)))})


@given(st.lists(st.text(max_size=40), max_size=60), st.integers(1, 400))
def test_split_keeps_rows_and_bounds_bytes(texts: list[str], size: int) -> None:
    pieces = list(split(batch_of(texts), size))
    assert [text for piece in pieces for text in piece.column("text").to_pylist()] == texts
    assert all(piece.num_rows <= 1 or bytes_of(piece) <= size for piece in pieces)


@given(st.lists(st.integers(0, 5)), st.lists(st.integers(0, 5)))
def test_aligned_streams_have_the_same_rows(one: list[int], other: list[int]) -> None:
    def stream(sizes: list[int]) -> list[pa.RecordBatch]:
        ends = list(itertools.accumulate(sizes))
        return [
            pa.RecordBatch.from_pydict({"n": pa.array(range(e - s, e), pa.int64())})
            for e, s in zip(ends, sizes, strict=True)
        ]

    if sum(one) != sum(other):
        with pytest.raises(ValueError, match="different numbers of rows"):
            list(aligned(iter(stream(one)), iter(stream(other))))
        return
    pairs = list(aligned(iter(stream(one)), iter(stream(other))))
    assert [n for left, _ in pairs for n in left.column("n").to_pylist()] == list(range(sum(one)))
    assert all(left.equals(right) for left, right in pairs)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(bounded, "BATCH_BYTES", 64 * KIB)
    monkeypatch.setattr(jsontables, "BATCH_BYTES", 64 * KIB)
    return 64 * KIB


def table_at(path: Path) -> TableFile:
    return open_table(store().info(str(path)))


@pytest.mark.parametrize("kind", ["values that differ", "one value", "a dictionary"])
def test_rows_of_parquet_are_as_large_as_their_values(tmp_path: Path, small_batches: int, kind: str) -> None:
    texts = [("x" if kind == "one value" else chr(97 + n % 26)) * (8 * KIB) + str(n) for n in range(100)]
    texts = ["x" * 8 * KIB] * 100 if kind != "values that differ" else texts
    column = pa.array(texts, pa.string())
    column = column.dictionary_encode() if kind == "a dictionary" else column
    pq.write_table(pa.table({"n": range(100), "text": column}), tmp_path / "t.parquet")
    batches = list(table_at(tmp_path / "t.parquet").batches(50_000, None))
    assert [n for batch in batches for n in batch.column("n").to_pylist()] == list(range(100))
    assert [text for batch in batches for text in batch.column("text").to_pylist()] == texts
    assert all(bytes_of(batch) <= small_batches for batch in batches)


def test_a_value_that_repeats_a_million_times_is_never_all_there(tmp_path: Path) -> None:
    # 10 kB in the file, 20 GB in a batch of 20,000 rows.
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["x" * 10**6])
    pq.write_table(pa.table({"text": column}), tmp_path / "bomb.parquet", store_schema=False)
    before = pa.total_allocated_bytes()
    for batch in itertools.islice(table_at(tmp_path / "bomb.parquet").batches(50_000, ["text"]), 3):
        assert batch.schema.field("text").type == pa.string()
        assert pa.total_allocated_bytes() - before < 4 * bounded.BATCH_BYTES


def test_arrow_files_and_arrays_are_cut(tmp_path: Path, small_batches: int) -> None:
    table = pa.table({"text": ["x" * KIB] * 1000})
    with pa.ipc.new_file(tmp_path / "t.arrow", table.schema) as writer:
        writer.write_table(table)
    batches = list(table_at(tmp_path / "t.arrow").batches(50_000, None))
    assert sum(batch.num_rows for batch in batches) == 1000
    assert all(batch.nbytes <= small_batches for batch in batches)
    np.savez(tmp_path / "t.npz", vector=np.arange(1000 * 512, dtype=np.float32).reshape(1000, 512))
    pair = TablePair(None, store().info(str(tmp_path / "t.npz")))
    schema = pa.schema([("vector", pa.list_(pa.float32(), 512))])
    found = list(pair.batches(schema, 50_000, ShardReport("")))
    assert [len(one) for one in found] == [32] * 31 + [8]
    assert found[-1].column(0)[-1].as_py()[-1] == 1000 * 512 - 1


def test_an_array_without_byte_ranges_is_inflated_once(
    tmp_path: Path, small_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).random((300, 128), np.float32)
    np.savez_compressed(tmp_path / "t.npz", vector=vectors, turned=np.asfortranarray(vectors))
    inflated: list[str] = []
    original = npz._inflated

    def counted(origin: object, file: object, member: npz.ArrayMember) -> object:
        inflated.append(member.name)
        return original(origin, file, member)  # type: ignore[arg-type]

    monkeypatch.setattr(npz, "_inflated", counted)
    pair = TablePair(None, store().info(str(tmp_path / "t.npz")))
    schema = pa.schema([(name, pa.list_(pa.float32(), 128)) for name in ("vector", "turned")])
    found = list(pair.batches(schema, 50_000, ShardReport("")))
    assert len(found) > 3
    for column in (0, 1):
        values = np.concatenate([one.column(column).flatten().to_numpy() for one in found]).reshape(300, 128)
        assert (values == vectors).all()
    assert sorted(inflated) == ["turned", "vector"]


def test_json_is_cut_by_its_text_and_long_lines_are_counted(
    tmp_path: Path, small_batches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsontables, "MAX_LINE_BYTES", 128 * KIB)
    lines = [json.dumps({"n": n, "text": "x" * 8 * KIB}) for n in range(100)]
    lines[50] = json.dumps({"n": 50, "text": "x" * 300 * KIB})
    (tmp_path / "t.jsonl").write_text("\n".join(lines))
    table = table_at(tmp_path / "t.jsonl")
    batches = list(table.batches(50_000, None))
    assert [n for batch in batches for n in batch.column("n").to_pylist()] == [n for n in range(100) if n != 50]
    assert table.skipped == 1
    assert all(batch.nbytes <= 2 * small_batches for batch in batches)
    (tmp_path / "t.json").write_text("[" + ",".join(lines) + "]")
    batches = list(table_at(tmp_path / "t.json").batches(50_000, None))
    assert sum(batch.num_rows for batch in batches) == 100
    assert len(batches) > 5


def group(root: Path, lines: str, **limits: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\n")
    (root / "proc/self/cgroup").write_text(lines)
    for name, limit in limits.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{limit}\n")
    return root


def test_the_least_limit_holds(tmp_path: Path) -> None:
    gib = 2**30
    assert memory_limit(group(tmp_path / "none", "")) == 16 * gib
    # Version 2: the group's own limit, or one above it; a container sees its own at the top.
    own = {"a__b__memory_dot_max": "max", "a__memory_dot_max": str(4 * gib)}
    assert memory_limit(group(tmp_path / "two", "0::/a/b\n", **own)) == 4 * gib
    assert memory_limit(group(tmp_path / "top", "0::/docker/x\n", memory_dot_max=str(2 * gib))) == 2 * gib
    assert memory_limit(group(tmp_path / "max", "0::/\n", memory_dot_max="max")) == 16 * gib
    # Version 1, where a limit that is none is a very large number.
    one = {"memory__c__memory_dot_limit_in_bytes": str(3 * gib), "memory__memory_dot_limit_in_bytes": str(2**63 - 4096)}
    assert memory_limit(group(tmp_path / "one", "7:cpu:/c\n9:memory,hugetlb:/c\n", **one)) == 3 * gib


def test_no_more_workers_than_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes_that_fit(2**30, 16 * 2**30) == 12
    assert processes_that_fit(2**30, 2**29) == 1
    monkeypatch.delenv("FACTORY_WORKERS", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 10_000)
    monkeypatch.setenv("FACTORY_WORKER_BYTES", str(2**28))
    assert settings().workers == processes_that_fit(2**28) < 10_000
    monkeypatch.setenv("FACTORY_WORKERS", "3")
    assert settings().workers == 3
