"""Sources of many tars: how many of them the factory suggests to put into a shard."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_lib.sources import grouping
from factory_lib.sources.grouping import grouping_advice
from factory_lib.sources.shards import SourceShard
from factory_lib.storage.files import FileInfo
from tests.command_line import run
from tests.samples import write_tar


def shards(number: int, tars: int = 1, *, ends: str = ".tar", beside: tuple[str, ...] = ()) -> list[SourceShard]:
    def files(shard: int) -> tuple[FileInfo, ...]:
        names = [f"{shard}-{tar}{end}" for tar in range(tars) for end in (ends, *beside)]
        return tuple(FileInfo(f"/data/{name}", 1, "e") for name in names)

    return [SourceShard(f"{one:05d}", files(one)) for one in range(number)]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (shards(1000), None),
        (shards(1001), ("1,001 tars in 1,001 shards", "PER_SHARD=2 ", "are 501")),
        (shards(5000), ("5,000 tars in 5,000 shards", "about 25 s", "PER_SHARD=5 ", "are 1,000")),
        (shards(12_000, beside=(".parquet", "_stats.json")), ("12,000 tars", "PER_SHARD=15 ", "are 800")),
        (shards(1200, 10, ends=".tar.gz"), ("12,000 tars in 1,200 shards", "PER_SHARD=15 ", "are 800")),
        (shards(128_000), ("PER_SHARD=150 ", "are 854")),
        (shards(5000, ends=".parquet"), None),  # tables are no tars: nothing groups them
    ],
)
def test_what_is_suggested(source: list[SourceShard], said: tuple[str, ...] | None) -> None:
    advice = grouping_advice(source)
    assert (advice == "") == (said is None)
    assert all(part in advice for part in said or ())


@given(st.integers(1001, 200_000))
def test_what_is_suggested_is_enough_and_not_twice_of_what_is(tars: int) -> None:
    group = grouping._rounded_up(-(-tars // grouping.MOST_SHARDS))
    assert -(-tars // group) <= grouping.MOST_SHARDS
    assert tars / group > grouping.MOST_SHARDS / 2 - 1


@pytest.mark.usefixtures("engine")
def test_ingest_suggests_it_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "MOST_SHARDS", 2)
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", [(f"{name}.jpg", b"x"), (f"{name}.txt", b"y")])
    done = run("ingest", str(tmp_path), "--name", "d")
    assert "3 tars in 3 shards" in done.stderr
    assert "FACTORY_TARS_PER_SHARD=2 they are 2." in done.stderr
    once = run("ingest", str(tmp_path), "--name", "d", "--tars-per-shard", "2")
    assert "FACTORY_TARS_PER_SHARD" not in once.stderr
