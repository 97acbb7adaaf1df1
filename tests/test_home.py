"""The data folder is for its owner: nothing in it can be read by others, whoever made it and with whatever umask."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.home import private_folder
from factory_lib.orchestration.home import factory_instance
from factory_lib.settings import remember_source
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import stop_engine


@pytest.fixture
def careless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that is not there yet, and a umask that lets everybody write."""
    home = tmp_path / "home"
    monkeypatch.setenv("FACTORY_HOME", str(home))
    monkeypatch.delenv("FACTORY_CLICKHOUSE_URL", raising=False)
    before = os.umask(0)
    try:
        yield home
    finally:
        os.umask(before)


def open_to_others(folder: Path) -> list[str]:
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return [f"{path} {path.stat().st_mode:o}" for path in paths if path.stat().st_mode & 0o077]


def has_lists(folder: Path) -> bool:
    try:
        return bool(os.getxattr(folder, "system.posix_acl_default"))
    except (AttributeError, OSError):
        return False


def test_nothing_in_a_used_home_is_for_others(careless: Path) -> None:
    try:
        # Dagster first: its folder is made by other code, in a home that is not there.
        with factory_instance() as instance:
            assert instance.get_runs() == []
        remember_source("s3://bucket/secret")
        DatasetQuery.from_arrow(pa.table({"x": [1, 2]})).save("d")
        (private_folder(careless / "cache" / "deep") / "file").write_text("bytes")
    finally:
        warehouse().close()
        stop_engine(careless)
    assert {"dagster", "cache", "data", "locks", "source"} <= set(os.listdir(careless))
    others = open_to_others(careless)
    if not has_lists(careless):  # then it is the folders that keep others out
        others = [one for one in others if Path(one.rsplit(" ", 1)[0]).is_dir()]
    assert others == []


def test_folders_that_were_open_are_closed_and_those_of_everybody_left(careless: Path) -> None:
    old = careless / "dagster"
    old.mkdir(mode=0o755, parents=True)
    careless.chmod(0o755)
    private_folder(old)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (careless, old)] == [0o700, 0o700]
    shared = careless.parent / "everybody"
    shared.mkdir()
    shared.chmod(0o1777)
    private_folder(shared, shared)
    private_folder(shared / "cache", shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o1777
    assert stat.S_IMODE((shared / "cache").stat().st_mode) == 0o700
    elsewhere = careless.parent / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    private_folder(elsewhere)
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o755, "it was made by somebody who knows why"


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become another user")
def test_another_user_reads_nothing(careless: Path) -> None:
    secret = private_folder(careless / "training") / "secret"
    secret.write_text("secret")
    careless.parent.chmod(0o755)
    done = subprocess.run(["cat", str(secret)], user=65534, group=65534, extra_groups=[], capture_output=True)
    assert done.returncode != 0
    assert b"secret" not in done.stdout
