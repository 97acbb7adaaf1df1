"""The tables of docs/scale.md, of the constants that `python -m bench.scale --record` measured last.

    python -m bench.scale_page

Each table stands between two comments of the page and is written anew; the words around them stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from bench.scale import RECORDED, SHARD_COLUMNS

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
POOLS = {"10M": 10_000_000, "1B": 1_000_000_000, "12.8B": 12_800_000_000}
SAMPLES_A_TAR = 10_000
BYTES_A_SAMPLE = 450e12 / 12.8e9
"""DataComp's pool: 450 TB of 12.8 billion samples."""
MOST_SHARDS = 1_000
"""As docs/operating.md has it."""
PRICES = {
    "a core, an hour (m7i.4xlarge, a sixteenth)": 0.0504,
    "a GPU, an hour (L4, g6.xlarge)": 0.8048,
    "a GPU, an hour (H100, an eighth of p5.48xlarge)": 6.88,
    "a TB of S3 Standard, a month": 22.0,
    "a TB of gp3 disk, a month": 80.0,
    "a million GETs": 0.40,
    "a million PUTs or LISTs": 5.00,
}
CORE, SMALL_GPU, LARGE_GPU, BUCKET, DISK, GETS, LISTS = PRICES.values()
GPU_RATES = (500, 2_000)
"""Pictures a second of one GPU: chosen, not measured."""
MODELS = ("open_nsfw", "photo_embedding", "text_area")
STEPS = {
    "ingest: headers, captions, JSON": "ingest",
    "a filter of two columns": "filter",
    "sha256 of the bytes": "sha256",
    "picture: decoded once; header, quality, phash, thumbnail": "pictures",
    "caption: statistics": "captions",
    "near-duplicates by thumbnails": "near_duplicates",
    "the cluster of each vector, k = 1,000": "cluster_of",
    "`open_nsfw`": "open_nsfw",
    "`photo_embedding`": "photo_embedding",
    "`text_area`": "text_area",
}
ROW = {
    "which sample (`sample_id`, shard, position, key)": ("identity", "key"),
    "the pointer to a picture": ("pointer",),
    "a caption of nine words": ("caption",),
    "a URL": ("url",),
    "a checksum as text": ("checksum",),
    "a number": ("number",),
    "a hash of 64 bits": ("hash",),
    "a flag": ("flag",),
    "a vector of 512 BFloat16": ("vector_512",),
    "the mask of a filter": ("mask",),
}
METADATA = ("identity", "key", "pointer", "caption", "url", "checksum", *["number"] * 10)
"""Columns of a pool as it is published: ten numbers beside texts."""
Row = list[str]


def main() -> None:
    """Write the tables into the page."""
    PAGE.write_text(filled(PAGE.read_text(), tables(json.loads(RECORDED.read_text()))))


def filled(page: str, made: dict[str, str]) -> str:
    """The page with each table between its comments."""
    for name, table in made.items():
        between = re.compile(rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page, times = between.subn(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page)
        assert times == 1, f"{PAGE.name} has the table {name} {times} times"
    return page


def tables(recorded: dict[str, object]) -> dict[str, str]:
    """Name -> table, of what was recorded."""
    known: dict[str, float] = recorded["constants"]  # type: ignore[assignment]
    made: dict[str, Callable[[dict[str, float]], list[Row]]] = {
        "shards": shards, "rows": rows, "cpu": cpu, "versions": versions, "requests": requests, "memory": memory,
        "gpu": gpu, "money": money,
    }  # fmt: skip
    out = {name: table(["", *POOLS], make(known)) for name, make in made.items()}
    out["prices"] = table(["", "$"], [[name, f"{price:.10g}"] for name, price in PRICES.items()])
    out["measured"] = f"Measured {recorded['date']} on {recorded['machine']}."
    return out


def table(header: Row, lines: list[Row]) -> str:
    """A Markdown table."""
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines))


def line(name: str, value: Callable[[int], float]) -> Row:
    """A value for each pool."""
    return [name, *(said(value(samples)) for samples in POOLS.values())]


