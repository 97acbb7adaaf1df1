"""Who made what lies around, and what of it may be swept."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from factory_lib.owners import (
    Owner,
    building,
    folder_identity,
    leftovers,
    remove_leftovers,
    replacing,
    unfinished,
    write_whole,
)

CHILD = """
import sys
from pathlib import Path
from factory_lib.owners import Owner, unfinished
path = unfinished(Path(sys.argv[1]) / "made")
path.mkdir() if sys.argv[2] == "folder" else path.write_text("half")
print(path, flush=True)
sys.stdin.read()
"""


def test_a_later_process_with_the_same_id_is_another() -> None:
    me = Owner.here()
    assert not me.is_gone
    assert Owner.read(me.as_dict()) == me
    assert dataclasses.replace(me, started="1").is_gone, "the id was taken by a later process"
    assert dataclasses.replace(me, boot="before").is_gone
    assert not dataclasses.replace(me, host="elsewhere", started="1").is_gone, "it cannot be asked"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = Owner.process(child.pid)
    assert not owner.is_gone
    child.kill()
    while child.poll() is None and not owner.is_gone:
        pass
    assert owner.is_gone
    child.wait()
    assert Owner.read({"host": "h"}) is None
    assert Owner.read([]) is None


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_a_killed_process_left_is_swept(tmp_path: Path, kind: str) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path), kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    path = Path(child.stdout.readline().strip())
    assert leftovers(tmp_path) == []
    child.kill()
    child.wait()
    assert leftovers(tmp_path) == [path]
    assert remove_leftovers(tmp_path) == [path]
    assert not path.exists()


def test_names_without_an_owner_go_when_they_are_old(tmp_path: Path) -> None:
    old = [tmp_path / name for name in (".building-x1_y2z3w", "engine.json.123", "up.json.9", ".writing-abcdefgh")]
    old.append(tmp_path / f"{'0' * 32}.17.tmp")
    for path in [*old, tmp_path / "kept.json.1"]:
        path.touch()
        os.utime(path, (1, 1))
    (tmp_path / ".building-newnew00").touch()
    own = tmp_path / ".building-site"  # of the user
    own.touch()
    os.utime(own, (1, 1))
    assert leftovers(tmp_path) == sorted(old)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "state"
    with replacing(target) as beside:
        beside.write_text("one")

    def fail() -> None:
        with replacing(target) as beside:
            beside.write_text("half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert target.read_text() == "one"
    assert os.listdir(tmp_path) == ["state"]
    assert unfinished(target).parent == tmp_path
    longest = tmp_path / ("x" * 255)
    with replacing(longest) as beside:
        beside.write_text("as long as a name may be")
    assert longest.exists()


@pytest.mark.parametrize("durable", [False, True])
def test_bytes_are_written_whole(tmp_path: Path, durable: bool) -> None:
    target = tmp_path / "state"
    target.write_bytes(b"before")
    write_whole(target, b"after", durable=durable)
    assert target.read_bytes() == b"after"
    with pytest.raises(TypeError):
        write_whole(target, "no bytes", durable=durable)  # type: ignore[arg-type]
    assert target.read_bytes() == b"after"
    assert os.listdir(tmp_path) == ["state"]


def test_a_folder_is_built_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "built"

    def fail() -> None:
        with building(target) as beside:
            (beside / "half").touch()
            assert not target.exists()
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        fail()
    assert os.listdir(tmp_path) == []
    with building(target) as beside:
        (beside / "file").write_text("all of it")
        assert not target.exists()
    assert os.listdir(tmp_path) == ["built"]
    assert (target / "file").read_text() == "all of it"
    assert target.stat().st_mode & 0o777 == 0o700


def test_a_copy_of_a_folder_is_another_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    before = folder_identity(tmp_path / "a")
    subprocess.run(["cp", "-a", str(tmp_path / "a"), str(tmp_path / "b")], check=True)
    assert folder_identity(tmp_path / "b") != before
    (tmp_path / "a").rename(tmp_path / "c")
    assert folder_identity(tmp_path / "c") == before
    assert folder_identity(tmp_path / "a") == ""
