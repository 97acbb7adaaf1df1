"""What a version costs: 10M rows x 12 columns in 16 shards, and an exemplar search over 1M x 512.

`python -m bench.versions [rows]`: each save is timed beside the bare SQL that does the same without a commit, and beside
an `INSERT … SELECT` of the same result; bytes are what the data folder grew by, hard links counted once. Lance is timed
where it is installed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from bench.report import disk_bytes, print_report, timed

SHARDS = 16
REPEATS = 3  # the best of so many is shown


def main() -> None:
    rows = int(float(sys.argv[1])) if len(sys.argv) > 1 else 10_000_000
    folder = Path(tempfile.mkdtemp(prefix="bench-versions-", dir=os.environ.get("BENCH_FOLDER")))
    os.environ["FACTORY_HOME"] = str(folder)
    from factory_lib.warehouse.embedded import stop_engine

    try:
        derivations(folder, rows)
        masks_and_copies(folder)
        search(rows // 10)
    finally:
        stop_engine(folder)
        shutil.rmtree(folder, ignore_errors=True)


def derivations(folder: Path, rows: int) -> None:
    """Keep 31 %, add a float column by expression and by values, append a shard."""
    from factory_lib import C, DatasetQuery
    from factory_lib.warehouse.client import warehouse

    make_base(rows)
    wh = warehouse()
    base = DatasetQuery("base")
    per_shard = rows // SHARDS
    rng = np.random.default_rng(0)
    values = pa.table(
        {
            "shard": pa.array(np.repeat([f"s{i:02}" for i in range(SHARDS)], per_shard)),
            "position": np.tile(np.arange(per_shard, dtype=np.uint32), SHARDS),
            "score": rng.random(per_shard * SHARDS, dtype=np.float32),
        }
    )
    late = DatasetQuery("base", shards=["s00"]).to_arrow().slice(0, per_shard)
    late = late.set_column(0, "shard", pa.array(["s99"] * late.num_rows))
    cases: list[tuple[str, Callable[[], object], str]] = [
        ("keep 31 %", lambda: base.filter(C.a < 0.31).save("kept"), "SELECT * FROM base.v1 WHERE a < 0.31"),
        (
            "float column, expression",
            lambda: base.mutate(x=(C.a * C.b).cast("Float32")).save("expr"),
            "SELECT *, toFloat32(a * b) AS x FROM base.v1",
        ),
        ("float column, Arrow values", lambda: base.add_columns(values, on=("shard", "position")).save("given"), ""),
        (
            "append one shard",
            lambda: DatasetQuery.from_arrow(late, shard="shard").save("base", mode="overwrite_shards"),
            "",
        ),
        ("clone", lambda: base.save("cloned"), "SELECT * FROM base.v1"),
    ]
    full = disk_bytes(folder)
    report = [["base version", "", full / 1e6, "", ""]]
    bare = bare_sql(folder)
    for name, save, copied in cases:
        before = disk_bytes(folder)
        _, first = timed(save)
        grown = (disk_bytes(folder) - before) / 1e6
        seconds = min(first, *(timed(save)[1] for _ in range(REPEATS - 1)))
        copy_seconds: object = ""
        if copied:
            wh.execute(
                "CREATE TABLE base.copied ENGINE = MergeTree PARTITION BY shard ORDER BY (shard, position) EMPTY AS "
                + copied
            )
            _, copy_seconds = timed(lambda sql=copied: wh.execute("INSERT INTO base.copied " + sql))
            wh.execute("DROP TABLE base.copied SYNC")
        report.append([name, seconds, grown, bare.get(name, ""), copy_seconds])
    print_report(
        f"Versions of {rows:,} rows x 12 columns in {SHARDS} shards",
        ["version", "save, s", "MB added", "bare SQL, s", "INSERT SELECT, s"],
        report,
    )
    lance(rows)


def masks_and_copies(folder: Path) -> None:
    """Where a copy of the rows that a filter keeps becomes cheaper than a mask: seconds, bytes, and a scan of each."""
    from factory_lib import C, DatasetQuery
    from factory_lib.warehouse import derive
    from factory_lib.warehouse.client import warehouse

    chosen, report = derive.COPY_BELOW, []
    for share in (0.2, 0.1, 0.05, 0.02, 0.01, 0.005):
        row: list[object] = [f"{share:.1%}"]
        for threshold in (0.0, 1.0):
            derive.COPY_BELOW = threshold
            before = disk_bytes(folder)
            version, seconds = timed(lambda s=share: DatasetQuery("base.v1").filter(C.a < s).save("few"))
            grown = (disk_bytes(folder) - before) / 1e6
            scan = min(timed(lambda v=version: warehouse().scalar(f"SELECT sum(b) FROM {v}"))[1] for _ in range(5))
            row += [seconds, grown, scan]
        report.append(row)
    derive.COPY_BELOW = chosen
    print_report(
        f"A mask or a copy (copied below {chosen:.0%})",
        ["kept", "mask, s", "MB", "scan, s", "copy, s", "MB", "scan, s"],
        report,
    )


def bare_sql(folder: Path) -> dict[str, float]:
    """The same changes by hand: clone, mask or column, without names, provenance and publication."""
    from factory_lib.warehouse.client import warehouse

    wh = warehouse()
    engine = "ENGINE = MergeTree PARTITION BY shard ORDER BY (shard, position) SETTINGS min_bytes_for_wide_part = 0, table_readonly = 0"

    def clone() -> None:
        wh.execute(f"CREATE TABLE base.bare AS base.v1 {engine}")
        wh.execute("ALTER TABLE base.bare ATTACH PARTITION ALL FROM base.v1")

    def mask() -> None:
        clone()
        wh.execute("DELETE FROM base.bare WHERE NOT a < 0.31", settings={"lightweight_deletes_sync": 2})

    def column() -> None:
        clone()
        wh.execute("ALTER TABLE base.bare ADD COLUMN x Float32")
        wh.execute("ALTER TABLE base.bare UPDATE x = a * b WHERE 1", settings={"mutations_sync": 2})

    seconds = {}
    for name, work in (("clone", clone), ("keep 31 %", mask), ("float column, expression", column)):
        tries = []
        for _ in range(REPEATS):
            tries.append(timed(work)[1])
            wh.execute("DROP TABLE base.bare SYNC")
        seconds[name] = min(tries)
    return seconds


def make_base(rows: int) -> None:
    """A version of 12 columns that looks like metadata of image-text samples."""
    from factory_lib import DatasetQuery
    from factory_lib.warehouse.client import warehouse

    per_shard = rows // SHARDS
    wh = warehouse()
    seed = pa.table(
        {
            "shard": ["s00"],
            "key": ["k"],
            "a": pa.array([0.5], pa.float32()),
            "b": pa.array([0.5], pa.float32()),
            "width": pa.array([1], pa.int32()),
            "height": pa.array([1], pa.int32()),
            "caption": ["x"],
            "url": ["x"],
            "similarity": pa.array([0.1], pa.float32()),
            "punsafe": pa.array([0.1], pa.float32()),
        }
    )
    DatasetQuery.from_arrow(seed, shard="shard").save("seed")
    columns = (
        "concat('s', leftPad(toString(intDiv(number, {n})), 2, '0')) AS shard, toUInt32(number % {n}) AS position, "
        "cityHash64(number) AS sample_id, leftPad(toString(number), 9, '0') AS key, toFloat32(rand(1) / 4294967296) AS a, "
        "toFloat32(rand(2) / 4294967296) AS b, toInt32(64 + rand(3) % 2000) AS width, toInt32(64 + rand(4) % 2000) AS height, "
        "concat('a photo of ', toString(number % 5000)) AS caption, concat('https://images.example/', toString(number)) AS url, "
        "toFloat32(rand(5) / 4294967296) AS similarity, toFloat32(rand(6) / 4294967296) AS punsafe"
    ).replace("{n}", str(per_shard))
    wh.execute(
        "CREATE TABLE seed._rows AS seed.v1 ENGINE = MergeTree PARTITION BY shard ORDER BY (shard, position) "
        "SETTINGS min_bytes_for_wide_part = 0, table_readonly = 0"
    )
    wh.execute(f"INSERT INTO seed._rows SELECT {columns} FROM numbers({per_shard * SHARDS})")
    from factory_lib.plan.nodes import Table
    from factory_lib.warehouse.staging import table_columns

    types, _ = table_columns(wh, "seed", "_rows")
    DatasetQuery.of(Table("seed._rows", columns=types)).save("base")
    wh.execute("DROP TABLE seed._rows SYNC")


def search(rows: int) -> None:
    """The 500 nearest of 1M x 512 unit vectors in BFloat16, against numpy in memory."""
    from factory_lib import C, DatasetQuery, cosine_distance
    from factory_lib.plan.nodes import Table
    from factory_lib.warehouse.client import warehouse
    from factory_lib.warehouse.staging import create_stage, table_columns

    wh = warehouse()
    rng = np.random.default_rng(0)
    types = {
        "shard": "LowCardinality(String)",
        "position": "UInt32",
        "sample_id": "UInt64",
        "key": "String",
        "clip": "Array(BFloat16)",
    }
    stage = create_stage(wh, "vectors", types, unit=["clip"])
    per_shard = rows // SHARDS
    blocks = []
    for i in range(SHARDS):
        block = rng.standard_normal((per_shard, 512), dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        blocks.append(block)
        ids = np.arange(i * per_shard, (i + 1) * per_shard)
        wh.insert(
            stage.name,
            pa.table(
                {
                    "shard": pa.array([f"s{i:02}"] * per_shard),
                    "position": np.arange(per_shard, dtype=np.uint32),
                    "sample_id": ids.astype(np.uint64),
                    "key": pa.array(ids.astype(str)),
                    "clip": pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), 512),
                }
            ),
        )
    stage.optimize()
    columns, unit = table_columns(wh, "vectors", stage.table)
    DatasetQuery.of(Table(f"vectors.{stage.table}", columns=columns, unit=unit)).save("vectors")
    target = rng.standard_normal(512).astype(np.float32)
    query = (
        DatasetQuery("vectors")
        .mutate(dist=cosine_distance(C.clip, target))
        .order_by(C.dist)
        .limit(500)
        .select("sample_id", "key", "dist")
    )
    seconds = min(timed(query.to_arrow)[1] for _ in range(5))
    found = set(query.to_arrow()["sample_id"].to_pylist())
    matrix = np.concatenate(blocks)
    start = time.perf_counter()
    scores = matrix @ (target / np.linalg.norm(target))
    exact = set(np.argpartition(-scores, 500)[:500].tolist())
    numpy_seconds = time.perf_counter() - start
    print_report(
        f"Top 500 of {rows:,} x 512",
        ["what", "s", "recall"],
        [
            ["DatasetQuery, BFloat16 unit vectors", seconds, len(found & exact) / 500],
            ["numpy float32 in memory", numpy_seconds, 1.0],
        ],
    )


def lance(rows: int) -> None:
    """The same changes with Lance, where it is installed."""
    try:
        import lance as peer
    except ImportError:
        print("\nLance is not installed; `pip install pylance` adds it to the comparison.")
        return
    from factory_lib import DatasetQuery

    folder = Path(tempfile.mkdtemp(prefix="bench-lance-", dir=os.environ.get("BENCH_FOLDER")))
    try:
        dataset = peer.write_dataset(DatasetQuery("base.v1").to_batches(), str(folder / "base"))
        report = []
        values = pa.table({"score": np.random.default_rng(0).random(dataset.count_rows(), dtype=np.float32)})
        for name, work in (
            ("float column, expression", lambda: dataset.add_columns({"x": "cast(a * b as float)"})),
            ("float column, Arrow values", lambda: dataset.add_columns(values.to_reader(max_chunksize=1 << 20))),
            ("keep 31 %", lambda: dataset.delete("NOT (a < 0.31)")),
        ):
            before = disk_bytes(folder)
            _, seconds = timed(work)
            report.append([name, seconds, (disk_bytes(folder) - before) / 1e6])
        print_report(f"Lance {peer.__version__}, the same rows", ["version", "s", "MB added"], report)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
