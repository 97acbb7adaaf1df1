"""The store on S3: requests, pinned reads, and what happens when the server misbehaves."""

from __future__ import annotations

import gc
import multiprocessing
import os

import pytest

from factory_lib.errors import FileChanged, FileMissing, StoreError
from factory_lib.storage import retry, s3
from factory_lib.storage.store import FileInfo, store
from tests.s3 import Bucket, Relay

DATA = os.urandom(3 * 2**20)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)


def test_list_and_info(s3: Bucket) -> None:
    s3.put("pool/b.tar", b"two")
    s3.put("pool/a.tar", b"one one")
    s3.put("pool/sub/c.parquet", b"three")
    etags = {entry["Key"]: entry["ETag"].strip('"') for entry in s3.client.list_objects_v2(Bucket=s3.name)["Contents"]}
    a, b, c = (
        FileInfo(f"{s3.uri}/{key}", size, etags[key])
        for key, size in (("pool/a.tar", 7), ("pool/b.tar", 3), ("pool/sub/c.parquet", 5))
    )
    assert store().list(s3.uri) == [a, b, c]
    assert store().list(f"{s3.uri}/pool/", (".tar",)) == [a, b]
    assert store().list(a.uri) == [store().info(a.uri)] == [a]


def test_missing_objects_and_buckets(s3: Bucket) -> None:
    s3.put("pool/00000.tar", b"x")
    with pytest.raises(FileMissing, match=r"s3://shards/pool/00001.tar does not exist. Did you mean '00000.tar'\?"):
        store().read(f"{s3.uri}/pool/00001.tar")
    with pytest.raises(FileMissing, match=r"s3://shards/poll does not exist. Did you mean 'pool'\?"):
        store().list(f"{s3.uri}/poll")
    with pytest.raises(FileMissing, match="s3:// has no 'shrds'. Did you mean 'shards'"):
        store().info("s3://shrds/pool/00000.tar")
    with pytest.raises(FileMissing, match="s3://other/x does not exist"):
        store().read("s3://other/x")


def test_a_file_is_streamed_by_one_request(s3: Bucket, relay: Relay) -> None:
    uri = s3.put("a.tar", DATA)
    assert b"".join(store().chunks(uri, 2**20)) == DATA
    assert relay.gets == [""]
    relay.gets.clear()
    assert b"".join(store().chunks(uri, 2**20, offset=1_000_000)) == DATA[1_000_000:]
    assert relay.gets == ["bytes=1000000-"]


@pytest.mark.parametrize("faults", [["ok"], ["cut", "503", "cut"]])
def test_nothing_fails_unheard_where_a_stream_is_given_up(
    s3: Bucket, relay: Relay, caplog: pytest.LogCaptureFixture, faults: list[str]
) -> None:
    """asyncio says 'Task exception was never retrieved' of a read that nobody waited for."""
    uri = s3.put("a.tar", DATA)
    for taken in range(3):
        relay.faults[:] = faults
        stream = store().chunks(uri, 2**20)
        for _ in range(taken):
            next(stream)
        stream.close()  # type: ignore[attr-defined]
        gc.collect()
    assert b"".join(store().chunks(uri)) == DATA  # whatever was left behind is done by now
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []


def test_abandoned_stream_closes(s3: Bucket, relay: Relay) -> None:
    stream = store().chunks(s3.put("a.tar", DATA), 2**18)
    assert next(stream) == DATA[: 2**18]
    stream.close()  # type: ignore[attr-defined]
    assert relay.gets == [""]


def test_near_ranges_share_a_request(s3: Bucket, relay: Relay) -> None:
    uri = s3.put("a.tar", DATA)
    ranges = [(2_900_000, 10), (0, 5_000), (6_000, 5_000), (2_900_100, 100)]
    views = store().read_ranges(uri, ranges, etag=store().info(uri).etag)
    assert [bytes(view) for view in views] == [DATA[offset : offset + size] for offset, size in ranges]
    assert sorted(relay.gets) == ["bytes=0-10999", "bytes=2900000-2900199"]


