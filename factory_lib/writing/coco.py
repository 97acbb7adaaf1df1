"""Samples as COCO's JSON: `annotations/instances.json` where there are boxes, `captions.json` where there are captions.

Columns are those that COCO becomes when it is read (see `sources.coco`): `bboxes` (x, y, width, height, in pixels),
`categories`, `category_ids`, `supercategories`, `segmentations`, `areas`, `iscrowd`, `captions` or `caption`. Boxes in
shares of the sides, `relative_bboxes`, are scaled by `width` and `height` where a sample has no others.
Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np

from factory_lib.storage.store import store
from factory_lib.writing.categories import Categories
from factory_lib.writing.formats import ExportFormat, json_bytes, put
from factory_lib.writing.keys import SAMPLE_NAME
from factory_lib.writing.parts import ExportPart, PartReport
from factory_lib.writing.rows import ExportRows
from factory_lib.writing.webdataset import extension_of

Row = dict[str, Any]
_BOXES = ("bboxes", "relative_bboxes")
_OF_IMAGES = ("width", "height", "license", "coco_url", "flickr_url", "date_captured")


@dataclass(frozen=True, kw_only=True)
class CocoExport(ExportFormat):
    """COCO's JSON, with pictures below `images/` unless they are not wanted; a `file_name` is a path below the target.

    Attributes:
        images: write the pictures, too. Without them a `file_name` is the key, with `.jpg`.
    """

    name: ClassVar[str] = "coco"
    takes_names_alone: ClassVar[bool] = True
    samples_per_file: int = 1_000
    images: bool = True

    def chosen_members(self, kinds: Mapping[str, str]) -> list[str]:
        """The pictures."""
        return [name for name in super().chosen_members(kinds) if name == "image" and self.images]

    def files(self, parts: Sequence[ExportPart]) -> list[str]:
        """What stands in two folders."""
        return ["images/", "annotations/"]

    def write(self, part: ExportPart, rows: ExportRows, to: str, parts: int) -> PartReport:
        """The pictures of a part."""
        report = PartReport()
        if not rows.members:
            report.samples = part.stop - part.start
            return report
        for block in rows.blocks(part, report, strict=self.strict):
            for key, content in zip(block.keys, block.members["image"], strict=True):
                if content is not None:
                    report.files |= put(to, f"images/{key}.{extension_of('image', content)}", bytes(content))
        return report

    def finish(self, rows: ExportRows, parts: Mapping[ExportPart, PartReport], to: str) -> PartReport:
        """The JSON, and how many boxes are not in it."""
        document = _Document(rows, parts)
        boxes, captions = document.boxes, document.captions
        kinds = {"instances": boxes, "captions": captions} if boxes or captions else {"images": True}
        report = PartReport()
        for kind in (kind for kind, wanted in kinds.items() if wanted):
            name = f"annotations/{kind}.json"
            with store().writing(f"{to}/{name}") as out:
                document.write(out, kind)
                report.files[name] = out.tell()
        for what, count in document.lost.items():
            report.leaves_out(what, count)
        return report


class _Document:
    """What the files of COCO are made of, read block by block as often as they need it.

    Attributes:
        boxes: columns of boxes.
        captions: the column of captions; empty where there is none.
        lost: `boxes` and `segmentations` that could not be written -> how many.
    """

    def __init__(self, rows: ExportRows, parts: Mapping[ExportPart, PartReport]) -> None:
        self._rows, self._parts = rows, parts
        self._files = {
            name.removeprefix("images/").rpartition(".")[0]: name for report in parts.values() for name in report.files
        }
        names = set(rows.names)
        self.boxes = [name for name in _BOXES if name in names]
        self.lost: Counter[str] = Counter()
        self.captions = next((name for name in ("captions", "caption") if name in names), "")
        self._ids = self._image_ids() if "image_id" in names else None
        self._categories = Categories(self._said_categories())
        licenses = sorted({row["license"] for _, row in self._samples() if row.get("license")})
        self._licenses = {name: number for number, name in enumerate(licenses, 1)}

    def write(self, out: BinaryIO, kind: str) -> None:
        """One file, its lists piece by piece."""
        listed = [{"id": number, "name": name} for name, number in self._licenses.items()]
        out.write(b'{"info": {}, "licenses": ' + json_bytes(listed) + b', "images": ')
        _put_list(out, (self._image(number, row) for number, row in self._samples()))
        if kind == "instances":
            out.write(b', "categories": ' + json_bytes(self._categories.listed))
        out.write(b', "annotations": ')
        found = {"instances": self._instances, "captions": self._said}.get(kind, lambda: iter(()))()
        _put_list(out, ({"id": n, **one} for n, one in enumerate(found, 1)))
        out.write(b"}")

    def _samples(self) -> Iterator[tuple[int, Row]]:
        """Id and columns of the samples that were written."""
        for part, report in self._parts.items():
            left = set(report.left)
            for positions, batch in self._rows.columns(part):
                for position, row in zip(positions.tolist(), batch.to_pylist(), strict=True):
                    if position not in left:
                        yield position + 1 if self._ids is None else self._ids[position], row

    def _image_ids(self) -> list[int] | None:
        """The ids that the samples have, where each has one of its own."""
        parts = (self._rows.columns(part) for part in self._parts)
        found = np.array(
            [one for blocks in parts for _, b in blocks for one in b.column("image_id").to_pylist()], object
        )
        whole = all(isinstance(one, int) for one in found) and len(set(found)) == len(found)
        return list(found) if whole else None

    def _said_categories(self) -> Iterator[tuple[int | None, str | None, str | None]]:
        for _, row in self._samples() if self.boxes else ():
            for n in range(len(row[self._boxes_of(row)] or ())):
                yield *_category(row, n), _at(row, "supercategories", n)

    def _boxes_of(self, row: Row) -> str:
        """The column with the boxes of a sample."""
        return next((name for name in self.boxes if row[name]), self.boxes[0])

    def _image(self, number: int, row: Row) -> Row:
        key = row[SAMPLE_NAME]
        found = {"id": number, "file_name": self._files.get(key, f"{key}.jpg")}
        found |= {name: row[name] for name in _OF_IMAGES if row.get(name) is not None}
        return found | ({"license": self._licenses[row["license"]]} if row.get("license") else {})

    def _instances(self) -> Iterator[Row]:
        for number, row in self._samples():
            column = self._boxes_of(row)
            for n, box in enumerate(row[column] or ()):
                pixels = _in_pixels(box, row, relative=column == "relative_bboxes")
                if pixels is None:
                    self.lost["boxes"] += 1
                    continue
                area = _at(row, "areas", n)
                yield {
                    "image_id": number,
                    "category_id": self._categories.number(*_category(row, n)),
                    "bbox": pixels,
                    "area": pixels[2] * pixels[3] if area is None or not math.isfinite(area) else area,
                    "iscrowd": _at(row, "iscrowd", n) or 0,
                    **self._outline(_at(row, "segmentations", n)),
                }

    def _outline(self, text: str | None) -> Row:
        try:
            return {"segmentation": json.loads(text)} if text else {}
        except ValueError:
            self.lost["segmentations"] += 1
            return {}

    def _said(self) -> Iterator[Row]:
        for number, row in self._samples():
            found = row[self.captions]
            for caption in found if isinstance(found, list) else [found]:
                if caption is not None:
                    yield {"image_id": number, "caption": caption}


def _at(row: Row, column: str, n: int) -> Any:
    """What a column says of annotation n of a sample; None where it says nothing."""
    values = row.get(column) or ()
    return values[n] if n < len(values) else None


def _category(row: Row, n: int) -> tuple[int | None, str | None]:
    """Number and name of the category of annotation n of a sample; what is no number is a name."""
    number, name = _at(row, "category_ids", n), _at(row, "categories", n)
    if number is None or isinstance(number, int):
        return number, name
    return None, str(number) if name is None else name


def _in_pixels(box: list[float | None] | None, row: Row, *, relative: bool) -> list[float] | None:
    """A box in pixels; None where it is none, or is in shares of sides that are not known."""
    sides = (row.get("width"), row.get("height")) * 2 if relative else (1, 1, 1, 1)
    scaled = [part * side for part, side in zip(box or (), sides, strict=False) if part is not None and side]
    return scaled if len(scaled) == 4 and all(map(math.isfinite, scaled)) else None


def _put_list(out: BinaryIO, items: Iterator[Row]) -> None:
    out.write(b"[")
    for n, item in enumerate(items):
        out.write((b", " if n else b"") + json_bytes(item))
    out.write(b"]")
