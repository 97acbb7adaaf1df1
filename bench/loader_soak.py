"""Trains in random ways and checks what arrives: ``python -m bench.loader_soak --cases 2000``.

A case draws a version (ragged shards, a filter), how it is loaded (one version, a mix, buckets; batch size, tail,
seed), and a life of the training: stretches at other world sizes and numbers of workers, epochs that end early, resumes
from the state. Against the definition, not against the loader: every row comes once an epoch, every sample has the
bytes that lie in its tar, all ways see equal batches in equal order.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from factory_lib.loading.dataset import BatchDataset, to_torch
from factory_lib.loading.mixing import mix
from tests.loading_rows import reader_of, write_shards

WORLDS, WORKERS = (1, 2, 3, 4, 8), (0, 1, 2, 5)
Row = tuple[int, int]
"""(source, number) of a sample."""


def content(number: int) -> bytes:
    """The bytes of a sample; some are empty."""
    return b"%d " % number * (number % 5)


@dataclass(frozen=True)
class Case:
    """One training.

    Attributes:
        sizes: rows of the versions; several are mixed.
        share: of the rows that a filter keeps.
        stretches: (world size, workers, batches) between resumes.
    """

    number: int
    sizes: tuple[int, ...]
    share: float
    batch: int
    tail: str
    seed: int
    buckets: bool
    stretches: tuple[tuple[int, int, int], ...]


def case_of(number: int, workers: tuple[int, ...] = WORKERS) -> Case:
    """The case with a number; always the same one."""
    draw = random.Random(number)
    mixed = draw.random() < 0.3
    sizes = tuple(draw.randint(30, 400) for _ in range(draw.randint(2, 4) if mixed else 1))
    stretches = [(draw.choice(WORLDS), draw.choice(workers), draw.randint(0, 12)) for _ in range(draw.randint(1, 5))]
    return Case(
        number=number,
        sizes=sizes,
        share=draw.choice([1.0, 1.0, 0.6, 0.2]),
        batch=draw.choice([8, 10, 24, 48, 96]),
        tail=draw.choice(["repeat", "drop"] if mixed else ["repeat", "drop", "mask"]),
        seed=draw.randint(0, 10**9),
        buckets=not mixed and draw.random() < 0.2,
        stretches=tuple(stretches),
    )


def run(case: Case, folder: Path) -> int:
    """Live through a case; the number of batches that were checked.

    Raises:
        AssertionError: something arrived that must not, or not what must.
    """
    tables = [_table(case, folder / str(source), size) for source, size in enumerate(case.sizes)]

    def load(rank: int = 0, world: int = 1, workers: int = 0) -> BatchDataset:
        options: dict[str, Any] = {"members": ["image"], "decoders": "raw", "columns": ["number", "tags", "vector"]}
        if case.buckets:
            options["buckets"] = [(8, 8), (8, 16)]
        options |= {"global_batch_size": case.batch, "seed": case.seed, "tail": case.tail, "start_method": "fork"}
        options |= {"rank": rank, "world_size": world, "num_workers": workers, "progress": False, "cache": None}
        name = f"soak-{case.number}"
        found = [to_torch(reader_of(table), f"{name}-{i}", **options) for i, table in enumerate(tables)]
        one = [dataset for dataset in found if isinstance(dataset, BatchDataset)]
        return one[0] if len(one) == 1 else mix(one, [1.0 + 3 * i for i in range(len(one))], seed=case.seed)

    epochs: dict[int, list[Counter[Row]]] = {}

    def expected(epoch: int) -> list[Counter[Row]]:
        if epoch not in epochs:
            whole = load()
            whole.set_epoch(epoch)
            epochs[epoch] = [Counter(rows_of(batch)) for batch in whole]
        return epochs[epoch]

    if len(tables) == 1:
        _check_epoch(case, tables[0], load())
    state = load().state_dict()
    checked = 0
    for most, workers, batches in case.stretches:
        world = min(most, case.batch)
        states = []
        seen: list[list[Counter[Row]]] = []
        for rank in range(world):
            dataset = load(rank, world, workers)
            dataset.load_state_dict(state)
            seen.append(_taken(dataset, batches, rows_of))
            states.append(dataset.state_dict())
            dataset.close()
        assert all(other == states[0] for other in states), "ranks disagree on where they are"
        epoch, samples = int(state["epoch"]), int(state["samples"])
        together = [sum(parts, Counter()) for parts in zip(*seen, strict=True)]
        rest = expected(epoch)[samples // case.batch :]
        if not rest:
            rest = expected(epoch + 1)
        assert together == rest[:batches], "batches differ from those of an undisturbed training"
        checked += len(together)
        state = {**states[0], "world_size": 1}
        if samples and batches > len(together):
            assert not state["samples"], "an epoch that was gone through is over"
    return checked


def rows_of(batch: dict[str, Any]) -> list[Row]:
    """The samples of a batch, each one's bytes and columns checked."""
    data, offsets = batch["image"]["data"].numpy().tobytes(), batch["image"]["offsets"].tolist()
    numbers = [int(n) for n in batch["number"]]
    sources = batch["source"].tolist() if "source" in batch else [0] * len(numbers)
    vectors, ends = batch["vector"]["data"].tolist(), batch["vector"]["offsets"].tolist()
    for index, number in enumerate(numbers):
        assert data[offsets[index] : offsets[index + 1]] == content(number)
        assert batch["tags"][index] == tags_of(number)
        assert vectors[ends[index] : ends[index + 1]] == [float(number)] * (number % 3)
    return list(zip(sources, numbers, strict=True))


