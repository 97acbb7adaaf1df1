"""Samples that are elsewhere now, under other names or in other shards, keep the values of their bytes."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from factory_lib.signals import Signal
from tests.measured import (
    Reads,
    both,
    counts,
    grey,
    in_this_process,
    length,
    level,
    make,
    picture,
    reads,
    values,
    write,
)

__all__ = ["in_this_process", "reads"]
pytestmark = pytest.mark.usefixtures("engine")


def test_bytes_decide_wherever_they_are_now(tmp_path: Path) -> None:
    signals = (level, length, both)
    first, other = grey(6), grey(6, start=20)
    write(tmp_path / "one" / "a.tar", first)
    write(tmp_path / "one" / "b.tar", other)
    assert counts(make(tmp_path / "one", signals)) == (0, 36)

    def nothing_is_computed(folder: str, expected: dict[str, int], *some: Signal) -> None:
        version = make(tmp_path / folder, some or signals)
        assert counts(version)[1] == 0, folder
        assert values(version, "level") == expected, folder

    known = {key: int(key[1:]) for key in (*first, *other)}
    shutil.copytree(tmp_path / "one", tmp_path / "copied")
    nothing_is_computed("copied", known)
    (tmp_path / "copied").rename(tmp_path / "moved")
    nothing_is_computed("moved", known)
    (tmp_path / "moved" / "a.tar").rename(tmp_path / "moved" / "renamed.tar")
    nothing_is_computed("moved", known)
    # A sample that moved to another shard, and keys of other names.
    write(tmp_path / "cut" / "x.tar", dict(list(first.items())[:2]), pad=600)
    write(tmp_path / "cut" / "y.tar", {**dict(list(first.items())[2:]), **other})
    nothing_is_computed("cut", known)
    renamed = {f"new_{key}": value for key, value in first.items()}
    write(tmp_path / "keys" / "x.tar", renamed)
    # What reads no bytes is looked for under its key alone: it is computed in no time.
    nothing_is_computed("keys", {f"new_{key}": int(key[1:]) for key in first}, level, both)


def test_other_bytes_of_the_same_name_and_size_elsewhere_are_computed(tmp_path: Path) -> None:
    write(tmp_path / "one" / "a.tar", grey(6))
    make(tmp_path / "one", [level])
    swapped = {key: (picture(100 + i), caption) for i, (key, (_, caption)) in enumerate(grey(6).items())}
    write(tmp_path / "two" / "b.tar", swapped)
    version = make(tmp_path / "two", [level])
    assert counts(version) == (0, 6)
    assert values(version, "level") == {f"k{i:03d}": 100 + i for i in range(6)}


def sized(level: int) -> bytes:
    """A lossless picture of one grey level; no other has its size in bytes."""
    buffer = io.BytesIO()
    Image.new("RGB", (8 + level, 6), (level, level, level)).save(buffer, "BMP")
    return buffer.getvalue()


def test_keys_and_shards_that_are_renamed_at_once_keep_their_values(tmp_path: Path) -> None:
    first = {f"k{i:03d}": (sized(i), f"caption {i}") for i in range(20)}
    write(tmp_path / "one" / "a.tar", first)
    write(tmp_path / "one" / "b.tar", grey(6, start=20))
    assert counts(make(tmp_path / "one", [level])) == (0, 26)
    # In another order, so that none stands where it stood.
    write(tmp_path / "two" / "x.tar", {f"new_{key}": first[key] for key in reversed(first)})
    write(tmp_path / "two" / "y.tar", {f"new_{key}": value for key, value in grey(6, start=20).items()}, pad=600)
    version = make(tmp_path / "two", [level])
    assert counts(version) == (26, 0)
    assert values(version, "level") == {f"new_k{i:03d}": i for i in range(26)}


def test_of_other_samples_that_are_of_equal_sizes_by_chance_few_are_read_twice(tmp_path: Path, reads: Reads) -> None:
    write(tmp_path / "one" / "a.tar", grey(30))
    make(tmp_path / "one", [level])
    other = {f"other_{key}": (picture(100 + i), caption) for i, (key, (_, caption)) in enumerate(grey(30).items())}
    write(tmp_path / "two" / "x.tar", other, pad=600)
    reads.ranges.clear()
    assert counts(make(tmp_path / "two", [level])) == (0, 30)
    assert reads.count == 30 + 8
    assert len(set(reads.ranges)) == 30


def test_sizes_that_many_shards_have_say_nothing(tmp_path: Path, reads: Reads) -> None:
    for number in range(5):
        write(tmp_path / "one" / f"{number}.tar", {f"{number}_{key}": value for key, value in grey(2).items()})
    make(tmp_path / "one", [level])
    write(tmp_path / "two" / "x.tar", {f"other_{key}": value for key, value in grey(2, start=50).items()}, pad=600)
    reads.ranges.clear()
    assert counts(make(tmp_path / "two", [level])) == (0, 2)
    assert reads.count == 2
