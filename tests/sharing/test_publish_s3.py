"""Published in a bucket: read through the engine's own client, and whatever ends a publication leaves none that is half."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, publish, published, pull, version
from factory_lib.environment import environment
from factory_lib.errors import PublicationError, StoreError
from factory_lib.sharing.place import SharedPlace
from factory_lib.testing import engine_folder
from factory_lib.warehouse.client import warehouse
from tests.s3 import connect_store
from tests.stub_s3 import StubS3

ROOT = Path(__file__).resolve().parents[2]
PLACE = "s3://stub/team/datasets"


def saved(shards: int = 3) -> None:
    """The next version of laion."""
    rows = {"shard": [f"s{i % shards}" for i in range(60)], "size": pa.array(range(60), pa.uint32())}
    DatasetQuery.from_arrow(pa.table(rows), shard="shard").save("laion")


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubS3]:
    """A bucket that the store of this process and engines that are started from now on reach."""
    with StubS3(tmp_path / "bucket") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        connect_store(server.endpoint, monkeypatch)
        yield server


def test_a_version_in_a_bucket_is_read_where_it_lies(stub: StubS3, tmp_path: Path) -> None:
    with engine_folder(tmp_path / "here"):
        saved()
        made = version("laion")
        fingerprints = made.fingerprints()
        assert publish(made, PLACE).address == f"{PLACE}/laion.v1"
    with engine_folder(tmp_path / "elsewhere") as home:
        found = pull(f"{PLACE}/laion")
        assert found.fingerprints() == fingerprints
        assert DatasetQuery(f"{PLACE}/laion.v1").filter(C.size > 9).count() == 50
        stub.counters()
        assert DatasetQuery("laion").filter(C.size > 9).count() == 50
        assert "requests" not in stub.counters()  # what was read once is kept
        definition = str(warehouse().scalar("SHOW CREATE TABLE laion.v1"))
        texts = [path.read_text() for path in home.rglob("*.sql")] + [definition]
        assert not [text for text in texts if "testing-secret" in text or "testing'" in text]
        warehouse().execute("DROP TABLE laion.v1 SYNC")
    assert published(PLACE).column("rows").to_pylist() == [60]


def test_credentials_that_expired_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store is refused first; an engine that is refused while it writes says so, too."""
    with engine_folder(tmp_path / "here"), StubS3(tmp_path / "bucket", expired=1.0) as server:
        saved()
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        connect_store(server.endpoint, monkeypatch)
        with pytest.raises(StoreError, match="ExpiredToken"):
            publish("laion", PLACE)
        monkeypatch.setattr("factory_lib.sharing.place.SharedPlace.find", lambda *_: None)
        monkeypatch.setattr("factory_lib.storage.store.Store.names", lambda *_: [])
        with pytest.raises(PublicationError, match=f"{PLACE} was refused while laion.v1 was published") as caught:
            publish("laion", PLACE)
        assert "it goes on where it was" in caught.value.hint
    assert not (tmp_path / "bucket").exists()


def test_whoever_is_killed_while_publishing_leaves_no_half_version(tmp_path: Path) -> None:
    place, home = str(tmp_path / "team"), tmp_path / "here"
    script = f"from factory_lib import publish; publish('laion', {place!r})"
    chance = random.Random(7)
    with engine_folder(home):
        saved(shards=12)
        fingerprints = version("laion").fingerprints()
        ended = 0
        for _ in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", script], env=environment(), cwd=ROOT, stderr=subprocess.DEVNULL
            )
            time.sleep(chance.uniform(1.5, 3.5))
            process.send_signal(signal.SIGKILL)
            ended += process.wait() == -signal.SIGKILL
            there = SharedPlace.at(place)
            if there.datasets():
                break
        assert ended
        publish("laion", place)
        assert there.numbers("laion") == [1]
        assert len(list(Path(place, "laion", "data").iterdir())) == 1  # each went on where the one before was
        assert not (home / "publishing").exists() or not list((home / "publishing").iterdir())
    with engine_folder(tmp_path / "elsewhere"):
        assert pull(f"{place}/laion").fingerprints() == fingerprints