def tags_of(number: int) -> list[str] | None:
    """A column of lists of strings, some of them null."""
    return None if number % 4 == 0 else ["tag"] * (number % 3)


def _table(case: Case, folder: Path, size: int) -> pa.Table:
    draw = random.Random(f"{case.number} {folder.name}")
    cuts = sorted(draw.randint(0, size) for _ in range(draw.randint(0, 4)))
    table = write_shards(folder, [b - a for a, b in zip([0, *cuts], [*cuts, size], strict=True)], content)
    table = table.append_column("tags", pa.array(map(tags_of, range(size)), pa.list_(pa.string())))
    vectors = pa.array([[float(n)] * (n % 3) for n in range(size)], pa.list_(pa.float32()))
    table = table.append_column("vector", vectors)
    table = table.append_column("width", pa.array([8 + 8 * (n % 2) for n in range(size)]))
    table = table.append_column("height", pa.array([8] * size))
    kept = [draw.random() < case.share or n in {0, 1, 2} for n in range(size)]
    return table.filter(pa.array(kept))


def _check_epoch(case: Case, table: pa.Table, dataset: BatchDataset) -> None:
    """Exactly once an epoch, as far as the tail says."""
    wanted = Counter(table.column("number").to_pylist())
    found: Counter[int] = Counter()
    for batch in dataset:
        numbers = batch["number"][batch["mask"]] if case.tail == "mask" else batch["number"]
        found.update(numbers.tolist())
    if case.tail == "mask":
        assert found == wanted, "not every sample was counted once"
    elif case.tail == "drop":
        assert max(found.values(), default=1) == 1
        assert set(found) <= set(wanted)
        assert sum(wanted.values()) - sum(found.values()) < case.batch * (2 if case.buckets else 1)
    else:
        assert set(found) == set(wanted)
        filled = case.batch * (2 if case.buckets else 1)
        assert sum(found.values()) - sum(wanted.values()) < filled


def _taken(dataset: BatchDataset, count: int, rows: Callable[[Any], list[Row]]) -> list[Counter[Row]]:
    taken: list[Counter[Row]] = []
    if not count:
        return taken
    for batch in dataset:
        taken.append(Counter(rows(batch)))
        if len(taken) == count:
            break
    return taken


def main() -> None:
    """Run cases and say how they went."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    began, checked = time.monotonic(), 0
    for number in range(options.first, options.first + options.cases):
        folder = Path(tempfile.mkdtemp(prefix="soak"))
        try:
            checked += run(case_of(number), folder)
        except Exception:
            print(f"{case_of(number)} failed; its files are in {folder}", file=sys.stderr)
            raise
        shutil.rmtree(folder)
        if number % 50 == 49:
            print(
                f"{number + 1 - options.first} cases, {checked} batches, {time.monotonic() - began:.0f} s", flush=True
            )
    print(f"{options.cases} cases, {checked} batches, no fault")


if __name__ == "__main__":
    main()
