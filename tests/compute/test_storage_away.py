"""Storage that fails for the time being is no property of samples: nothing is published of it, and it is tried again."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest

from factory_lib import DatasetQuery, signal
from factory_lib.errors import StorageAway
from factory_lib.orchestration import retrying
from factory_lib.orchestration.shard_saving import save_shards
from factory_lib.storage import retry
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version, versions
from tests.s3 import Bucket, Relay

FEW, MANY = 20, 300
"""Samples of a shard: few are computed in this process, many by others."""
pytestmark = pytest.mark.usefixtures("engine")


@signal
def size(image: bytes) -> int:
    return len(image)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(retrying, "FIRST_SECONDS", 0.01)
    monkeypatch.setenv("FACTORY_WORKERS", "2")


def _shards(s3: Bucket, samples: int, *names: str) -> DatasetQuery:
    for name in names:
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            for number in range(samples):
                member = tarfile.TarInfo(f"{number:04d}.jpg")
                member.size = number + 1
                tar.addfile(member, io.BytesIO(bytes(number + 1)))
        s3.put(f"pool/{name}.tar", out.getvalue())
    DatasetQuery.from_source(f"{s3.uri}/pool").save("pictures")
    return DatasetQuery("pictures", shards=list(names)).add_signals(size)


@pytest.mark.parametrize("samples", [FEW, MANY])
def test_an_outage_makes_no_values_and_none_are_missing_after_it(s3: Bucket, relay: Relay, samples: int) -> None:
    query = _shards(s3, samples, "a")
    relay.faults[:] = ["503"] * 10_000
    with pytest.raises(StorageAway, match="SlowDown") as away:
        query.save("sized")
    assert away.value.shard == "a"
    assert versions(warehouse(), "sized") == []
    relay.faults.clear()
    assert query.save("sized").rows == samples
    found = DatasetQuery("sized").select("size").to_arrow()["size"].to_pylist()
    assert sorted(found) == list(range(1, samples + 1))


def test_a_stage_waits_for_storage_and_goes_on(s3: Bucket, relay: Relay) -> None:
    query = _shards(s3, FEW, "a", "b", "c")
    relay.faults[:] = ["503"] * 10_000
    said: list[str] = []

    def wait(line: str) -> None:
        said.append(line)
        relay.faults.clear()

    shards = ["a", "b", "c"]

    saved = save_shards(query, "sized", shards, {}, wait)
    assert saved.failed == {}
    assert len(said) == 1
    assert "try 2 of 4" in said[0]
    assert DatasetQuery("sized").filter("size IS NULL").count() == 0
    assert DatasetQuery("sized").count() == 3 * FEW


def test_an_outage_is_one_whatever_files_it_is_told_of(
    s3: Bucket, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_STAGE_RETRIES", "0")
    names = [f"s{number:02d}" for number in range(12)]
    query = _shards(s3, FEW, *names)

    relay.faults[:] = ["503"] * 10_000
    tries: list[object] = []
    save = DatasetQuery.save

    def counted(self: DatasetQuery, *given: Any, **named: Any) -> Version:
        tries.append(self)
        return save(self, *given, **named)

    monkeypatch.setattr(DatasetQuery, "save", counted)
    saved = save_shards(query, "sized", names, {})
    assert set(saved.failed) == set(names)
    assert len(tries) < len(names), "it is not tried shard by shard"
