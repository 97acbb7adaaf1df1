"""Batches of a version: right samples, right values, even ranks, exact resume."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from factory_lib.errors import FileChanged, LoaderError, StoreError
from factory_lib.loading.dataset import BatchDataset, SampleDataset, to_torch
from factory_lib.loading.decode import decoder, fitted
from tests.loading_rows import jpeg, reader_of, write_shards

ROWS = 1000
BROKEN = {3, 4, 500}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """1,000 samples in ragged shards, one of them empty."""
    return write_shards(tmp_path_factory.mktemp("shards"), [300, 0, 480, 1, 219])


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The same with three samples that are no pictures."""
    return write_shards(
        tmp_path_factory.mktemp("broken"), [300, 480, 220], lambda n: b"no picture" if n in BROKEN else jpeg(n)
    )


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path))
    return tmp_path


def load(rows: pa.Table, **arguments) -> BatchDataset:
    arguments = {"members": ["image"], "columns": ["number"], "global_batch_size": 96, **arguments}
    return to_torch(reader_of(rows), "table-1", **arguments)


def numbers(dataset) -> list[int]:
    return [number for batch in dataset for number in batch["number"].tolist()]


def test_batches_hold_the_bytes_and_columns_of_each_sample(table):
    dataset = load(table, columns=["number", "caption"], decoders="raw")
    assert len(dataset) == 11
    seen = []
    for batch in dataset:
        data, offsets = batch["image"]["data"], batch["image"]["offsets"]
        assert (data.dtype, offsets.dtype, len(offsets)) == (torch.uint8, torch.int64, 97)
        for index, number in enumerate(batch["number"].tolist()):
            assert data[offsets[index] : offsets[index + 1]].numpy().tobytes() == jpeg(number)
            assert batch["caption"][index] == f"sample {number}"
        seen += batch["number"].tolist()
    assert set(seen) == set(range(ROWS))
    assert seen != sorted(seen)
    assert max(Counter(seen).values()) == 2
    assert len(seen) == 11 * 96  # the last batch is filled up with rows from the start
    assert seen[ROWS:] == seen[: len(seen) - ROWS] or set(seen[960:]) > set()


