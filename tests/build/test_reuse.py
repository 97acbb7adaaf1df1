"""Values that are there are not computed again, and a value is never older than what it was made of."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
import pytest
from PIL import Image

from factory_lib import C, DatasetQuery, fn, open_source, signal
from factory_lib.errors import SignalError, StoreError
from factory_lib.storage.store import Store
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version
from tests.measured import (
    Reads,
    add_member,
    both,
    counts,
    grey,
    in_this_process,
    length,
    level,
    look,
    make,
    picture,
    reads,
    values,
    vector,
    write,
)

__all__ = ["in_this_process", "reads"]
pytestmark = pytest.mark.usefixtures("engine")


def test_a_tar_to_which_samples_were_appended_computes_those(tmp_path: Path, reads: Reads) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(20))
    assert counts(make(folder, [level, look, vector, both])) == (0, 80)
    before = {n: values(_latest(), n) for n in ("level", "look", "vector", "both")}
    reads.ranges.clear()
    write(folder / "a.tar", grey(23))
    version = make(folder, [level, look, vector, both])
    assert counts(version) == (80, 12)
    # the 20 that may be what they were are read to be hashed, the 3 that are new to be computed
    assert reads.count == 23
    for name, old in before.items():
        new = values(version, name)
        assert {k: new[k] for k in old} == old
        assert len(new) == 23
    assert values(version, "level") == {f"k{i:03d}": i for i in range(23)}
    assert values(version, "look")["k021"] == {"level": 21, "half": 10.5}


def _latest() -> Version:
    from factory_lib.warehouse.versions import resolve

    return resolve(warehouse(), "measured")


def test_vectors_that_are_taken_over_are_the_same_to_the_bit(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(20))
    make(folder, [vector])
    text = "SELECT key, arrayMap(x -> reinterpretAsUInt16(x), vector) AS bits FROM measured.v{} ORDER BY key"
    before = warehouse().query(text.format(1))
    write(folder / "a.tar", {"first": (picture(9), "new"), **grey(20)})
    assert counts(make(folder, [vector])) == (20, 1)
    after = warehouse().query(text.format(2))
    assert after.filter(pa.compute.not_equal(after["key"], "first")).equals(before)


def test_bytes_replaced_in_place_are_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(10))
    make(folder, [level, both])
    samples = grey(10)
    samples["k004"] = (picture(200), "caption 4")  # as many bytes, in the same place
    write(folder / "a.tar", samples)
    version = make(folder, [level, both])
    assert counts(version) == (18, 2)
    assert values(version, "level") == {f"k{i:03d}": i if i != 4 else 200 for i in range(10)}


def test_samples_that_moved_within_the_tar_keep_their_values(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(10))
    make(folder, [level])
    write(folder / "a.tar", dict(reversed(grey(10).items())), pad=3000)
    version = make(folder, [level])
    assert counts(version) == (10, 0)
    assert values(version, "level") == {f"k{i:03d}": i for i in range(10)}


def test_two_samples_that_changed_places_change_their_values(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(4))
    make(folder, [level])
    samples = grey(4)
    samples["k001"], samples["k002"] = (picture(2), "caption 1"), (picture(1), "caption 2")
    write(folder / "a.tar", samples)
    version = make(folder, [level])
    assert values(version, "level") == {"k000": 0, "k001": 2, "k002": 1, "k003": 3}
    assert counts(version) == (4, 0)  # both pictures were known, under the other's name


def test_metadata_that_changes_alone_reads_no_picture(tmp_path: Path, reads: Reads) -> None:
    def metadata(scores: Sequence[float]) -> None:
        pq.write_table(pa.table({"key": list(grey(10)), "score": scores}), tmp_path / "scores.parquet")

    def ingest() -> None:
        DatasetQuery.from_source(open_source(str(folder), metadata=str(tmp_path / "scores.parquet"))).save("samples")

    @signal
    def doubled(score: float) -> float:
        return score * 2

    folder = tmp_path / "t"
    write(folder / "a.tar", grey(10))
    metadata([i / 8 for i in range(10)])
    ingest()
    first = DatasetQuery("samples").add_signals(level, doubled).save("measured")
    assert counts(first) == (0, 20)
    reads.ranges.clear()
    metadata([i / 8 if i != 3 else 7.0 for i in range(10)])
    ingest()
    assert not reads.count
    second = DatasetQuery("samples").add_signals(level, doubled).save("measured")
    assert counts(second) == (19, 1)
    assert not reads.count
    assert values(second, "level") == values(first, "level")
    assert values(second, "doubled") == {f"k{i:03d}": i / 4 if i != 3 else 14.0 for i in range(10)}


def test_each_signal_is_computed_where_what_it_reads_has_changed(tmp_path: Path, reads: Reads) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(10))
    make(folder, [level, length, both])
    samples = grey(10)
    samples["k002"] = (picture(2), "another caption")
    samples["k005"] = (picture(99), "caption 5")
    write(folder / "a.tar", samples)
    reads.ranges.clear()
    version = make(folder, [level, length, both])
    assert counts(version) == (9 + 9 + 8, 1 + 1 + 2)
    assert values(version, "level")["k005"] == 99
    assert values(version, "length")["k002"] == 15
    assert values(version, "both") == {
        key: f"{len(data)} {data[-1]} {caption}" for key, (data, caption) in samples.items()
    }
    only_text = make(folder, [length], "texts")
    reads.ranges.clear()
    write(folder / "a.tar", {**samples, "k007": (picture(7), "seven")})
    assert counts(make(folder, [length], "texts")) == (9, 1)
    assert counts(only_text) == (10, 0)  # another dataset holds them
    assert not reads.count


def test_a_signal_that_is_added_or_changed_is_computed_alone(tmp_path: Path, reads: Reads) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(10))
    make(folder, [level, length])
    assert counts(make(folder, [level, length, look])) == (20, 10)
    again = signal(
        lambda image: image.getpixel((0, 0))[0] + OFFSET, name="level", output=int, inputs={"image": Image.Image}
    )
    version = make(folder, [again, length, look])
    assert counts(version) == (20, 10)
    assert values(version, "level")["k003"] == 1003
    reads.ranges.clear()
    assert counts(make(folder, [level, length, look])) == (30, 0)  # as it was: an older version holds the values
    assert not reads.count


OFFSET = 1000


def test_a_column_that_was_written_over_is_no_value_to_take_over(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(6))
    DatasetQuery.from_source(str(folder)).save("samples")
    measured = DatasetQuery("samples").add_signals(level, length)
    measured.mutate(level=C.level + 500, length=C.length).save("measured")
    measured.mutate(caption=fn.concat(C.caption, "!")).save("shouted")  # its captions are not those that were measured
    measured.select("key", "level", "level_error").save("narrow")  # the pictures are not there any more
    measured.rename(grey="level", why="level_error").filter(C.length > 0).save("renamed")
    del measured
    for name in ("measured", "shouted", "narrow"):
        if name != "shouted":
            warehouse().execute(f"DROP TABLE {name}.v1 SYNC")
    warehouse().execute("DROP TABLE renamed.v1 SYNC")
    version = DatasetQuery("samples").add_signals(level, length).save("again")
    assert counts(version) == (6, 6)  # `shouted` holds pictures and their levels, but no captions
    assert values(version, "level") == {f"k{i:03d}": i for i in range(6)}
    assert values(version, "length") == {f"k{i:03d}": 9 for i in range(6)}


def test_values_are_found_under_other_names(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(6))
    DatasetQuery.from_source(str(folder)).save("samples")
    query = DatasetQuery("samples").add_signals(level).add_signals(length)
    query.rename(grey="level", why="level_error", picture="image").filter(C.grey < 4).save("renamed")
    del query
    version = DatasetQuery("samples").add_signals(level, length).save("again")
    assert counts(version) == (8, 4)
    assert values(version, "level") == {f"k{i:03d}": i for i in range(6)}


def test_errors_that_may_go_away_are_tried_again(tmp_path: Path) -> None:
    @signal
    def service(image: bytes, caption: str) -> int:
        if down.exists():
            raise ConnectionError("no answer")
        return len(caption)

    down = tmp_path / "down"
    down.touch()
    folder = tmp_path / "t"
    samples = grey(5)
    samples["k001"] = (b"no picture at all", "caption 1")
    samples["k003"] = (picture(1)[:-40], "caption 3")
    write(folder / "a.tar", samples)
    first = make(folder, [level, service])
    assert counts(first) == (0, 10)
    assert values(first, "service_error") == dict.fromkeys(samples, "ConnectionError: no answer")
    down.unlink()
    second = make(folder, [level, service])
    assert counts(second) == (5, 5)  # what is no picture is none the second time
    assert values(second, "service") == dict.fromkeys(samples, 9)
    assert values(second, "service_error") == dict.fromkeys(samples)
    errors = {k: e and e.split(":")[0] for k, e in values(second, "level_error").items()}
    assert errors == {"k000": None, "k001": "UnidentifiedImageError", "k002": None, "k003": "OSError", "k004": None}
    with pytest.raises(SignalError, match="'level' failed at shard 'a', position 1, key 'k001'"):
        make(folder, [level, service], on_error="raise")


def test_storage_that_failed_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(5))
    DatasetQuery.from_source(str(folder)).save("samples")

    def unreachable(*args: object, **named: object) -> None:
        raise StoreError("the bucket does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(Store, "read_ranges", unreachable)
        version = DatasetQuery("samples").add_signals(level).save("measured")
        assert values(version, "level_error")["k000"] == "StoreError: the bucket does not answer"
    version = DatasetQuery("samples").add_signals(level).save("measured")
    assert counts(version) == (0, 5)
    assert values(version, "level") == {f"k{i:03d}": i for i in range(5)}


def test_equal_samples_and_equal_keys_do_no_harm(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()

    def tar(levels: Sequence[int]) -> None:
        with tarfile.open(folder / "a.tar", "w") as file:
            for i, one in enumerate(levels):
                add_member(file, "same.jpg", picture(one))
                add_member(file, "same.txt", b"same")
                add_member(file, f"other{i}.txt", b"same")
        os.utime(folder / "a.tar", ns=(len(levels) * 10**9, len(levels) * 10**9))

    def found(version: Version) -> list[Any]:
        rows = DatasetQuery(version).order_by("position").to_arrow()
        return [one for one in rows["level"].to_pylist() if one is not None]

    tar([4, 4, 9, 4])
    first = make(folder, [level, length])
    assert found(first) == [4, 4, 9, 4]
    assert sum(counts(first)) == 16
    tar([9, 4, 4, 9, 7])
    second = make(folder, [level, length])
    assert found(second) == [9, 4, 4, 9, 7]
    assert counts(second) == (20 - 1, 1)  # the 7 is new; what has no picture says so again


def test_shards_that_are_carried_into_more_columns_keep_their_values(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(4))
    write(folder / "b.tar", grey(4, 50))
    DatasetQuery.from_source(str(folder)).save("samples")
    other = signal(lambda image: 1, name="level", output=int, inputs={"image": bytes})
    DatasetQuery("samples").add_signals(other).save("measured")
    query = DatasetQuery("samples", shards=["a"]).add_signals(level, length)
    assert counts(query.save("measured", mode="overwrite_shards", schema_evolution=True)) == (0, 8)
    del query
    warehouse().execute("DROP TABLE measured.v1 SYNC")
    # shard b of v2 holds what the other signal computed
    version = DatasetQuery("samples").add_signals(level).save("whole")
    assert counts(version) == (4, 4)
    assert values(version, "level") == {f"k{i:03d}": i for i in (0, 1, 2, 3, 50, 51, 52, 53)}
    assert counts(DatasetQuery("samples", shards=["b"]).add_signals(other).save("ones")) == (4, 0)


def test_staged_values_follow_their_samples_to_other_rows(tmp_path: Path) -> None:
    folder = tmp_path / "t"
    write(folder / "a.tar", grey(12))
    DatasetQuery.from_source(str(folder)).save("samples")
    first = DatasetQuery("samples").limit(8).add_signals(level)
    assert first.count() == 8  # staged and not saved
    version = DatasetQuery("samples").offset(3).add_signals(level).save("later")
    assert counts(version) == (5, 4)
    assert values(version, "level") == {f"k{i:03d}": i for i in range(3, 12)}


def test_pointers_of_no_known_source_are_pinned_to_the_file_of_now(tmp_path: Path) -> None:
    path = tmp_path / "raw"
    path.write_bytes(picture(3) + picture(4))
    size = len(picture(3))
    pointer = pa.struct([("uri", pa.string()), ("offset", pa.uint64()), ("size", pa.uint64())])
    image = pa.array([{"uri": str(path), "offset": i * size, "size": size} for i in range(2)], pointer)
    rows = pa.table({"key": ["x", "y"], "image": image})
    query = DatasetQuery.from_arrow(rows).add_signals(level)
    assert query.to_arrow()["level"].to_pylist() == [3, 4]  # staged, not saved
    path.write_bytes(picture(3) + picture(8))
    os.utime(path, ns=(1, 1))
    version = DatasetQuery.from_arrow(rows).add_signals(level).save("raw")
    assert values(version, "level") == {"x": 3, "y": 8}


def test_what_is_remembered_goes_with_the_versions(tmp_path: Path) -> None:
    from factory_lib.warehouse.retention import sweep

    folder = tmp_path / "t"
    write(folder / "a.tar", grey(5))
    make(folder, [level])
    sweep(warehouse(), [])
    assert warehouse().scalar("SELECT count() FROM factory.contents") == 5
    write(folder / "a.tar", grey(6))
    assert counts(make(folder, [level])) == (5, 1)
    for name in ("samples", "measured"):
        warehouse().execute(f"DROP TABLE {name}.v1 SYNC")
        warehouse().execute(f"DROP TABLE {name}.v2 SYNC")
    sweep(warehouse(), [])
    assert warehouse().scalar("SELECT count() FROM factory.contents") == 0
