"""The engine: tasks, reads, worker processes, and what happens to samples and processes that fail."""

from __future__ import annotations

import os
import subprocess
import time
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from factory_lib.compute import pool, reading, run
from factory_lib.compute.run import compute
from factory_lib.errors import SignalError
from factory_lib.signals import Member, Vector, signal
from factory_lib.signals.hashes import dhash, phash, sha256
from factory_lib.signals.image import image_header
from factory_lib.storage.store import store
from tests.s3 import Bucket
from tests.signal_rows import POINTER, jpeg, no_workers_left, packed, process_id, red, small_tasks, table, words

__all__ = ["no_workers_left", "small_tasks"]


MIXED = [jpeg(0), b"no image", None, jpeg(3)[:40], b"", jpeg(5)]


def test_values_and_errors_in_this_process(tmp_path: Path) -> None:
    rows = packed(tmp_path / "a", MIXED)
    found = table(compute([red, words], [rows]))
    assert found.column_names == ["shard", "position", "sample_id", "red", "red_error", "words", "words_error"]
    assert found["sample_id"].to_pylist() == list(range(1000, 1006))
    assert found["red"].to_pylist() == [0, None, None, None, None, 5]
    unknown = "UnidentifiedImageError: cannot identify image file"
    errors = found["red_error"].to_pylist()
    assert errors[:3] == [None, unknown, "no image"]
    assert errors[3] is not None
    assert errors[4:] == [unknown, None]
    assert found["words"].to_pylist() == [0, 1, 2, None, 4, 5]
    assert found["words_error"].to_pylist() == [None, None, None, "no caption", None, None]
    assert found.schema.field("red").type == pa.int64()
    assert run.output_schema([red, words]) == found.schema.remove(0).remove(0).remove(0)


def test_processes_give_what_this_process_gives(tmp_path: Path, small_tasks: None) -> None:
    rows = packed(tmp_path / "a", [*MIXED, *map(jpeg, range(60))])
    signals = [red, phash, dhash, sha256, image_header, words]
    assert table(compute(signals, [rows], workers=2)) == table(compute(signals, [rows], workers=1))
    found = table(compute([process_id], [rows], workers=2))
    ids = Counter(found["process_id"].to_pylist())
    assert os.getpid() not in ids
    assert len([one for one in ids if one]) == 2


def test_processes_are_kept_for_the_next_computation(tmp_path: Path, small_tasks: None) -> None:
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(40)])
    first = set(table(compute([process_id], [rows], workers=2))["process_id"].to_pylist())
    assert pool.warm_workers() == 2
    assert set(table(compute([process_id], [rows], workers=2))["process_id"].to_pylist()) <= first
    pool.stop_workers()
    assert pool.warm_workers() == 0


def test_few_rows_and_one_worker_start_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", None)
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(20)])
    assert set(table(compute([process_id], [rows], workers=4))["process_id"].to_pylist()) == {os.getpid()}
    monkeypatch.setattr(run, "SMALL_ROWS", 0)
    assert set(table(compute([process_id], [rows], workers=1))["process_id"].to_pylist()) == {os.getpid()}
    assert table(compute([words], [rows], workers=4)).num_rows == 20


def test_signals_of_columns_move_to_processes_when_they_take_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LIGHT_SECONDS", 0.0)
    monkeypatch.setattr(run, "LIGHT_TASK_ROWS", 5)
    where = signal(
        lambda caption: os.getpid(), name="where_it_ran", output=int, inputs={"caption": (("caption", int | None))}
    )
    rows = packed(tmp_path / "a", [None] * 20)
    ids = table(compute([where], [rows], workers=2))["where_it_ran"].to_pylist()
    assert ids[:5] == [os.getpid()] * 5
    assert os.getpid() not in ids[5:]


def test_a_member_is_read_and_decoded_once_for_all_signals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(10)])
    decoded: list[Any] = []
    ranges: list[int] = []
    load, read = Image.open, type(store()).read_ranges

    def counted(*args: Any, **kwargs: Any) -> Any:
        decoded.append(1)
        return load(*args, **kwargs)

    def planned(self: Any, uri: str, wanted: Any, **kwargs: Any) -> Any:
        ranges.append(len(wanted))
        return read(self, uri, wanted, **kwargs)

    monkeypatch.setattr(Image, "open", counted)
    monkeypatch.setattr(type(store()), "read_ranges", planned)
    found = table(compute([red, phash, dhash, sha256, red.named("again")], [rows], workers=1))
    assert found["again"].to_pylist() == list(range(10))
    assert len(decoded) == 10
    assert ranges == [10]


