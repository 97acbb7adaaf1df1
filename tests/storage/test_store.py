"""The store on local files, and the plan by which many ranges become few reads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_lib.errors import FileChanged, FileMissing, StoreError
from factory_lib.redaction import redact
from factory_lib.storage.retry import is_transient, with_retries
from factory_lib.storage.spans import plan_spans
from factory_lib.storage.store import FileInfo, Store, store

RANGES = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 400)), max_size=60)


@given(RANGES, st.integers(0, 300), st.integers(1, 2_000))
def test_every_range_lies_in_one_span(ranges: list[tuple[int, int]], gap: int, cap: int) -> None:
    spans = plan_spans(ranges, max_gap=gap, max_span=cap)
    served = [index for span in spans for index in span.ranges]
    assert sorted(served) == [index for index, (_, size) in enumerate(ranges) if size]
    for span in spans:
        assert all(span.start <= ranges[i][0] and sum(ranges[i]) <= span.end for i in span.ranges)
        assert span.start == min(ranges[i][0] for i in span.ranges)
        assert span.end == max(sum(ranges[i]) for i in span.ranges)


@given(RANGES, st.integers(0, 300), st.integers(1, 2_000))
def test_spans_keep_their_bounds(ranges: list[tuple[int, int]], gap: int, cap: int) -> None:
    for span in plan_spans(ranges, max_gap=gap, max_span=cap, amplification=2.0):
        wanted: set[int] = set()
        for index in span.ranges:
            wanted |= set(range(ranges[index][0], sum(ranges[index])))
        assert span.end - span.start <= max(cap, *(ranges[i][1] for i in span.ranges))
        assert span.end - span.start <= 2 * len(wanted)
        holes = sorted(set(range(span.start, span.end)) - wanted)
        longest = run = 0
        for previous, hole in zip([None, *holes], holes, strict=False):
            run = run + 1 if previous is not None and hole == previous + 1 else 1
            longest = max(longest, run)
        assert longest <= gap


def test_neighbours_share_a_read_and_strangers_do_not() -> None:
    spans = plan_spans([(1_000, 100), (0, 100), (150, 100), (90_000, 10)], max_gap=1_000, max_span=10_000)
    assert [(span.start, span.end, span.ranges) for span in spans] == [
        (0, 250, (1, 2)),
        (1_000, 1_100, (0,)),  # joining it would read 1,100 bytes for 300
        (90_000, 90_010, (3,)),
    ]


@pytest.fixture
def letters(tmp_path: Path) -> str:
    path = tmp_path / "letters.bin"
    path.write_bytes(bytes(range(256)) * 1_000)
    return str(path)


def test_ranges_come_in_the_order_asked_for(letters: str) -> None:
    data = Path(letters).read_bytes()
    ranges = [(200_000, 7), (0, 3), (1, 1), (255_999, 1), (5, 0), (100, 150_000), (2, 60)]
    views = store().read_ranges(letters, ranges, etag=store().info(letters).etag)
    assert [bytes(view) for view in views] == [data[offset : offset + size] for offset, size in ranges]


def test_range_beyond_the_end_is_an_error(letters: str) -> None:
    with pytest.raises(StoreError, match=r"letters.bin ends before byte 256010"):
        store().read_ranges(letters, [(0, 10), (256_000 - 5, 15)])


def test_changed_file_is_an_error_and_not_other_bytes(letters: str) -> None:
    before = store().info(letters)
    os.utime(letters, ns=(1, 1))
    for read in (
        lambda: store().read_ranges(letters, [(0, 1)], etag=before.etag),
        lambda: store().read(letters, etag=before.etag),
        lambda: list(store().chunks(letters, etag=before.etag)),
        lambda: store().open(before).read(),
    ):
        with pytest.raises(
            FileChanged, match=r"letters.bin was overwritten since it was listed.*Ingest the shard again"
        ):
            read()


def test_chunks_cover_the_file_from_an_offset(letters: str) -> None:
    pieces = list(store().chunks(letters, 100_000, offset=1_000))
    assert [len(piece) for piece in pieces] == [100_000, 100_000, 55_000]
    assert b"".join(pieces) == Path(letters).read_bytes()[1_000:]


def test_read_is_short_only_at_the_end(letters: str) -> None:
    assert store().read(letters, 255_990, 100) == Path(letters).read_bytes()[-10:]
    assert store().read(letters, 300_000, 5) == b""
    assert store().read(letters, 10, 0) == b""


def test_file_object_seeks_and_reads(letters: str) -> None:
    file = store().open(store().info(letters))
    file.seek(-3, os.SEEK_END)
    assert file.read() == bytes([253, 254, 255])
    file.seek(10)
    buffer = bytearray(4)
    assert file.readinto(memoryview(buffer)) == 4
    assert (bytes(buffer), file.tell(), file.size()) == (bytes([10, 11, 12, 13]), 14, 256_000)


def test_list_is_sorted_recursive_and_filtered(tmp_path: Path) -> None:
    for name in ("b/2.tar", "b/1.TAR", "a.tar", "b/c/3.tar", "x.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = store().list(str(tmp_path), (".tar",))
    assert [file.uri.removeprefix(f"{tmp_path}/") for file in found] == ["a.tar", "b/1.TAR", "b/2.tar", "b/c/3.tar"]
    assert [file.size for file in found] == [5, 7, 7, 9]
    assert store().list(found[0].uri) == [store().info(found[0].uri)]


def test_uris_have_one_spelling(letters: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(letters).parent)
    spellings = ("letters.bin", "./letters.bin", f"file://{letters}", letters)
    assert {store().info(spelling).uri for spelling in spellings} == {letters}
    assert store().resolve("s3://bucket/folder/") == "s3://bucket/folder"


def test_missing_file_names_the_nearest(letters: str, tmp_path: Path) -> None:
    with pytest.raises(FileMissing, match=r"leters.bin does not exist. Did you mean 'letters.bin'\?"):
        store().read(str(tmp_path / "leters.bin"))
    with pytest.raises(FileMissing, match="does not exist"):
        store().list(str(tmp_path / "nowhere" / "at" / "all"))
    with pytest.raises(StoreError, match="is a folder"):
        store().info(str(tmp_path))


def test_write_replaces_whole_files_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = str(tmp_path / "new" / "file.bin")
    store().write(target, b"one")
    before = store().info(target)
    store().write(target, b"three")
    assert Path(target).read_bytes() == b"three"
    assert os.listdir(tmp_path / "new") == ["file.bin"]
    assert store().info(target).etag != before.etag


def test_memory_is_reached_through_fsspec() -> None:
    uri = "memory://bucket/folder/data.bin"
    store().write(uri, bytes(range(100)))
    found = store().list("memory://bucket")
    assert [(file.uri, file.size) for file in found] == [("memory://bucket/folder/data.bin", 100)]
    assert [bytes(v) for v in store().read_ranges(uri, [(90, 5), (3, 2)])] == [bytes(range(90, 95)), b"\x03\x04"]
    assert b"".join(store().chunks(uri, 30, offset=10)) == bytes(range(10, 100))
    etag = store().info(uri).etag
    store().write(uri, b"other")
    with pytest.raises(FileChanged):
        store().read_ranges(uri, [(0, 1)], etag=etag)
    with pytest.raises(FileMissing, match=r"Did you mean 'data.bin'\?"):
        store().read("memory://bucket/folder/date.bin")


def test_unknown_protocol_says_what_it_is() -> None:
    with pytest.raises(StoreError, match=r"nosuch://x cannot be opened.*nosuch"):
        store().read("nosuch://x")


def _read_in_a_child(path: str, answers: multiprocessing.Queue[bytes]) -> None:
    answers.put(store().read(path, 0, 3))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_store_works_in_other_processes(letters: str, method: str) -> None:
    store().read(letters, 0, 1)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=_read_in_a_child, args=(letters, answers))
    child.start()
    assert answers.get(timeout=30) == b"\x00\x01\x02"
    child.join()
    assert pickle.loads(pickle.dumps(Store())).read(letters, 1, 1) == b"\x01"


def test_transient_failures_are_tried_again_and_others_are_not() -> None:
    waits: list[float] = []
    outcomes: list[Exception | str] = [ConnectionResetError("reset"), TimeoutError(), "done"]

    def action() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert with_retries(action, waits.append) == "done"
    assert len(waits) == 2
    outcomes[:] = [PermissionError("no"), "never"]
    with pytest.raises(PermissionError):
        with_retries(action, waits.append)
    outcomes[:] = [ConnectionResetError(str(n)) for n in range(9)]
    with pytest.raises(ConnectionResetError):
        with_retries(action, waits.append)
    assert len(outcomes) == 4


def test_what_is_transient() -> None:
    wrapped = OSError("failed")
    wrapped.__cause__ = ConnectionResetError()
    assert is_transient(wrapped)
    assert not is_transient(OSError("disk"))
    assert not is_transient(FileNotFoundError())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://AKIAABCDEFGHIJKLMNOP:topsecret@bucket/key", "s3://bucket/key"),
        ("https://host/a.tar?X-Amz-Signature=topsecret&x=1 failed", "https://host/a.tar failed"),
        ("aws_secret_access_key='topsecret', region=eu", "aws_secret_access_key=***', region=eu"),
        ("key AKIAABCDEFGHIJKLMNOP is unknown", "key *** is unknown"),
        ("/plain/path.tar", "/plain/path.tar"),
    ],
)
def test_secrets_are_not_shown(text: str, shown: str) -> None:
    assert redact(text) == shown
    assert "topsecret" not in redact(text)


def test_info_is_a_value() -> None:
    assert FileInfo("a", 1, "e") == FileInfo("a", 1, "e")


def test_bytes_replaced_under_the_same_size_and_time_are_noticed(letters: str, tmp_path: Path) -> None:
    listed = store().info(letters)
    before = Path(letters).stat()
    Path(letters).write_bytes(Path(letters).read_bytes()[::-1])
    os.utime(letters, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store().info(letters).etag != listed.etag
    with pytest.raises(FileChanged):
        store().read_ranges(letters, [(0, 4)], etag=listed.etag)
    other = tmp_path / "other"
    other.write_bytes(b"x" * before.st_size)
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = store().info(letters).etag
    other.rename(letters)
    with pytest.raises(FileChanged):
        store().read_ranges(letters, [(0, 4)], etag=now)
    # What the first releases recorded says nothing of the rest.
    assert store().read_ranges(letters, [(0, 4)], etag=f"{before.st_mtime_ns}-{before.st_size}") == [b"xxxx"]


def test_a_path_that_is_not_there_gets_what_is(tmp_path: Path) -> None:
    for name in ("shards/00000.tar", "shards/00001.tar", "notes.md", ".hidden/x"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    said = {
        "shards/00000.tr": "Did you mean '00000.tar'?",
        "shrds/00000.tar": f"{tmp_path} has no 'shrds'. Did you mean 'shards'?",
        "zebra": f"{tmp_path} is there, and holds notes.md, shards.",
        "zebra/below/it": f"{tmp_path} is there, and holds notes.md, shards.",
        "notes.md/x": f"{tmp_path}/notes.md is there, and holds nothing of that name.",
        "hidden": f"{tmp_path} is there, and holds notes.md, shards.",
    }
    assert {name: store().instead_of(str(tmp_path / name)) for name in said} == said
    with pytest.raises(FileMissing, match=r"notes\.md/x does not exist"):
        store().info(str(tmp_path / "notes.md/x"))
