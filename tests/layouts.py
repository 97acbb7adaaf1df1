"""Small sources in every layout that people have, written with nothing of ours: what goes in is known, and counted."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import feather

COUNT = 6


@cache
def jpeg(number: int) -> bytes:
    """A picture of noise, large enough for every filter and like no other."""
    pixels = np.random.default_rng(number).integers(0, 255, (96, 96, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=60)
    return out.getvalue()


def caption(number: int) -> str:
    """A caption that every filter keeps."""
    return f"the picture number {number}, all noise"


NUMBERS = range(COUNT)
PAIRS = {(hashlib.sha256(jpeg(n)).hexdigest(), caption(n)) for n in NUMBERS}
"""What every layout with captions holds: the digest of each picture, and its caption."""


@dataclass(frozen=True)
class Layout:
    """One way to keep samples.

    Attributes:
        write: writes them into a folder and says what is the source there.
        mapping: options of `factory demo`; `{folder}` stands for the folder.
        captions, pictures: whether there are some.
        unpack: whether the source is unpacked once.
        http: whether it is read from a web server.
    """

    write: Callable[[Path], str]
    mapping: Mapping[str, str] = field(default_factory=dict)
    captions: bool = True
    pictures: bool = True
    unpack: bool = False
    http: bool = False


def tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> None:
    """A tar, compressed where the mode says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, data in members:
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))


def files(folder: Path, names: Callable[[int], str]) -> list[str]:
    """The pictures as files."""
    for n in NUMBERS:
        path = folder / names(n)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(n))
    return [names(n) for n in NUMBERS]


def members(image: str = ".jpg", text: str | None = ".txt") -> list[tuple[str, bytes]]:
    """Members of a tar: pictures, and captions beside them."""
    found = []
    for n in NUMBERS:
        found.append((f"{n:09d}{image}", jpeg(n)))
        if text is not None:
            found.append((f"{n:09d}{text}", caption(n).encode()))
    return found


def img2dataset_files(root: Path) -> str:
    """`img2dataset --output_format files`, with a download that failed."""
    records = []
    for n in NUMBERS:
        key = f"{n:09d}"
        (root / "00000").mkdir(parents=True, exist_ok=True)
        (root / "00000" / f"{key}.jpg").write_bytes(jpeg(n))
        (root / "00000" / f"{key}.txt").write_text(caption(n))
        records.append(record(key, caption(n)))
        (root / "00000" / f"{key}.json").write_text(json.dumps(records[-1]))
    failed = {**record("000000099", "was never there"), "status": "failed_to_download", "error_message": "404"}
    pq.write_table(pa.Table.from_pylist([failed, *records[::-1]]), root / "00000.parquet")
    (root / "00000_stats.json").write_text(json.dumps({"count": COUNT + 1, "successes": COUNT}))
    return ""


def record(key: str, text: str) -> dict[str, Any]:
    """A row as img2dataset writes it."""
    known = {"url": f"http://x/{key}", "caption": text, "key": key, "status": "success", "error_message": None}
    return {**known, "width": 96, "height": 96, "original_width": 300, "original_height": 300}


def img2dataset_parquet(root: Path) -> str:
    """`img2dataset --output_format parquet`."""
    rows = [{**record(f"{n:09d}", caption(n)), "jpg": jpeg(n)} for n in NUMBERS]
    failed = {**record("000000099", "gone"), "status": "failed_to_download", "error_message": "404", "jpg": None}
    pq.write_table(pa.Table.from_pylist([*rows, failed]), root / "00000.parquet")
    return ""


def img2dataset_tars(root: Path) -> str:
    """`img2dataset --output_format webdataset`."""
    tar(root / "00000.tar", members())
    rows = [record(f"{n:09d}", caption(n)) for n in reversed(NUMBERS)]
    pq.write_table(pa.Table.from_pylist(rows), root / "00000.parquet")
    return ""


def hugging_face(root: Path, as_list: bool = False) -> str:
    """Parquet with structs of bytes and paths, or lists of them."""
    pictures: list[Any] = [{"bytes": jpeg(n), "path": f"{n}.jpg"} for n in NUMBERS]
    (root / "data").mkdir(parents=True)
    columns = {"image" if not as_list else "images": [[p] for p in pictures] if as_list else pictures}
    pq.write_table(pa.table({**columns, "text": [caption(n) for n in NUMBERS]}), root / "data" / "train-0.parquet")
    return ""