def test_tasks_are_cut_by_rows_and_bytes_and_small_batches_are_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = packed(tmp_path / "a", [b"x" * 10] * 25)
    plan = reading.ReadPlan.of([sha256], rows.schema)
    assert plan.columns == ("shard", "position", "sample_id", "key", "image")
    pieces = [rows.slice(start, 3) for start in range(0, 25, 3)]
    assert [task.num_rows for task in reading.tasks(pieces, plan, 8)] == [8, 8, 8, 1]
    assert [task.num_rows for task in reading.tasks([rows], plan, 100)] == [25]
    large = packed(tmp_path / "b", [b"x" * 10_000] * 25)
    monkeypatch.setattr(reading, "TASK_BYTES", 45_000)  # four members and the columns of their rows
    assert [task.num_rows for task in reading.tasks([large], plan, 8)] == [4, 4, 4, 4, 4, 4, 1]


def test_ordered_results_keep_the_order_of_the_rows(tmp_path: Path, small_tasks: None) -> None:
    @signal
    def slow_start(image: bytes, key: str) -> str:
        if key == "key0000":
            time.sleep(0.5)
        return key

    rows = packed(tmp_path / "a", [jpeg(number) for number in range(80)])
    found = pa.Table.from_batches(compute([slow_start], [rows], workers=2, ordered=True))
    assert found["slow_start"].to_pylist() == [f"key{number:04d}" for number in range(80)]


def test_progress_counts_rows(tmp_path: Path, small_tasks: None) -> None:
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(20)])
    for workers in (1, 2):
        done: list[int] = []
        table(compute([red], [rows], workers=workers, progress=done.append))
        assert sum(done) == 20
        assert len(done) == 3


class Pair(NamedTuple):
    low: int
    high: int


def test_values_of_a_wrong_type_are_errors_of_their_sample(tmp_path: Path) -> None:
    @signal
    def sometimes_text(position: int) -> int:
        return "three" if position == 3 else position  # type: ignore[return-value]

    @signal(output=Vector(2))
    def sometimes_long(position: int) -> Any:
        return [[3, 4], [1, 2, 3], [0, 0], None, [float("inf"), 1], [1, 0]][position]

    @signal
    def pairs(position: int) -> Pair:
        return (1, 2) if position == 1 else Pair(position, 2**70 if position == 2 else 0)  # type: ignore[return-value]

    found = table(compute([sometimes_text, sometimes_long, pairs], [packed(tmp_path / "a", MIXED)]))
    assert found["sometimes_text"].to_pylist() == [0, 1, 2, None, 4, 5]
    assert "three" in found["sometimes_text_error"][3].as_py()
    assert [len(vector) for vector in found["sometimes_long"].to_pylist()] == [2, 0, 0, 0, 0, 2]
    errors = found["sometimes_long_error"].to_pylist()
    assert [error and error.split(":")[0] for error in errors] == [
        None,
        "ValueError",
        "ValueError",
        None,
        "ValueError",
        None,
    ]
    assert found["pairs"][0].as_py() == {"low": 0, "high": 0}
    assert [error is not None for error in found["pairs_error"].to_pylist()] == [False, True, True, False, False, False]


def test_errors_are_short_on_one_line_and_the_same_every_time(tmp_path: Path) -> None:
    @signal
    def talkative(position: int) -> int:
        raise RuntimeError(f"{object()} at 0x7f0012345678\n" + "much to say " * 100)

    @signal
    def silent(position: int) -> int:
        raise KeyError

    rows = packed(tmp_path / "a", [None])
    (text,) = table(compute([talkative], [rows]))["talkative_error"].to_pylist()
    assert text == table(compute([talkative], [rows]))["talkative_error"][0].as_py()
    assert text.startswith("RuntimeError: much to say")
    assert "\n" not in text
    assert len(text) == 300
    assert table(compute([silent], [rows]))["silent_error"].to_pylist() == ["KeyError"]


