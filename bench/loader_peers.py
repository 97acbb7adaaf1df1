"""One loader over the same tars, timed: a subprocess of `bench.loader`, run with an interpreter that has the loader.

Prints one JSON line: seconds of preparation, and for each epoch samples, seconds, CPU seconds of the process and its workers, and
bytes seen.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

BATCH = 128
SIDE = 256
Epoch = Callable[[], Iterable[Any]]


def square(data: bytes) -> torch.Tensor:
    """What each loader decodes to: Pillow, drafted, shorter side to 256, centre."""
    import numpy as np

    picture = Image.open(io.BytesIO(data))
    picture.draft("RGB", (SIDE, SIDE))
    picture = picture.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return torch.from_numpy(np.array(picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)))


def webdataset(options: argparse.Namespace) -> Epoch:
    import webdataset as wds

    tars = sorted(str(path) for path in Path(options.folder, "tars").glob("*.tar"))
    pipeline = wds.WebDataset(tars, shardshuffle=len(tars), empty_check=False).shuffle(1000).to_tuple("jpg")
    if options.decode:
        pipeline = pipeline.map_tuple(square)
    collate = (
        (lambda rows: torch.stack([r[0] for r in rows])) if options.decode else (lambda rows: [r[0] for r in rows])
    )
    pipeline = pipeline.batched(BATCH, collation_fn=collate)
    loader = torch.utils.data.DataLoader(
        pipeline, batch_size=None, num_workers=options.workers, persistent_workers=options.workers > 0
    )
    return lambda: loader


def streaming(options: argparse.Namespace) -> Epoch:
    """Mosaic Streaming over shards of 8 MB, written once."""
    from streaming import MDSWriter, StreamingDataset

    target = Path(options.folder, "mds")
    if not target.exists():
        with MDSWriter(out=str(target), columns={"jpg": "bytes"}, size_limit=8 << 20) as writer:
            for data in samples(options.folder):
                writer.write({"jpg": data})

    class Decoded(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            data = super().__getitem__(at)["jpg"]
            return square(data) if options.decode else data

    dataset = Decoded(local=str(target), shuffle=True, batch_size=BATCH, shuffle_seed=0)
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=options.workers,
        collate_fn=torch.stack if options.decode else list,
        persistent_workers=options.workers > 0,
    )
    return lambda: loader


def arrow(options: argparse.Namespace) -> Epoch:
    """Hugging Face's map-style Arrow dataset, shuffled by the DataLoader."""
    import datasets

    target = Path(options.folder, "arrow")
    if not target.exists():
        made = datasets.Dataset.from_generator(
            lambda: ({"jpg": data} for data in samples(options.folder)),
            features=datasets.Features({"jpg": datasets.Value("binary")}),
            cache_dir=str(Path(options.folder, "hf")),
        )
        made.save_to_disk(str(target))
    dataset = datasets.load_from_disk(str(target))

    def collate(rows: list[dict[str, bytes]]) -> Any:
        return torch.stack([square(row["jpg"]) for row in rows]) if options.decode else [row["jpg"] for row in rows]

    loader = torch.utils.data.DataLoader(
        dataset,
        batch_size=BATCH,
        shuffle=True,
        num_workers=options.workers,
        collate_fn=collate,
        persistent_workers=options.workers > 0,
    )
    return lambda: loader


def ours(options: argparse.Namespace) -> Epoch:
    """`to_torch` over pointers into the tars."""
    from pyarrow import feather

    from factory_lib.loading.dataset import to_torch

    table = feather.read_table(Path(options.folder, "rows.arrow"))
    dataset = to_torch(
        lambda: table.to_reader(max_chunksize=8192),
        str(Path(options.folder).resolve()),  # the identity of the rows: other folders have others
        members=["image"],
        decoders=options.decoder if options.decode else "raw",
        image_size=SIDE if options.decode else None,
        global_batch_size=BATCH,
        num_workers=options.workers,
    )
    return lambda: dataset


def samples(folder: str) -> Iterable[bytes]:
    """The bytes of all pictures, in storage order."""
    import tarfile

    for path in sorted(Path(folder, "tars").glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file is not None
                yield file.read()


def count(batch: Any) -> tuple[int, int]:
    """Samples and bytes of a batch."""
    if isinstance(batch, dict):
        image = batch["image"]
        if isinstance(image, dict):
            return len(image["offsets"]) - 1, image["data"].numel()
        return len(image), image.numel()
    if isinstance(batch, torch.Tensor):
        return len(batch), batch.numel()
    return len(batch), sum(len(data) for data in batch)


def cpu_seconds() -> float:
    """Of this process and of all its descendants, those still running among them."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    total = own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime
    ticks, parents = os.sysconf("SC_CLK_TCK"), {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            parents[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / ticks)
    family = {os.getpid()}
    while grown := {pid for pid, (parent, _) in parents.items() if parent in family} - family:
        family |= grown
    return total + sum(parents[pid][1] for pid in family - {os.getpid()})


def main() -> None:
    """Run one loader and print what it did."""
    parser = argparse.ArgumentParser()
    parser.add_argument("loader", choices=["webdataset", "streaming", "arrow", "ours"])
    parser.add_argument("folder")
    parser.add_argument("--decode", action="store_true")
    parser.add_argument("--decoder", default="pillow")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--limit", type=int, default=10**9)
    options = parser.parse_args()
    begun = time.perf_counter()
    epoch = globals()[options.loader](options)
    prepared = time.perf_counter() - begun
    epochs = []
    for _ in range(options.epochs):
        clock, cpu, rows, size = time.perf_counter(), cpu_seconds(), 0, 0
        for batch in epoch():
            more, length = count(batch)
            rows, size = rows + more, size + length
            if rows >= options.limit:
                break
        seconds = time.perf_counter() - clock
        epochs.append({"samples": rows, "seconds": seconds, "cpu": cpu_seconds() - cpu, "bytes": size})
    print(json.dumps({"prepared": prepared, "epochs": epochs}), flush=True)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
