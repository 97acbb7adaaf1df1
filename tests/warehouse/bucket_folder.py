"""A data folder whose versions lie in a bucket, and what tests ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.warehouse.bucket.blobs import all_files, blob_keys
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.versions import datasets
from tests.s3 import Bucket

URI = "s3://shards/versions"


@pytest.fixture
def home(s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data folder of its own with versions in an empty bucket."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FACTORY_HOME", str(folder))
    monkeypatch.setenv("FACTORY_VERSIONS", URI)
    yield folder
    stop_engine(folder)


def samples(rows: int, shards: int = 1) -> pa.Table:
    random = np.random.default_rng(0)
    names = np.char.add("s", (np.arange(rows) % shards).astype(str))
    return pa.table({"part": names, "n": np.arange(rows), "x": random.random(rows), "y": random.random(rows)})


def save(name: str = "laion", rows: int = 1000, shards: int = 1) -> None:
    DatasetQuery.from_arrow(samples(rows, shards), shard="part").save(name)


def objects(s3: Bucket) -> dict[str, int]:
    """Key -> size of all objects."""
    pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=s3.name)
    return {one["Key"]: one["Size"] for page in pages for one in page.get("Contents", [])}


def parts(s3: Bucket) -> dict[str, int]:
    return {key: size for key, size in objects(s3).items() if key.startswith("versions/parts/")}


def named(home: Path) -> set[str]:
    """The objects that files of the engine's disk name."""
    return {key for path in all_files(home / "data") for key in blob_keys(path.read_text())}


def fingerprints() -> dict[str, dict[str, str]]:
    """Of all versions, computed from their rows."""
    warehouse().execute("TRUNCATE TABLE factory.fingerprints")
    return {str(one): one.fingerprints() for made in datasets(warehouse()).values() for one in made}


class KilledError(BaseException):
    """Nobody catches it, as nobody catches a kill."""


def part_files(home: Path) -> list[Path]:
    """Files of the parts of versions on the disk of a data folder."""
    tables = Warehouse(home=home).rows(
        "SELECT path FROM system.parts WHERE active AND match(table, '^v[1-9]') AND database != 'factory'"
    )
    return [path for row in tables for path in (home / "data" / row["path"]).rglob("*") if path.is_file()]