def test_pictures_are_decoded_and_stacked(table):
    batch = next(iter(load(table)))
    expected = [[n % 251, n // 251, 128] for n in batch["number"].tolist()]
    assert batch["image"].shape == (96, 32, 40, 3)
    assert batch["image"].dtype == torch.uint8
    assert batch["image"][:, 5, 7].tolist() == expected
    square = next(iter(load(table, image_size=16)))["image"]
    assert square.shape == (96, 16, 16, 3)
    assert square[:, 8, 8].tolist() == expected


@pytest.mark.parametrize("tail", ["repeat", "drop", "mask"])
def test_every_rank_gets_as_many_batches(table, tail):
    parts = [load(table, tail=tail, rank=rank, world_size=8) for rank in range(8)]
    batches = [list(part) for part in parts]
    assert {len(b) for b in batches} == {len(p) for p in parts} == {10 if tail == "drop" else 11}
    assert {len(batch["number"]) for b in batches for batch in b} == {12}
    if tail == "mask":
        counted = [n for b in batches for batch in b for n in batch["number"][batch["mask"]].tolist()]
        assert sorted(counted) == list(range(ROWS))


def test_unshuffled_is_storage_order(table):
    assert numbers(load(table, shuffle=False, tail="drop")) == list(range(960))


def test_worker_processes_make_the_same_batches(table):
    alone = load(table)
    workers = load(table, num_workers=2)
    first = [batch["number"].tolist() for batch in alone]
    assert [batch["number"].tolist() for batch in workers] == first
    second = [batch["number"].tolist() for batch in alone]
    assert second != first
    images = list(workers)
    assert [batch["number"].tolist() for batch in images] == second
    assert all(torch.equal(b["image"][:, 0, 0, 0], (b["number"] % 251).to(torch.uint8)) for b in images)
    assert workers.counters["samples"] == 2 * 11 * 96


@pytest.mark.parametrize("workers", [0, 2])
def test_resume_counts_what_was_delivered(table, workers):
    whole = [batch["number"].tolist() for batch in load(table, seed=3)]
    before = load(table, seed=3, num_workers=workers)
    seen = []
    for batch in before:
        seen.append(batch["number"].tolist())
        if len(seen) == 4:
            state = before.state_dict()
            break
    after = load(table, seed=3, num_workers=2 - workers)
    after.load_state_dict(state)
    assert len(after) == 7
    assert seen + [batch["number"].tolist() for batch in after] == whole
    assert len(after) == 11
    assert after.state_dict()["epoch"] == 1


def test_resume_at_other_world_sizes_is_exact(table):
    state = load(table, tail="drop").state_dict()
    seen: list[int] = []
    for world, steps in ((8, 3), (4, 2), (16, 4), (1, 1)):
        states = []
        for rank in range(world):
            part = load(table, tail="drop", rank=rank, world_size=world)
            part.load_state_dict(state)
            for step, batch in enumerate(part, start=1):
                seen += batch["number"].tolist()
                if step == steps:
                    states.append(part.state_dict())
                    break
        state = states[0]
        assert all(other == state for other in states)
    assert len(seen) == len(set(seen)) == 960


def test_a_state_of_pictures_that_were_seen_otherwise_is_refused(table, monkeypatch):
    state = load(table).state_dict()
    monkeypatch.setenv("FACTORY_AS_STORED", "alpha,orientation")
    with pytest.raises(LoaderError, match=r"as_stored=\[\], this loader has \['alpha', 'orientation'\]"):
        load(table).load_state_dict(state)


@pytest.mark.parametrize("wanted", [{"transform": np.asarray}, {"image_size": 8}])
def test_what_is_for_pictures_is_refused_where_none_is_decoded(table, wanted):
    with pytest.raises(LoaderError, match=f"{next(iter(wanted))} is for pictures, and none is decoded.*image"):
        load(table, decoders="raw", **wanted)
    with pytest.raises(LoaderError, match="no members"):
        load(table, members=[], **wanted)


def test_a_state_of_other_rows_or_another_order_is_refused(table):
    state = load(table).state_dict()
    with pytest.raises(LoaderError, match=r"seed=0.*has 1"):
        load(table, seed=1).load_state_dict(state)
    with pytest.raises(LoaderError, match="decoders"):
        load(table, decoders="raw").load_state_dict(state)
    other = to_torch(reader_of(table), "table-2", members=["image"], global_batch_size=96)
    with pytest.raises(LoaderError, match="table-1"):
        other.load_state_dict(state)


def test_set_epoch_chooses_and_keeps_a_loaded_position(table):
    dataset = load(table)
    epochs = [numbers(dataset) for _ in range(3)]
    dataset.set_epoch(1)
    assert numbers(dataset) == epochs[1]
    dataset.load_state_dict({**dataset.state_dict(), "epoch": 2, "samples": 96})
    dataset.set_epoch(2)
    assert numbers(dataset) == epochs[2][96:]


def test_broken_samples_are_replaced_from_their_window_and_counted(broken):
    dataset = load(broken, rank=1, world_size=2, num_workers=1)
    both = [numbers(load(broken, rank=0, world_size=2)), numbers(dataset)]
    assert len(both[0]) == len(both[1])
    assert not BROKEN & set(both[0] + both[1])
    again = load(broken, rank=1, world_size=2)
    assert numbers(again) == both[1]
    assert again.counters["substituted"] == dataset.counters["substituted"]
    whole = load(broken, tail="mask", global_batch_size=100)  # nothing comes twice
    counted = [n for batch in whole for n in batch["number"][batch["mask"]].tolist()]
    assert sorted(counted) == sorted(set(range(ROWS)) - BROKEN)
    assert whole.counters["substituted"] == 3


def test_broken_samples_raise_where_asked(broken):
    with pytest.raises(LoaderError, match=r"byte \d+ of .*00000\.tar.* is broken"):
        list(load(broken, shuffle=False, on_error="raise"))


def test_nothing_but_broken_samples_is_an_error(tmp_path):
    rows = write_shards(tmp_path / "bad", [5], lambda n: b"bad")
    with pytest.raises(LoaderError, match="image_header"):
        list(load(rows))


def test_missing_members_are_replaced_too(table):
    images = table.column("image").to_pylist()
    images[7] = {"uri": "", "offset": 0, "size": 0}
    holed = table.set_column(1, "image", pa.array(images, table.schema.field("image").type))
    for arguments in ({}, {"decoders": "raw"}):
        dataset = load(holed, **arguments)
        assert 7 not in numbers(dataset)
        assert dataset.counters["substituted"] == 1


def test_columns_become_what_models_take(table):
    count = table.num_rows
    extra = {
        "score": pa.array([None if i == 3 else i / 2 for i in range(count)], pa.float32()),
        "vector": pa.array([[i, i + 1.0] for i in range(count)], pa.list_(pa.float32(), 2)),
        "tags": pa.array([[1] * (i % 3) for i in range(count)]),
        "flag": pa.array([i % 2 == 0 for i in range(count)]),
        "label": pa.array(["even" if i % 2 == 0 else None for i in range(count)]).dictionary_encode(),
        "size": pa.array([{"width": i, "height": 2 * i} for i in range(count)]),
        "raw": pa.array([b"x" * (i % 4) for i in range(count)]),
        "day": pa.array(range(count), pa.date32()),
        "identity": pa.array([2**64 - 1 - i for i in range(count)], pa.uint64()),
    }
    rows = table
    for name, values in extra.items():
        rows = rows.append_column(name, values)
    batch = next(iter(load(rows, members=[], columns=["number", *extra], shuffle=False)))
    assert torch.isnan(batch["score"][3])
    assert batch["score"][4] == 2.0
    assert batch["vector"].tolist() == [[i, i + 1.0] for i in range(96)]
    assert batch["tags"]["offsets"].tolist() == np.cumsum([0, *(i % 3 for i in range(96))]).tolist()
    assert batch["flag"].dtype == torch.bool
    assert batch["label"][:2] == ["even", None]
    assert batch["size"]["height"].tolist() == [2 * i for i in range(96)]
    assert batch["raw"]["data"].tolist() == [120] * sum(i % 4 for i in range(96))
    assert batch["day"].tolist() == list(range(96))
    assert [int(x) for x in batch["identity"][:2].tolist()] == [2**64 - 1, 2**64 - 2]


def test_nulls_that_no_tensor_can_hold_name_their_column(table):
    rows = table.append_column("year", pa.array([None, *range(ROWS - 1)], pa.int32()))
    with pytest.raises(LoaderError, match=r"'year'.*1 nulls.*ifNull"):
        list(load(rows, columns=["year"], shuffle=False))


def test_hooks_run_in_the_workers(table):
    dataset = load(
        table,
        columns=["number", "caption"],
        num_workers=1,
        transform=lambda picture: torch.rand(3) + picture.getpixel((0, 0))[0],
        tokenizer=lambda texts: {"input_ids": torch.tensor([[int(text.split()[1])] for text in texts])},
        collate=lambda batch: {**batch, "process": os.getpid()},
    )
    batches = list(dataset)
    assert batches[0]["process"] != os.getpid()
    assert all(batch["input_ids"][:, 0].tolist() == batch["number"].tolist() for batch in batches)
    whole = batches[0]["image"]
    assert whole.floor().long()[:, 0].tolist() == (batches[0]["number"] % 251).tolist()
    assert len(torch.unique(whole - whole.floor())) > 250  # each sample has its own random numbers
    parts = [
        next(iter(load(table, rank=rank, world_size=4, transform=lambda p: torch.rand(3) + p.getpixel((0, 0))[0])))
        for rank in range(4)
    ]
    assert torch.equal(torch.cat([part["image"] for part in parts]).sort(0).values, whole.sort(0).values)


def test_a_transform_that_fails_is_no_broken_sample(table):
    with pytest.raises(LoaderError, match=r"transform failed on sample .*ZeroDivisionError"):
        list(load(table, transform=lambda picture: 1 / 0))


def test_transforms_leave_the_random_state_of_the_script_alone(table):
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    iterator = iter(load(table, transform=lambda picture: torch.rand(1)))
    first = torch.rand(1)
    next(iterator)
    assert torch.equal(torch.cat([first, torch.rand(1)]), expected)


def test_around_it_a_plain_dataloader_changes_nothing(table):
    expected = [batch["number"].tolist() for batch in load(table)]
    dataset = load(table)
    outer = DataLoader(dataset, batch_size=None)
    assert len(outer) == 11
    for step, batch in enumerate(outer):
        assert batch["number"].tolist() == expected[step]
        assert dataset.state_dict()["samples"] == (step + 1) * 96 or step == 10
    inside = load(table)
    outer = DataLoader(inside, batch_size=None, num_workers=2)
    assert [batch["number"].tolist() for batch in outer] == expected
    with pytest.raises(LoaderError, match="num_workers"):
        inside.state_dict()
    assert inside.state_dict(batches=3)["samples"] == 288


def test_small_versions_by_row_number(table):
    dataset = load(table, map_style=True, columns=["number", "caption"])
    assert isinstance(dataset, SampleDataset)
    assert len(dataset) == ROWS
    assert dataset[-1]["caption"] == "sample 999"
    assert dataset[5]["image"].shape == (32, 40, 3)
    loader = DataLoader(dataset, batch_size=50, shuffle=True)
    assert sorted(n for batch in loader for n in batch["number"].tolist()) == list(range(ROWS))
    raw = load(table, map_style=True, decoders="raw")
    assert raw[12]["image"].numpy().tobytes() == jpeg(12)
    with pytest.raises(IndexError):
        dataset[ROWS]


@pytest.mark.parametrize(("change", "match"), [("truncate", "overwritten"), ("replace", "overwritten"), ("delete", "")])
def test_a_shard_changed_since_is_an_error_that_names_it(tmp_path, change, match):
    rows = write_shards(tmp_path / "shards", [50, 50])
    dataset = load(rows, global_batch_size=10)
    next(iter(dataset))
    shard = tmp_path / "shards" / "00001.tar"
    if change == "truncate":
        os.truncate(shard, 2000)
    elif change == "replace":
        shard.write_bytes(bytes(shard.stat().st_size))
    else:
        shard.unlink()
    fresh = load(rows, global_batch_size=10)
    with pytest.raises(StoreError if change == "delete" else FileChanged, match=rf"00001\.tar.*{match}"):
        list(fresh)


def test_etags_of_the_ingest_refuse_a_file_replaced_before_loading(tmp_path):
    rows = write_shards(tmp_path / "shards", [50])
    uri = rows.column("image")[0]["uri"].as_py()
    with pytest.raises(FileChanged, match=r"00000\.tar"):
        list(load(rows, etags={uri: "another"}))


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_workers_start_by_any_method_and_know_no_warehouse(table, method):
    dataset = load(
        table,
        num_workers=1,
        start_method=method,
        collate=lambda batch: {**batch, "modules": sorted(sys.modules)},
    )
    batch = next(iter(dataset))
    assert set(batch["number"].tolist()) == set(next(iter(load(table)))["number"].tolist())
    if method != "fork":
        loaded = {name.split(".")[0] for name in batch["modules"]}
        assert not loaded & {"dagster", "clickhouse_connect", "chdb", "transformers", "pandas"}
        assert not any(name.startswith("factory_lib.warehouse") for name in batch["modules"])


def test_a_killed_worker_is_replaced(table):
    expected = numbers(load(table))

    def once(batch: dict, mark: str) -> dict:
        if len(os.listdir(mark)) == 4:
            Path(mark, "killed").touch()
            os.kill(os.getpid(), 9)
        Path(mark, str(batch["number"][0].item())).touch()
        return batch

    mark = os.environ["FACTORY_HOME"] + "/mark"
    os.mkdir(mark)
    dataset = load(table, num_workers=1, collate=lambda batch: once(batch, mark))
    assert numbers(dataset) == expected
    assert dataset.counters["restarted_workers"] == 1


def test_rank_comes_from_arguments_the_environment_or_torch(table, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert load(table).rank == (1, 4)
    assert load(table, rank=0, world_size=2).rank == (0, 2)
    with pytest.raises(LoaderError, match="Ranks are 0 to 1"):
        len(next(iter(load(table, rank=2, world_size=2))))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    try:
        assert load(table).rank == (0, 1)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"columns": ["numbr"]}, "Did you mean 'number'"),
        ({"members": ["imge"]}, "Did you mean 'image'"),
        ({"members": ["number"]}, "not a member"),
        ({"tail": "dorp"}, "Did you mean 'drop'"),
        ({"global_batch_size": 0}, "at least 1"),
        ({"decoders": {"img": "raw"}}, "Did you mean 'image'"),
        ({"decoders": "pilow"}, "Known: pillow"),
        ({"tokenizer": str.split}, "one text column"),
        ({"columns": ["caption"], "tokenizer": {"captions": str.split}}, "Did you mean 'caption'"),
    ],
)
def test_wrong_arguments_name_the_nearest_right_ones(table, arguments, match):
    with pytest.raises(LoaderError, match=match):
        load(table, **arguments)


