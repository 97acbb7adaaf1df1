"""Ranges by obstore give what s3fs gives, and step aside where they cannot be used."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

import pytest

from factory_lib.errors import FileChanged, FileMissing, StoreError
from factory_lib.storage import store as store_module
from factory_lib.storage.fast import AnswerError, RefusedError
from factory_lib.storage.retry import is_transient, shown
from factory_lib.storage.store import store
from tests.s3 import Bucket, s3, s3_endpoint  # noqa: F401 - fixtures
from tests.stub_s3 import StubS3

pytest.importorskip("obstore")
DATA = bytes(range(256)) * 4000
RANGES = [(0, 10), (999_000, 1000), (5, 300_000), (1_023_999, 1)]


@pytest.fixture
def bucket(s3: Bucket, monkeypatch) -> Bucket:  # noqa: F811
    """A bucket, and no client of it that another test made."""
    monkeypatch.setattr(store_module, "_clients", {})
    return s3


def fast_bucket() -> object:
    return store_module._files("s3://x/")._fast  # type: ignore[attr-defined]


@pytest.mark.parametrize("installed", [True, False])
def test_ranges_are_right_with_and_without_it(bucket: Bucket, monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "obstore", None)
        monkeypatch.setitem(sys.modules, "obstore.store", None)
    uri = bucket.put("a b/ü.tar", DATA)
    etag = store().info(uri).etag
    assert [bytes(part) for part in store().read_ranges(uri, RANGES, etag=etag)] == [DATA[o : o + n] for o, n in RANGES]
    assert (fast_bucket()["shards"] is not None) == installed
    with pytest.raises(StoreError, match="ends before byte"):
        store().read_ranges(uri, [(len(DATA) - 5, 10)])
    with pytest.raises(StoreError, match="ends before byte"):
        store().read_ranges(uri, [(len(DATA) + 5, 10)])
    with pytest.raises(FileMissing, match="'ü.tar'"):
        store().read_ranges(f"{bucket.uri}/a b/u.tar", [(0, 1)])
    bucket.put("a b/ü.tar", DATA[::-1])
    with pytest.raises(FileChanged):
        store().read_ranges(uri, RANGES, etag=etag)


def _read(uri: str, answers) -> None:
    answers.put((bytes(store().read_ranges(uri, [(1, 3)])[0]), fast_bucket()["shards"] is None))


def test_a_forked_process_does_not_use_it(bucket: Bucket):
    """Its threads stay behind in the parent: calls would never return."""
    uri = bucket.put("a.tar", DATA)
    store().read_ranges(uri, [(0, 1)])
    assert fast_bucket()["shards"] is not None
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_read, args=(uri, answers))
    child.start()
    assert answers.get() == (b"\1\2\3", True)
    child.join()


def test_faults_are_retried(tmp_path: Path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(DATA)
    monkeypatch.setattr("factory_lib.storage.retry.FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(store_module, "_clients", {})
    with StubS3(tmp_path, unavailable=0.2, reset=0.2) as stub:
        for name, value in stub.environment.items():
            monkeypatch.setenv(name, value)
        for start in range(0, 60_000, 2_000):
            assert bytes(store().read_ranges("s3://stub/a.tar", [(start, 90_000)])[0]) == DATA[start : start + 90_000]
        counted = stub.counters()
        assert counted["unavailable"] > 0
        assert counted["resets"] > 0


def test_its_errors_read_like_those_of_the_other_client():
    text = "status code: 503 Slow: <Error><Code>SlowDown</Code><Message>Please wait.</Message></Error>"
    assert is_transient(AnswerError(503, text))
    assert shown(AnswerError(503, text)) == "SlowDown: Please wait."
    assert not is_transient(RefusedError(403, "status code: 403"))


@pytest.mark.parametrize("installed", [True, False])
def test_answers_that_never_end_are_given_up_and_asked_for_again(tmp_path: Path, monkeypatch, installed):
    if not installed:
        monkeypatch.setitem(sys.modules, "obstore", None)
        monkeypatch.setitem(sys.modules, "obstore.store", None)
    (tmp_path / "a.tar").write_bytes(DATA)
    monkeypatch.setattr("factory_lib.storage.retry.FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr("factory_lib.storage.retry.SLOW_SECONDS", 0.3)
    monkeypatch.setattr(store_module, "_clients", {})
    with StubS3(tmp_path, stall=0.3) as stub:
        for name, value in stub.environment.items():
            monkeypatch.setenv(name, value)
        for start in range(0, 30_000, 2_000):
            assert bytes(store().read_ranges("s3://stub/a.tar", [(start, 90_000)])[0]) == DATA[start : start + 90_000]
        assert stub.counters()["stalls"] > 0