def said(value: float) -> str:
    """Three digits, thousands apart."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:,.10g}"


def tars(samples: int) -> int:
    """Tars of a pool."""
    return -(-samples // SAMPLES_A_TAR)


def tars_a_shard(samples: int) -> int:
    """`FACTORY_TARS_PER_SHARD` that keeps to so many shards."""
    return -(-tars(samples) // MOST_SHARDS)


def shard_count(samples: int) -> int:
    """Shards, that is partitions, of a version."""
    return -(-tars(samples) // tars_a_shard(samples))


def metadata_bytes(known: dict[str, float]) -> float:
    """Bytes of a row of the metadata, without vectors."""
    return sum(known[f"bytes_{kind}"] for kind in METADATA)


def shards(known: dict[str, float]) -> list[Row]:
    """Tars, partitions, parts and files."""
    return [
        line("TB of samples", lambda n: n * BYTES_A_SAMPLE / 1e12),
        line("tars", tars),
        line("tars a shard", tars_a_shard),
        line("shards: partitions, and parts of a version", shard_count),
        line("samples a shard", lambda n: n / shard_count(n)),
        line(f"files of a version of {SHARD_COLUMNS} columns", lambda n: known["files_shard"] * shard_count(n)),
        line("the same with a tar a shard", lambda n: known["files_shard"] * tars(n)),
    ]


def rows(known: dict[str, float]) -> list[Row]:
    """Bytes a row, and the GB of it."""
    found = [
        line(f"{name}: {said(sum(known[f'bytes_{kind}'] for kind in kinds))} bytes",
             lambda n, kinds=kinds: n * sum(known[f"bytes_{kind}"] for kind in kinds) / 1e9)
        for name, kinds in ROW.items()
    ]  # fmt: skip
    whole = metadata_bytes(known)
    return [*found, line(f"texts, pointer and ten numbers: {said(whole)} bytes", lambda n: n * whole / 1e9)]


def cpu(known: dict[str, float]) -> list[Row]:
    """CPU hours of each step."""
    found = [
        line(f"{name}: {said(known[f'cpu_us_{step}'])} µs", lambda n, step=step: n * known[f"cpu_us_{step}"] / 3.6e9)
        for name, step in STEPS.items()
    ]
    passes = known["cpu_us_kmeans_pass"]
    return [*found, line(f"k-means, 20 passes over 256,000 vectors: {said(passes)} µs each",
                         lambda _: 20 * 256_000 * passes / 3.6e9)]  # fmt: skip


def versions(known: dict[str, float]) -> list[Row]:
    """What a version costs for its shards, in CPU seconds and MB."""
    return [
        *(
            line(f"{name}: {said(known[f'cpu_ms_shard_{step}'])} ms a shard, CPU seconds",
                 lambda n, step=step: shard_count(n) * known[f"cpu_ms_shard_{step}"] / 1e3)
            for name, step in (("all shards written", "save"), ("a mask", "mask"), ("a column", "column"))
        ),
        line(f"a clone: {said(known['bytes_clone_partition'])} bytes a shard, MB on a disk",
             lambda n: shard_count(n) * known["bytes_clone_partition"] / 1e6),
        line(f"the catalog of 100 versions: {said(known['catalog_bytes_shard'])} bytes a shard and version, MB",
             lambda n: 100 * shard_count(n) * known["catalog_bytes_shard"] / 1e6),
        line("a mask, GB", lambda n: n * known["bytes_mask"] / 1e9),
    ]  # fmt: skip


def ingest_gets(samples: int, known: dict[str, float]) -> float:
    """GETs of an ingest."""
    return tars(samples) * known["requests_ingest_tar"]


def pass_gets(samples: int, known: dict[str, float]) -> float:
    """GETs of one pass of signals over all samples."""
    return samples * BYTES_A_SAMPLE / 1e6 / known["mb_a_request_signals"]


def requests(known: dict[str, float]) -> list[Row]:
    """Requests, and what is read."""
    return [
        line("LISTs of the source, each time it is looked at", lambda n: -(-tars(n) // 1000)),
        line(f"GETs of an ingest: {said(known['requests_ingest_tar'])} a tar", lambda n: ingest_gets(n, known)),
        line("TB read by it", lambda n: n * BYTES_A_SAMPLE * known["share_read_ingest"] / 1e12),
        line(f"GETs of a pass of signals: {said(known['mb_a_request_signals'])} MB each", lambda n: pass_gets(n, known)),
        line("TB read by it", lambda n: n * BYTES_A_SAMPLE * known["share_read_signals"] / 1e12),
    ]  # fmt: skip


def memory(known: dict[str, float]) -> list[Row]:
    """What one process would have to hold, GB."""
    return [
        line(f"near-duplicates: {said(known['memory_near_duplicates'])} bytes a sample",
             lambda n: n * known["memory_near_duplicates"] / 1e9),
        line("vectors of 512 BFloat16, read by each exact search",
             lambda n: n * known["bytes_vector_512"] / 1e9),
    ]  # fmt: skip


def gpu(known: dict[str, float]) -> list[Row]:
    """Hours of GPUs at throughputs that are given, and of the cores that decode for them."""
    return [
        *(line(f"GPU hours at {rate:,} pictures/s", lambda n, rate=rate: n / rate / 3600) for rate in GPU_RATES),
        line("CPU hours that decode for them", lambda n: n * known["cpu_us_pictures"] / 3.6e9),
    ]


def money(known: dict[str, float]) -> list[Row]:
    """Dollars at the prices above."""

    def hours(n: int, *steps: str) -> float:
        return n * sum(known[f"cpu_us_{step}"] for step in steps) / 3.6e9

    whole = metadata_bytes(known)
    cheap = [step for step in STEPS.values() if step not in MODELS]
    return [
        line("samples in S3, a month", lambda n: n * BYTES_A_SAMPLE / 1e12 * BUCKET),
        line("metadata on a disk, a month", lambda n: n * whole / 1e12 * DISK),
        line("a vector of 512 on a disk, a month", lambda n: n * known["bytes_vector_512"] / 1e12 * DISK),
        line("requests of an ingest and a pass of signals",
             lambda n: (ingest_gets(n, known) + pass_gets(n, known)) / 1e6 * GETS + -(-tars(n) // 1000) / 1e6 * LISTS),
        line("cores: all steps without models", lambda n: hours(n, *cheap) * CORE),
        line("cores: the three models", lambda n: hours(n, *MODELS) * CORE),
        line(f"L4: one model at {GPU_RATES[0]:,} pictures/s", lambda n: n / GPU_RATES[0] / 3600 * SMALL_GPU),
        line(f"H100: one model at {GPU_RATES[1]:,} pictures/s", lambda n: n / GPU_RATES[1] / 3600 * LARGE_GPU),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