def test_no_rows_is_an_error(table):
    with pytest.raises(LoaderError, match="no rows"):
        load(table.slice(0, 0))


def test_import_is_light():
    """The order and the index load neither torch nor the warehouse."""
    code = "import sys, factory_lib.loading.order; print('torch' in sys.modules, 'clickhouse_connect' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_when_the_training_is_killed(tmp_path, method):
    script = tmp_path / "train.py"
    script.write_text(TRAINING.format(method=method))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    training = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=environment)
    assert training.stdout is not None
    workers = [int(pid) for pid in training.stdout.readline().split()]
    assert len(workers) == 2
    training.kill()
    training.wait()
    assert training.stdout.read() == ""  # ends when the last process that has it open does


TRAINING = """
import multiprocessing, os, time
import pyarrow as pa
from factory_lib.loading.dataset import to_torch

def main():
    rows = pa.table({{"shard": ["a"] * 50, "number": range(50)}})
    dataset = to_torch(rows.to_reader, "x", columns=["number"], global_batch_size=5, num_workers=2,
        start_method="{method}", collate=lambda batch: os.getpid())
    steps = iter(dataset)
    print(next(steps), next(steps), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    main()
"""


def test_a_loader_that_is_dropped_leaves_nothing_open(table):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert len(next(iter(load(table)))["number"]) == 96
    assert len(os.listdir("/proc/self/fd")) <= before + 1


@pytest.mark.parametrize("size", [(384, 384), (301, 200), (200, 333), (64, 64), (40, 50)])
@pytest.mark.parametrize("kind", ["pillow", "simplejpeg"])
def test_pictures_are_scaled_as_pillow_scales_them(size, kind):
    pytest.importorskip("simplejpeg")
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 4, size[0] // 4, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC).save(out, "PNG")
    picture = decoder(kind, 64)(memoryview(out.getvalue()))
    side, (left, top) = min(size), ((size[0] - min(size)) // 2, (size[1] - min(size)) // 2)
    cropped = Image.open(out).crop((left, top, left + side, top + side))
    expected = np.asarray(cropped.resize((64, 64), Image.Resampling.BILINEAR)).astype(int)
    scaled = torch.zeros((64, 64, 3), dtype=torch.uint8)
    fitted(picture, scaled)
    assert np.abs(scaled.numpy().astype(int) - expected).max() <= 1