def test_on_error_raise_names_the_sample(tmp_path: Path, small_tasks: None) -> None:
    rows = packed(tmp_path / "a", [*map(jpeg, range(30)), b"broken"], shard="s7")
    for workers in (1, 2):
        with pytest.raises(SignalError, match=r"'red' failed at shard 's7', position 30, key 'key0030': Unidentified"):
            table(compute([red], [rows], workers=workers, on_error="raise"))
    with pytest.raises(SignalError, match="on_error='stop' is not known"):
        table(compute([red], [rows], on_error="stop"))  # type: ignore[arg-type]


def test_columns_that_are_missing_or_no_pointers_are_told(tmp_path: Path) -> None:
    rows = packed(tmp_path / "a", MIXED)
    with pytest.raises(SignalError, match=r"reads the column 'captoin'.*Did you mean 'caption'"):
        table(compute([words.reading(caption="captoin")], [rows]))
    with pytest.raises(SignalError, match="points at, but that column is string"):
        table(compute([sha256.reading(image="caption")], [rows]))
    with pytest.raises(SignalError, match="Two signals are named 'red'"):
        table(compute([red, red], [rows]))
    with pytest.raises(SignalError, match="No signals"):
        table(compute([], [rows]))
    assert list(compute([red], [])) == []


def test_a_missing_file_and_a_short_one_fail_their_samples_alone(tmp_path: Path) -> None:
    good = packed(tmp_path / "good", [jpeg(1), jpeg(2)], "a")
    gone = packed(tmp_path / "gone", [jpeg(3), jpeg(4)], "b")
    short = packed(tmp_path / "short", [jpeg(5), jpeg(6)], "c")
    (tmp_path / "gone").unlink()
    os.truncate(tmp_path / "short", len(jpeg(5)) + 10)
    found = table(compute([red], [good, gone, short]))
    assert found["red"].to_pylist() == [1, 2, None, None, 5, None]
    errors = found["red_error"].to_pylist()
    assert errors[2].startswith("FileMissing: ")
    assert errors[2] == errors[3]
    assert errors[5].startswith("StoreError: ")
    assert "ends before this sample does" in errors[5]


def test_reads_are_pinned_to_the_etag_of_ingest(tmp_path: Path) -> None:
    rows = packed(tmp_path / "a", [jpeg(1), jpeg(2)])
    uri = str(tmp_path / "a")
    etag = store().info(uri).etag
    assert table(compute([red], [rows], etags={uri: etag}))["red"].to_pylist() == [1, 2]
    packed(tmp_path / "a", [jpeg(3), jpeg(4)])
    os.utime(uri, ns=(1, 1))
    changed = table(compute([red], [rows], etags={uri: etag}))
    assert changed["red"].to_pylist() == [None, None]
    assert changed["red_error"][0].as_py().startswith("FileChanged: ")