def arrow_stream(root: Path) -> str:
    """What `save_to_disk` of Hugging Face's datasets writes."""
    pictures = [{"bytes": jpeg(n), "path": None} for n in NUMBERS]
    table = pa.table({"image": pictures, "text": [caption(n) for n in NUMBERS]})
    with pa.OSFile(str(root / "data-00000-of-00001.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as out:
        out.write_table(table)
    (root / "dataset_info.json").write_text("{}")
    (root / "state.json").write_text("{}")
    return ""


def beside(name: str, column: str = "file_name") -> Callable[[Path], str]:
    """Pictures in a folder of their own, and a table that names them."""

    def write(root: Path) -> str:
        names = files(root, lambda n: f"train/photo {n}.jpg")
        frame = pd.DataFrame({column: names, "caption": [caption(n) for n in NUMBERS]})
        save(frame.iloc[::-1], root / name)
        return ""

    return write


def save(frame: pd.DataFrame, path: Path) -> None:
    """A table in the format that its name says."""
    if path.suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",", quoting=csv.QUOTE_NONNUMERIC)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif path.suffix == ".arrow":
        feather.write_feather(frame.reset_index(drop=True), str(path))
    else:
        frame.to_parquet(path)


def metadata(name: str, numbers: bool = False) -> Callable[[Path], str]:
    """Tars without captions, and a table of them somewhere else."""

    def write(root: Path) -> str:
        tar(root / "tars" / "0.tar", members(text=None))
        keys = [n if numbers else f"{n:09d}" for n in NUMBERS]
        save(pd.DataFrame({"key": keys, "TEXT": [caption(n) for n in NUMBERS]}).iloc[::-1], root / name)
        return "tars"

    return write


def coco(root: Path) -> str:
    """Instances with polygons and RLE, and captions."""
    names = files(root / "val2017", lambda n: f"{n:012d}.jpg")
    images = [{"id": n, "file_name": names[n], "width": 96, "height": 96} for n in NUMBERS]
    shapes: list[Any] = [[[1, 1, 9, 1, 9, 9]], {"size": [96, 96], "counts": [9, 5, 96 * 96 - 14]}]
    annotations = [
        {"id": n, "image_id": n, "category_id": 90, "bbox": [1, 1, 8, 8], "area": 32, "iscrowd": n % 2,
         "segmentation": shapes[n % 2]}
        for n in NUMBERS
    ]  # fmt: skip
    (root / "annotations").mkdir()
    instances = {"images": images, "annotations": annotations, "categories": [{"id": 90, "name": "toothbrush"}]}
    said = [{"id": n, "image_id": n, "caption": caption(n)} for n in NUMBERS]
    for name, document in (("instances", instances), ("captions", {"images": images, "annotations": said})):
        (root / "annotations" / f"{name}_val2017.json").write_text(json.dumps(document))
    return ""


def archive(compression: int) -> Callable[[Path], str]:
    """A zip of pictures with their captions beside them."""

    def write(root: Path) -> str:
        with zipfile.ZipFile(root / "photos.zip", "w", compression) as out:
            for n in NUMBERS:
                out.writestr(f"photos/{n}.jpg", jpeg(n))
                out.writestr(f"photos/{n}.txt", caption(n))
        return "photos.zip"

    return write


def packed(name: str) -> Callable[[Path], str]:
    """A compressed tar."""

    def write(root: Path) -> str:
        tar(root / name, members(), "w:gz")
        return ""

    return write


def plain_tar(root: Path, **how: Any) -> str:
    """One tar."""
    tar(root / "0.tar", members(**how))
    return ""


def listed(root: Path) -> str:
    """Two tars, and a list of them; a third one is not meant."""
    every = members()
    for number in range(3):
        tar(root / "pool" / f"{number}.tar", every[number * COUNT : (number + 1) * COUNT] or every[:2])
    (root / "pool" / "shards.txt").write_text("0.tar\n1.tar\n")
    return "pool/shards.txt"


def pool(root: Path) -> str:
    """DataComp's metadata, for which nothing was downloaded."""
    uids = [f"{n:032x}" for n in NUMBERS]
    columns = {"uid": uids, "url": [f"http://x/{n}.jpg" for n in NUMBERS], "text": [caption(n) for n in NUMBERS]}
    sides = {"original_width": [300] * COUNT, "original_height": [200] * COUNT}
    (root / "metadata").mkdir()
    pq.write_table(pa.table({**columns, **sides}), root / "metadata" / "0.parquet")
    vectors = np.random.default_rng(0).normal(size=(COUNT, 8)).astype(np.float16)
    np.savez(root / "metadata" / "0.npz", b32_img=vectors, b32_txt=vectors)
    return ""


def datacomp(root: Path) -> str:
    """A pool whose metadata and tars have other shards."""
    pool(root)
    rows = [{"uid": f"{n:032x}", "url": f"http://x/{n}.jpg"} for n in NUMBERS]
    content = []
    for n in NUMBERS:
        content += [(f"{n:012d}.jpg", jpeg(n)), (f"{n:012d}.json", json.dumps(rows[n]).encode())]
    tar(root / "shards" / "00000000.tar", content[: COUNT // 2 * 2])
    tar(root / "shards" / "00000001.tar", content[COUNT // 2 * 2 :])
    return ""


def class_folders(root: Path) -> str:
    """A folder for each class, with captions beside the pictures."""
    for name in files(root, lambda n: f"class {n % 3}/{n}.JPEG"):
        path = root / name
        path.with_suffix(".txt").write_text(caption(int(path.stem)))
    return ""


def captions_apart(root: Path) -> str:
    """Captions in a folder of their own, for each split."""
    for n, name in enumerate(files(root, lambda n: f"images/{'val' if n % 3 else 'train'}/{n % 3}{n // 3}.jpg")):
        path = root / name.replace("images", "captions").replace(".jpg", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(caption(n))
    return ""


def file_names(root: Path) -> str:
    """Tars, and a table somewhere else that names their members as files of another machine."""
    tar(root / "tars" / "0.tar", [(f"train/{name}", data) for name, data in members(text=None)])
    names = [f"/data/other/train/{n:09d}.jpg" for n in NUMBERS]
    save(pd.DataFrame({"file_name": names, "text": [caption(n) for n in NUMBERS]}).iloc[::-1], root / "m.csv")
    return "tars"


def partitions(root: Path) -> str:
    """A table in folders that are its columns."""
    rows = [{"image": {"bytes": jpeg(n), "path": None}, "text": caption(n), "split": f"s{n % 2}"} for n in NUMBERS]
    pq.write_to_dataset(pa.Table.from_pylist(rows), str(root), partition_cols=["split"])
    return ""


def packed_table(root: Path) -> str:
    """A compressed CSV beside pictures."""
    beside("captions.csv", "path")(root)
    with gzip.open(root / "captions.csv.gz", "wb") as out:
        shutil.copyfileobj(io.BytesIO((root / "captions.csv").read_bytes()), out)
    (root / "captions.csv").unlink()
    return ""


LAYOUTS = {
    "img2dataset files": Layout(img2dataset_files),
    "img2dataset parquet": Layout(img2dataset_parquet, unpack=True),
    "img2dataset tars": Layout(img2dataset_tars),
    "hugging face parquet": Layout(hugging_face, unpack=True),
    "hugging face lists": Layout(lambda root: hugging_face(root, as_list=True), unpack=True),
    "hugging face arrow": Layout(arrow_stream, unpack=True),
    "metadata.csv": Layout(beside("metadata.csv")),
    "metadata.jsonl": Layout(beside("metadata.jsonl")),
    "csv of paths": Layout(beside("captions.csv", "filepath")),
    "tsv of paths": Layout(beside("captions.tsv", "image")),
    "jsonl of paths": Layout(beside("captions.jsonl", "image_path")),
    "arrow of paths": Layout(beside("captions.arrow", "path")),
    "csv.gz of paths": Layout(packed_table),
    "csv as metadata": Layout(metadata("m.csv", numbers=True), {"metadata": "{folder}/m.csv"}),
    "tsv as metadata": Layout(metadata("m.tsv"), {"metadata": "{folder}/m.tsv"}),
    "jsonl as metadata": Layout(metadata("m.jsonl"), {"metadata": "{folder}/m.jsonl"}),
    "arrow as metadata": Layout(metadata("m.arrow"), {"metadata": "{folder}/m.arrow"}),
    "parquet as metadata": Layout(metadata("m.parquet", numbers=True), {"metadata": "{folder}/m.parquet"}),
    "coco": Layout(coco),
    "zip, stored": Layout(archive(zipfile.ZIP_STORED)),
    "zip, compressed": Layout(archive(zipfile.ZIP_DEFLATED), unpack=True),
    "tar.gz": Layout(packed("0.tar.gz"), unpack=True),
    "tgz": Layout(packed("0.tgz"), unpack=True),
    "tars over http": Layout(plain_tar, http=True),
    "a list over http": Layout(listed, http=True),
    ".input.jpg": Layout(
        lambda root: plain_tar(root, image=".input.jpg", text=".blip.txt"),
        {"image": "input.jpg", "caption": "blip.txt"},
    ),
    "jpg-only tars": Layout(lambda root: plain_tar(root, text=None), captions=False),
    "tars without captions": Layout(lambda root: plain_tar(root, text=".cls"), captions=False),
    "datacomp metadata": Layout(pool, pictures=False),
    "datacomp pool": Layout(datacomp),
    "class folders": Layout(class_folders),
    "captions apart": Layout(captions_apart),
    "file names as metadata": Layout(file_names, {"metadata": "{folder}/m.csv"}),
    "partitions": Layout(partitions, unpack=True),
}
