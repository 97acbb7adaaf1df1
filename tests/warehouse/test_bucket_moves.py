"""Versions move from the disk of a data folder into a bucket, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from factory_lib import C, DatasetQuery
from factory_lib.cli import factory
from factory_lib.history.verifying import verify
from factory_lib.storage.store import Store
from factory_lib.warehouse.bucket.binding import bind
from factory_lib.warehouse.bucket.moving import move_to_bucket, move_to_disk
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import stop_engine
from tests.s3 import Bucket
from tests.warehouse.bucket_folder import URI, KilledError, fingerprints, named, objects, part_files, parts, save


@pytest.fixture
def local_home(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder of its own with versions on its disk."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FACTORY_HOME", str(folder))
    monkeypatch.delenv("FACTORY_VERSIONS", raising=False)
    yield folder
    stop_engine(folder)


def make_versions() -> None:
    save(rows=20_000)
    DatasetQuery("laion").mutate(z=C.x + C.y).save("wide")


def sizes(home: Path) -> int:
    """Bytes of the parts of versions on the disk, what they share counted once."""
    return sum({path.stat().st_ino: path.stat().st_size for path in part_files(home)}.values())


def broken_after(calls: int, name: str, patched: pytest.MonkeyPatch) -> None:
    """Have the process killed after so many calls of a method of the store."""
    done, made = getattr(Store, name), list[str]()

    def call(self: Store, uri: str, *others: Any) -> Any:
        if len(made) >= calls:
            raise KilledError
        made.append(uri)
        return done(self, uri, *others)

    patched.setattr(Store, name, call)


def test_versions_move_into_a_bucket_and_back(local_home: Path, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    make_versions()
    before, bytes_before = fingerprints(), sizes(local_home)
    files = len({path.stat().st_ino for path in part_files(local_home)})
    warehouse().close()

    # One that is broken off leaves versions where they are, and the next one goes on.
    for calls, name in ((0, "create"), (20, "write")):
        with monkeypatch.context() as patched:
            broken_after(calls, name, patched)
            with pytest.raises(KilledError):
                move_to_bucket(local_home, URI)
        bind(local_home)  # as an engine does that starts
    assert fingerprints() == before
    warehouse().close()
    moved = CliRunner().invoke(factory, ["move", URI, "--json"], catch_exceptions=False)
    assert moved.exit_code == 0, moved.output
    said = json.loads(moved.stdout)
    assert said["versions"] == 2
    assert files <= said["files"] <= files + 20  # files of the tables themselves come on top
    assert fingerprints() == before
    assert verify(warehouse(), sources=False).findings == []  # by the checksums of the files
    assert named(local_home) == set(parts(s3))  # what the first try wrote was not written again
    assert sum(parts(s3).values()) == pytest.approx(bytes_before, rel=0.01)
    assert [row["disk_name"] for row in warehouse().rows("SELECT DISTINCT disk_name FROM system.parts WHERE active"
            " AND match(table, '^v[1-9]') AND database != 'factory'")] == ["versions"]  # fmt: skip
    DatasetQuery("wide").filter(C.n < 100).save("less")
    before = fingerprints()
    warehouse().close()
    stop_engine(local_home)

    with monkeypatch.context() as patched:
        broken_after(20, "chunks", patched)
        with pytest.raises(KilledError):
            move_to_disk(local_home)
    assert fingerprints() == before
    warehouse().close()
    moved = CliRunner().invoke(factory, ["move", "disk"], catch_exceptions=False)
    assert moved.exit_code == 0, moved.output
    assert objects(s3) == {}
    assert fingerprints() == before
    assert verify(warehouse(), sources=False).findings == []
    assert sizes(local_home) == pytest.approx(bytes_before, rel=0.05)
    DatasetQuery("less").filter(C.n < 10).save("least")
    assert DatasetQuery("least").count() == 10