def test_batches_get_lists_arrays_and_what_was_prepared(tmp_path: Path) -> None:
    @signal(batch=4)
    def sizes(image: list[Image.Image], caption: list[str | None]) -> list[int]:
        assert len(image) == len(caption) <= 4
        return [one.width + len(text or "") for one, text in zip(image, caption, strict=True)]

    @signal(output=int, batch=100)
    def doubled(position: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        assert isinstance(position, np.ndarray)
        return position * 2

    @signal(output=np.uint32, batch=True)
    def as_arrow(position: pa.Array) -> pa.Array:
        assert isinstance(position, pa.Array)
        return position

    @signal(output=Vector(2, unit=False), batch=3)
    class Prepared:
        def setup(self) -> None:
            self.calls = 0

        def prepare(self, image: Image.Image) -> float:
            return float(image.size[0])

        def __call__(self, prepared: list[float]) -> Any:
            self.calls += 1
            return np.array([[width, len(prepared)] for width in prepared])

    rows = packed(tmp_path / "a", [*map(jpeg, range(8)), b"bad"])
    found = table(compute([sizes, doubled, as_arrow, Prepared], [rows]))
    assert found["sizes"].to_pylist()[:4] == [16, 16 + 5, 16 + 10, 16]
    assert found["sizes_error"].null_count == 8
    assert found["doubled"].to_pylist() == list(range(0, 18, 2))
    assert found["as_arrow"].to_pylist() == list(range(9))
    assert found["prepared"].to_pylist() == [[16, 3]] * 6 + [[16, 2]] * 2 + [[]]


def test_a_bad_sample_fails_alone_in_its_batch(tmp_path: Path) -> None:
    @signal(batch=8)
    def picky(position: list[int]) -> list[int]:
        if 5 in position:
            raise ValueError("five")
        return position

    polite = signal(
        lambda position: [ValueError("six") if one == 6 else one for one in position],
        name="polite",
        output=int,
        batch=8,
    )

    @signal(batch=8)
    def forgetful(position: list[int]) -> list[int]:
        return position[1:]

    rows = packed(tmp_path / "a", [None] * 10)
    found = table(compute([picky, polite, forgetful], [rows]))
    assert found["picky"].to_pylist() == [0, 1, 2, 3, 4, None, 6, 7, 8, 9]
    assert found["picky_error"][5].as_py() == "ValueError: five"
    assert found["polite"].to_pylist() == [0, 1, 2, 3, 4, 5, None, 7, 8, 9]
    assert found["polite_error"][6].as_py() == "ValueError: six"
    assert found["forgetful_error"][0].as_py() == "ValueError: a batch of 1 samples gave 0 values"


def test_vector_columns_arrive_as_matrices(tmp_path: Path) -> None:
    norm = signal(
        lambda clip: np.linalg.norm(clip, axis=1), name="norm", output=float, batch=True, inputs={"clip": np.ndarray}
    )
    single = signal(lambda clip: float(clip.sum()), name="single", output=float, inputs={"clip": np.ndarray})
    vectors = pa.array([[3.0, 4.0], None, [6.0, 8.0]], pa.list_(pa.float32()))
    rows = packed(tmp_path / "a", [None] * 3).append_column("clip", vectors)
    found = table(compute([norm, single], [rows]))
    assert found["norm"].to_pylist() == [5.0, None, 10.0]
    assert found["norm_error"].to_pylist() == [None, "no clip", None]
    assert found["single"].to_pylist() == [7.0, None, 14.0]


def test_a_picture_that_ends_early_is_an_error_unless_asked_for(tmp_path: Path) -> None:
    buffer = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG")
    rows = packed(tmp_path / "a", [buffer.getvalue()[:-600]])
    kept = signal(lambda image: image.width, name="kept", output=int, inputs={"image": Image.Image}, truncated=True)
    found = table(compute([red, kept], [rows]))
    assert found["red_error"][0].as_py().startswith("OSError: image file is truncated")
    assert found["kept"].to_pylist() == [64]


def test_pillows_remarks_stay_out_of_the_log_and_the_users_do_not(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    @signal
    def remarks(image: Image.Image) -> int:
        warnings.warn("mine", UserWarning, stacklevel=1)
        return 1

    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)  # 192 pixels: a remark; more than 300 would be an error
    rows = packed(tmp_path / "a", [jpeg(1)])
    assert table(compute([remarks], [rows]))["remarks"].to_pylist() == [1]
    assert [str(one.message) for one in recwarn.list] == ["mine"]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)
    (error,) = table(compute([remarks], [rows]))["remarks_error"].to_pylist()
    assert error.startswith("DecompressionBombError: ")


def test_signals_over_s3(s3: Bucket, tmp_path: Path, small_tasks: None) -> None:
    rows = packed(tmp_path / "a", [jpeg(number) for number in range(40)])
    uri = s3.put("pool/a.tar", (tmp_path / "a").read_bytes())
    place = rows.schema.get_field_index("image")
    pointers = [pointer | {"uri": uri} for pointer in rows.column(place).to_pylist()]
    remote = rows.set_column(place, "image", pa.array(pointers, POINTER))
    assert table(compute([red], [remote], workers=2))["red"].to_pylist() == list(range(40))
    assert red.one(s3.put("one.png", jpeg(77))) == 77


def test_a_member_made_of_a_picture_has_its_header() -> None:
    member = Member(b"", picture=Image.new("L", (3, 2)))
    assert (member.header().width, member.header().height, member.mode) == (3, 2, "L")
    assert member.picture().mode == "RGB"