def test_a_long_range_is_fetched_in_parts(s3: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory_lib.storage.s3.PART_BYTES", 2**20)
    uri = s3.put("a.tar", DATA)
    assert store().read(uri, 0, len(DATA)) == DATA
    assert sorted(relay.gets) == ["bytes=0-1048575", "bytes=1048576-2097151", "bytes=2097152-3145727"]


def test_overwritten_object_is_an_error_and_not_other_bytes(s3: Bucket) -> None:
    uri = s3.put("a.tar", DATA)
    before = store().info(uri)
    s3.put("a.tar", DATA[::-1])
    for read in (
        lambda: store().read_ranges(uri, [(0, 10)], etag=before.etag),
        lambda: store().read(uri, etag=before.etag),
        lambda: next(store().chunks(uri, etag=before.etag)),
        lambda: store().open(before).read(10),
    ):
        with pytest.raises(FileChanged, match=r"s3://shards/a.tar was overwritten since it was listed"):
            read()
    assert bytes(store().read_ranges(uri, [(0, 10)], etag=store().info(uri).etag)[0]) == DATA[::-1][:10]


def test_reads_beyond_the_end(s3: Bucket) -> None:
    uri = s3.put("a.tar", b"0123456789")
    assert store().read(uri, 8, 100) == b"89"
    assert store().read(uri, 10) == store().read(uri, 50, 5) == b""
    with pytest.raises(StoreError, match="ends before byte 15: 2 of the 7 bytes from 8"):
        store().read_ranges(uri, [(8, 7)])
    empty = s3.put("empty.tar", b"")
    assert store().read(empty) == b""
    assert list(store().chunks(empty)) == []


@pytest.mark.parametrize("fault", ["500", "503", "429", "cut"])
def test_transient_failures_are_overcome(s3: Bucket, relay: Relay, fault: str) -> None:
    uri = s3.put("a.tar", DATA)
    etag = store().info(uri).etag
    relay.faults[:] = [fault, fault]
    assert bytes(store().read_ranges(uri, [(5, 2_000_000)], etag=etag)[0]) == DATA[5:2_000_005]
    assert len(relay.gets) == 3
    relay.faults[:] = [fault]
    assert b"".join(store().chunks(uri, 2**19, etag=etag)) == DATA


def test_broken_stream_is_taken_up_where_it_broke(s3: Bucket, relay: Relay) -> None:
    uri = s3.put("a.tar", DATA)
    relay.faults[:] = ["cut"]
    assert b"".join(store().chunks(uri, 2**18)) == DATA
    # Less than half of the body came; only what lies behind the last whole chunk is asked for again.
    assert relay.gets[0] == ""
    start = int(relay.gets[1].removeprefix("bytes=").removesuffix("-"))
    assert len(relay.gets) == 2
    assert 0 < start <= len(DATA) // 2
    assert start % 2**18 == 0


def test_object_replaced_in_mid_stream_is_never_spliced(s3: Bucket, relay: Relay) -> None:
    uri = s3.put("a.tar", DATA)
    relay.faults[:] = ["cut"]
    stream = store().chunks(uri, 2**18)
    next(stream)
    s3.put("a.tar", DATA[::-1])
    with pytest.raises(FileChanged):
        b"".join(stream)


def test_lasting_failure_is_given_up(s3: Bucket, relay: Relay) -> None:
    uri = s3.put("a.tar", DATA)
    relay.faults[:] = ["503"] * 50
    with pytest.raises(StoreError, match=r"s3://shards/a.tar cannot be read or written: SlowDown"):
        store().read(uri, 0, 10)
    assert len(relay.gets) == retry.ATTEMPTS


def test_wrong_credentials_are_said_without_them(s3: Bucket, relay: Relay) -> None:
    uri = s3.put("a.tar", DATA)
    relay.faults[:] = ["403"]
    with pytest.raises(StoreError, match=r"s3://shards/a.tar may not be read or written: AccessDenied") as caught:
        store().read(uri, 0, 10)
    assert "testing" not in str(caught.value)
    assert len(relay.gets) == 1


def test_write_puts_an_object(s3: Bucket) -> None:
    store().write(f"{s3.uri}/cache/block", b"bytes")
    assert s3.client.get_object(Bucket=s3.name, Key="cache/block")["Body"].read() == b"bytes"


def _read_in_a_child(uri: str, answers: multiprocessing.Queue[bytes]) -> None:
    answers.put(bytes(store().read_ranges(uri, [(1, 3)])[0]))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_store_works_in_other_processes_after_use(s3: Bucket, method: str) -> None:
    uri = s3.put("a.tar", DATA)
    store().read(uri, 0, 1)
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=_read_in_a_child, args=(uri, answers))
    child.start()
    assert answers.get(timeout=60) == DATA[1:4]
    child.join()


def test_parts_cover_a_range() -> None:
    parts = list(s3._parts(10, 10 + 2 * s3.PART_BYTES + 5))
    assert parts[0][0] == 10
    assert parts[-1] == (10 + 2 * s3.PART_BYTES, 10 + 2 * s3.PART_BYTES + 5)
    assert [end for _, end in parts[:-1]] == [start for start, _ in parts[1:]]
    assert list(s3._parts(7, None)) == [(7, None)]
