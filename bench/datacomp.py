"""What DataComp's baselines cost on a pool: the signals that they read, then each from its columns to a subset file.

`python -m bench.datacomp [--samples 200000] [--dimension 768] [--centroids 1000]` makes a pool of captions of random
words, sizes, scores and vectors. Signals and baselines are timed one by one; CPU seconds are of this process, its
workers and the engine together.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

WORDS = 50_000
B32, L14 = "clip_b32_similarity_score", "clip_l14_similarity_score"
Draw = np.random.Generator


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--dimension", type=int, default=768)
    parser.add_argument("--centroids", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FACTORY_HOME"] = folder
        from factory_lib.warehouse.embedded import stop_engine

        try:
            run(Path(folder), options.samples, options.dimension, options.centroids)
        finally:
            stop_engine(Path(folder))


def run(folder: Path, samples: int, dimension: int, centroids: int) -> None:
    """Make the pool, time the steps, print the table."""
    from bench.report import print_report
    from factory_lib import DatasetQuery
    from factory_lib.curation import cluster_of, keep, write_subset
    from factory_lib.curation.datacomp import BASELINES, ImageBased, ImageBasedClipScore, baseline
    from factory_lib.signals import Signal
    from factory_lib.signals.entities import wordnet_entity

    draw = np.random.default_rng(0)
    classes, wordnet, words = write_words(folder, draw)
    middles = pa.table({"cluster": range(centroids), "centroid": vectors(centroids, dimension, draw)})
    DatasetQuery.from_arrow(pool_of(samples, dimension, words, draw)).save("pool")
    targets = pa.table({"l14_img": vectors(centroids // 4, dimension, draw)})
    nearest = cluster_of(
        DatasetQuery(DatasetQuery.from_arrow(middles).save("centroids")), "l14_img", metric="inner_product"
    )
    DatasetQuery.from_arrow(targets).add_signals(nearest).save("imagenet")
    table: list[tuple[object, ...]] = []

    @contextmanager
    def step(name: str) -> Iterator[list[int]]:
        cpu, wall, count = all_cpu_seconds(folder), time.perf_counter(), [samples]
        yield count
        wall = time.perf_counter() - wall
        table.append((name, wall, all_cpu_seconds(folder) - cpu, peak(), peak(folder), f"{count[-1]:,}"))

    signals: tuple[Signal, ...] = (wordnet_entity(str(classes), wordnet=str(wordnet)), nearest)
    for signal in signals:
        with step(f"signal {signal.name}"):
            DatasetQuery("pool").add_signals(signal).save("pool")
    pool, began = DatasetQuery("pool"), time.perf_counter()
    for name, kind in BASELINES.items():
        parameters: dict[str, object] = {"fraction": 0.3} if name == "clip_score" else {}
        if issubclass(kind, ImageBased | ImageBasedClipScore):
            parameters["target"] = DatasetQuery("imagenet")
        with step(name) as count:
            kept = keep(pool, baseline(name, **parameters))
            count.append(write_subset(kept.samples, str(folder / f"{name}.npy")))
    table.append(("all baselines", time.perf_counter() - began, "", "", "", ""))
    print_report(
        f"DataComp's baselines on {samples:,} samples, vectors of {dimension}, {centroids:,} centroids",
        ["what", "seconds", "CPU s", "peak GB", "engine's peak GB", "samples"],
        table,
    )


def pool_of(samples: int, dimension: int, words: list[str], draw: Draw) -> pa.Table:
    """Samples as the reader of DataComp's layout has them, and the languages of their captions."""
    lengths = draw.integers(1, 16, samples)
    drawn = iter(np.array(words, object)[np.minimum(draw.zipf(1.3, lengths.sum()), len(words)) - 1])
    captions = [" ".join(next(drawn) for _ in range(length)) for length in lengths]
    scores = {name: draw.normal(0.2, 0.07, samples).astype(np.float32) for name in (B32, L14)}
    languages = {
        name: pa.StructArray.from_arrays(
            [pa.array(draw.choice(["en", "de", "zh"], samples, p=[0.6, 0.2, 0.2]))], ["language"]
        )
        for name in ("lang_fasttext", "lang_cld3")
    }
    sides = {name: draw.integers(50, 2000, samples).astype(np.int32) for name in ("original_width", "original_height")}
    uids = pa.array([one.hex() for one in np.frombuffer(draw.bytes(16 * samples), "V16").tolist()])
    images = vectors(samples, dimension, draw)
    return pa.table({"uid": uids, "caption": captions, **scores, **languages, **sides, "l14_img": images})


def vectors(samples: int, dimension: int, draw: Draw) -> pa.Array:
    """Random vectors as a column."""
    numbers: NDArray[np.float32] = draw.standard_normal(samples * dimension, np.float32)
    return pa.FixedSizeListArray.from_arrays(pa.array(numbers), dimension)


def write_words(folder: Path, draw: Draw) -> tuple[Path, Path, list[str]]:
    """A WordNet of nouns of random letters, in WordNet's format, a tenth of them classes; and all words of captions."""
    letters = np.frombuffer(b"abcdefghijklmnoprstuvwy", np.uint8)
    words = sorted({bytes(draw.choice(letters, draw.integers(3, 12))).decode() for _ in range(WORDS)})
    draw.shuffle(words)
    nouns = {word: 100 * place for place, word in enumerate(words[: len(words) // 2])}
    (folder / "wordnet").mkdir()
    for kind in ("noun", "verb", "adj", "adv"):
        lines = [f"{word} n 1 0 1 0 {offset:08d}" for word, offset in sorted(nouns.items())] if kind == "noun" else []
        (folder / "wordnet" / f"index.{kind}").write_text("\n".join(lines))
        (folder / "wordnet" / f"{kind}.exc").write_text("")
    (folder / "classes.txt").write_text("".join(f"n{offset:08d}\n" for offset in list(nouns.values())[5::10]))
    return folder / "classes.txt", folder / "wordnet", words


def all_cpu_seconds(home: Path) -> float:
    """CPU seconds of this process, those of its workers that ended, and the engine."""
    from bench.commits import cpu_seconds, engine_pid
    from factory_lib.compute.pool import stop_workers

    stop_workers()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime + cpu_seconds(engine_pid(home))


def peak(home: Path | None = None) -> float:
    """GB that this process, or the engine of a data folder, held at most."""
    from bench.commits import engine_pid

    status = Path(f"/proc/{engine_pid(home) if home else 'self'}/status").read_text()
    return int(status.split("VmHWM:")[1].split(maxsplit=1)[0]) * 1024 / 1e9


if __name__ == "__main__":
    main()
