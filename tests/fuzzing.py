"""Files of every format, damaged at random: whatever is in them, a source says what it could not read.

``python -m tests.fuzzing [ROUNDS] [SEED]`` runs many; the suite runs few.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from factory_lib import open_source
from factory_lib.errors import FactoryError
from factory_lib.sources import ShardReport
from tests.layouts import jpeg

ROWS = 30


def table() -> pa.Table:
    """Rows of all kinds of columns."""
    vectors = pa.array(
        np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32).tolist(), pa.list_(pa.float32())
    )
    return pa.table(
        {
            "uid": [f"{n:032x}" for n in range(ROWS)],
            "caption": [f"caption é {n}" if n % 7 else None for n in range(ROWS)],
            "width": pa.array(range(ROWS), pa.int32()),
            "score": pa.array([n / 3 for n in range(ROWS)]),
            "emb": vectors,
            "boxes": pa.array([[[0.1, 0.2]] * (n % 3) for n in range(ROWS)]),
        }
    )


def parquet(path: Path) -> None:
    pq.write_table(table(), path, row_group_size=10)


def arrow(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table().schema) as out:
        out.write_table(table(), max_chunksize=10)


def stream(path: Path) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table().schema) as out:
        out.write_table(table(), max_chunksize=10)


def delimited(delimiter: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        lines = [("uid", "caption", "width"), *((f"{n:032x}", f'"caption, {n}"', str(n)) for n in range(ROWS))]
        path.write_text("\n".join(delimiter.join(line) for line in lines))

    return write


def lines(path: Path) -> None:
    path.write_text("\n".join(json.dumps({"uid": f"{n:032x}", "caption": f"é {n}", "n": n}) for n in range(ROWS)))


def npz(path: Path) -> None:
    np.savez(path, b32_img=np.ones((ROWS, 8), np.float16), ids=np.arange(ROWS))


def packed_npz(path: Path) -> None:
    np.savez_compressed(path, b32_img=np.ones((ROWS, 8), np.float16), ids=np.arange(ROWS))


def npy(path: Path) -> None:
    np.save(path, np.arange(ROWS * 4, dtype=np.float32).reshape(ROWS, 4))


def coco(path: Path) -> None:
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 4, "height": 4} for n in range(5)]
    boxes = [{"id": n, "image_id": n % 5, "category_id": 1, "bbox": [0, 0, 1, 2.5], "area": 2.5, "caption": "a dog",
              "segmentation": [[0, 0, 1, 1, 0, 1]], "iscrowd": 0} for n in range(9)]  # fmt: skip
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}))
    for n in range(5):
        (path.parent / f"{n}.jpg").write_bytes(jpeg(n))


def archive(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("metadata.csv", "file_name,text\n" + "".join(f"{n}.jpg,text {n}\n" for n in range(3)))
        for n in range(3):
            out.writestr(f"{n}.jpg", jpeg(n), zipfile.ZIP_STORED)
            out.writestr(f"{n}.json", json.dumps({"n": n}))


FORMATS: dict[str, Callable[[Path], None]] = {
    "a.parquet": parquet,
    "a.arrow": arrow,
    "stream.arrow": stream,
    "a.csv": delimited(","),
    "a.tsv": delimited("\t"),
    "a.jsonl": lines,
    "a.npz": npz,
    "packed.npz": packed_npz,
    "a.npy": npy,
    "coco.json": coco,
    "a.zip": archive,
}

_JSON = (b"null", b"[]", b"{}", b"-1e999", b"NaN", b"10000000000000000000000", b'"\\ud800"', b"[[[[", b"true", b'"x"')


def damage(data: bytes, random: Random) -> bytes:
    """Bytes that were cut, overwritten, repeated, swapped, or replaced by others that mean something."""
    for _ in range(random.choice((1, 1, 2, 5))):
        at = random.randrange(len(data) + 1)
        length = random.choice((1, 1, 4, 16, 200))
        kind = random.randrange(8)
        if kind == 0:
            data = data[:at]
        elif kind == 1:
            data = data[:at] + random.randbytes(length) + data[at + length :]
        elif kind == 2:
            data = data[:at] + bytes([random.choice((0, 0x7F, 0x80, 0xFF))]) * length + data[at + length :]
        elif kind == 3:
            data = data[:at] + data[max(at - length, 0) : at] + data[at:]
        elif kind == 4:
            data = data[:at] + data[at + length :]
        elif kind == 5:
            other = random.randrange(len(data) + 1)
            data = data[:at] + data[other : other + length] + data[at + length :]
        elif kind == 6:
            token = random.choice(_JSON)
            places = [i for i, byte in enumerate(data[:20_000]) if byte in b"0123456789"]
            at = random.choice(places) if places else at
            data = data[:at] + token + data[at + 1 :]
        else:
            at = min(at, max(len(data) - 1, 0))
            data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :] if data else data
        if not data:
            return data
    return data


def names(random: Random) -> bytes:
    """The name of a file as no program should choose it, as bytes."""
    stem = bytes(random.choice(b"ab \xff\xc3\xa9.'\"%#;\n\\{}*") for _ in range(random.randint(1, 9))).strip(b".")
    return (stem or b"a") + b".jpg"


def read(folder: Path, **options: Any) -> tuple[int, dict[str, ShardReport], list[dict[str, Any]]]:
    """How many rows a source gave, the reports of its shards, and what its account leaves out."""
    source = open_source(str(folder), unpack_to=str(folder.parent / "unpacked"), **options)
    reports: dict[str, ShardReport] = {}
    rows = 0
    for shard in source.shards():
        report = reports[shard.name] = ShardReport(shard.name)
        for batch in source.read(shard, report):
            batch.validate(full=True)
            assert batch.schema.equals(source.schema)
            rows += len(batch)
    left_out = [entry for report in reports.values() for entry in report.account.data() if not entry["used"]]
    return rows, reports, [*(entry for entry in source.account.data() if not entry["used"]), *left_out]


def whole(name: str, folder: Path) -> tuple[bytes, int]:
    """A file of a format as it should be, and how many rows it gives."""
    folder.mkdir()
    FORMATS[name](folder / name)
    return (folder / name).read_bytes(), read(folder)[0]


def one(name: str, data: bytes, rows: int, folder: Path, random: Random) -> str:
    """Damage a file and read it; says what is wrong with how that went, else nothing."""
    folder.mkdir()
    if name == "coco.json":
        coco(folder / name)
    (folder / name).write_bytes(damage(data, random))
    try:
        found, reports, left_out = read(folder)
    except FactoryError as error:
        return (
            ""
            if name.split(".", maxsplit=1)[0] in str(error) or str(folder) in str(error)
            else f"says not where: {error}"
        )
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    told = left_out or any(report.counts or report.problems for report in reports.values())
    text = name.endswith((".csv", ".tsv", ".jsonl"))  # what is cut between two lines is another table
    return "" if told or text or found >= rows else f"lost {rows - found} of {rows} rows in silence"


def odd_names(folder: Path, random: Random) -> str:
    """Pictures with odd names: all are in the dataset, or in the account."""
    folder.mkdir()
    written = set()
    for number in range(5):
        name = names(random)
        (folder / os.fsdecode(name)).write_bytes(jpeg(number))
        written.add(name)
    try:
        found, _, left_out = read(folder)
    except FactoryError as error:
        return "" if "UTF-8" in str(error) or "no samples" in str(error) else str(error)
    except Exception as error:
        return f"raises {type(error).__name__}: {error}"
    counted = found + sum(entry["count"] for entry in left_out)
    return "" if counted == len(written) else f"{counted} of {written}"


def fuzz(rounds: int, seed: int, folder: Path) -> list[str]:
    """What went wrong in so many rounds over all formats."""
    wrong: list[str] = []
    for name in FORMATS:
        data, rows = whole(name, folder / f"whole-{name}")
        for number in range(rounds):
            said = one(name, data, rows, folder / f"{name}-{number}", Random(f"{seed}/{name}/{number}"))
            wrong += [f"{name} {seed}/{number}: {said}"] if said else []
    for number in range(rounds):
        said = odd_names(folder / f"names-{number}", Random(f"{seed}/names/{number}"))
        wrong += [f"names {seed}/{number}: {said}"] if said else []
    return wrong


def main() -> None:
    """The command line."""
    rounds, seed = (int(given) for given in (*sys.argv[1:], *("200", "0")[len(sys.argv) - 1 :]))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FACTORY_HOME"] = f"{folder}/home"
        found = fuzz(rounds, seed, Path(folder))
    print("\n".join(found) or f"{rounds} rounds of {len(FORMATS) + 1} kinds: nothing wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
