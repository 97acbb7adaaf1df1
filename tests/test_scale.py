"""docs/scale.md: its numbers are those of the recorded run, reckoned here by other means than the page was."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import pytest

from bench.scale_page import PAGE, RECORDED, filled, said, tables

POOLS = {"10M": 10**7, "1B": 10**9, "12.8B": 128 * 10**8}
SAMPLE = 35_156.25
"""450e12 / 12.8e9."""
RECORD = json.loads(Path(RECORDED).read_text())
KNOWN: dict[str, float] = RECORD["constants"]


def lines(name: str) -> dict[str, list[float]]:
    """The lines of a table of the page: what is said of it -> a number for each pool."""
    found = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found is not None
    rows = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in found[1].splitlines()[2:]]
    return {row[0].partition(":")[0]: [float(cell.replace(",", "")) for cell in row[1:]] for row in rows}


def price(what: str) -> float:
    return next(values[0] for name, values in lines("prices").items() if name.startswith(what))


def shards(samples: int) -> int:
    """As few tars of 10,000 in a shard as keep to 1,000 shards."""
    tars = samples // 10_000
    together = next(n for n in range(1, tars + 1) if math.ceil(tars / n) <= 1_000)
    return math.ceil(Fraction(tars, together))


def hours(*steps: str) -> Callable[[int], float]:
    return lambda n: sum(KNOWN[f"cpu_us_{step}"] for step in steps) * 1e-6 * n / 60 / 60


METADATA = sum(KNOWN[f"bytes_{kind}"] for kind in "identity key pointer caption url checksum".split())
WANTED: dict[str, dict[str, Callable[[int], float]]] = {
    "shards": {
        "TB of samples": lambda n: n * SAMPLE / 1e12,
        "tars": lambda n: n / 10_000,
        "tars a shard": lambda n: {10**7: 1, 10**9: 100, 128 * 10**8: 1280}[n],
        "shards": shards,
        "samples a shard": lambda n: n / shards(n),
        "files of a version": lambda n: KNOWN["files_shard"] * shards(n),
        "the same with a tar": lambda n: KNOWN["files_shard"] * n / 10_000,
    },
    "rows": {
        "which sample": lambda n: n * (KNOWN["bytes_identity"] + KNOWN["bytes_key"]) / 1e9,
        "the pointer": lambda n: n * KNOWN["bytes_pointer"] / 1e9,
        "a vector": lambda n: n * KNOWN["bytes_vector_512"] / 1e9,
        "texts, pointer": lambda n: n * (METADATA + 10 * KNOWN["bytes_number"]) / 1e9,
    },
    "cpu": {
        "ingest": hours("ingest"),
        "a filter": hours("filter"),
        "picture": hours("pictures"),
        "near-duplicates": hours("near_duplicates"),
        "`open_nsfw`": hours("open_nsfw"),
        "`text_area`": hours("text_area"),
        "k-means": lambda _: 20 * 256_000 * KNOWN["cpu_us_kmeans_pass"] / 3.6e9,
    },
    "versions": {
        "all shards written": lambda n: shards(n) * KNOWN["cpu_ms_shard_save"] / 1000,
        "a clone": lambda n: shards(n) * KNOWN["bytes_clone_partition"] / 1e6,
        "the catalog": lambda n: 100 * shards(n) * KNOWN["catalog_bytes_shard"] / 1e6,
        "a mask, GB": lambda n: n * KNOWN["bytes_mask"] / 1e9,
    },
    "requests": {
        "LISTs": lambda n: n / 10_000 / 1_000,
        "GETs of an ingest": lambda n: n / 10_000 * KNOWN["requests_ingest_tar"],
        "GETs of a pass": lambda n: n * SAMPLE / (1e6 * KNOWN["mb_a_request_signals"]),
    },
    "memory": {
        "near-duplicates": lambda n: n * KNOWN["memory_near_duplicates"] / 1e9,
        "vectors": lambda n: n * KNOWN["bytes_vector_512"] / 1e9,
    },
    "gpu": {
        "GPU hours at 500": lambda n: n / 500 / 3600,
        "GPU hours at 2,000": lambda n: n / 2000 / 3600,
        "CPU hours": hours("pictures"),
    },
    "money": {
        "samples in S3": lambda n: n * SAMPLE / 1e12 * price("a TB of S3"),
        "metadata": lambda n: n * (METADATA + 10 * KNOWN["bytes_number"]) / 1e12 * price("a TB of gp3"),
        "requests": lambda n: (
            (n / 1e4 * KNOWN["requests_ingest_tar"] + n * SAMPLE / 1e6 / KNOWN["mb_a_request_signals"])
            * price("a million GETs")
            / 1e6
            + n / 1e7 * price("a million PUTs") / 1e6
        ),
        "cores: the three": lambda n: hours("open_nsfw", "photo_embedding", "text_area")(n) * price("a core"),
        "cores: all": lambda n: (
            hours("ingest", "filter", "sha256", "pictures", "captions", "near_duplicates", "cluster_of")(n)
            * price("a core")
        ),
        "L4": lambda n: n / 500 / 3600 * price("a GPU, an hour (L4"),
        "H100": lambda n: n / 2000 / 3600 * price("a GPU, an hour (H100"),
    },
}


def test_the_page_has_the_tables_of_the_recorded_run() -> None:
    page = PAGE.read_text()
    assert filled(page, tables(RECORD)) == page, "python -m bench.scale_page"
    assert f"Measured {RECORD['date']} on {RECORD['machine']}." in page
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", RECORD["date"])
    changed = RECORD | {"constants": KNOWN | {"cpu_us_ingest": 2 * KNOWN["cpu_us_ingest"]}}
    assert filled(page, tables(changed)) != page


@pytest.mark.parametrize("name", WANTED)
def test_the_numbers_of_a_table_are_right(name: str) -> None:
    told = lines(name) if name != "money" else money_lines()
    for start, reckoned in WANTED[name].items():
        mine = [row for row in told if row == start or (start not in told and row.startswith(start))]
        assert len(mine) == 1, (start, list(told))
        for value, samples in zip(told[mine[0]], POOLS.values(), strict=True):
            assert value == pytest.approx(reckoned(samples), rel=0.0051), (start, samples)


def money_lines() -> dict[str, list[float]]:
    """The lines of the table of dollars, whose names have colons."""
    found = re.search(r"<!-- table: money -->\n(.*?)<!-- end -->", PAGE.read_text(), re.DOTALL)
    assert found is not None
    rows = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in found[1].splitlines()[2:]]
    return {row[0]: [float(cell.replace(",", "")) for cell in row[1:]] for row in rows}


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (0.12345, "0.123"), (99.96, "100"), (1234567, "1,230,000"), (12.3, "12.3"), (5, "5")]
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert said(value) == text
