"""Labels of pictures with boxes, a file a picture: YOLO's texts and Pascal VOC's XML, told by what is in them.

YOLO: a line an object, `class x y width height` with the centre, in shares of the picture's sides; or
`class x1 y1 x2 y2 …`, a polygon; behind a box may stand keypoints, or how sure a model is
(https://docs.ultralytics.com/datasets/). As the sides of pictures are not known, these become `relative_bboxes`:
(x, y, width, height) with the upper left corner, as in COCO, in shares. VOC's boxes are in pixels: `bboxes`,
(xmin, ymin, xmax - xmin, ymax - ymin), as numbers stand in the file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import pyarrow as pa

from factory_lib.sources.classes import Classes, NamedClasses
from factory_lib.sources.shards import ShardReport
from factory_lib.sources.sidecars import Contents, unmarked, where

_LINE = re.compile(r"\s*(\d{1,9})((?:\s+[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?){4,})\s*")
_SLACK = 0.5
"""How far outside of a picture, in its sides, a value may lie for the text to be taken for a label."""
_BOXES = pa.list_(pa.list_(pa.float32()))
_TEXTS = pa.list_(pa.string())
_VOC: dict[str, pa.DataType] = {
    "categories": _TEXTS, "bboxes": _BOXES, "objects": _TEXTS, "width": pa.int32(), "height": pa.int32(),
}  # fmt: skip
_YOLO: dict[str, pa.DataType] = {
    "category_ids": pa.list_(pa.int64()), "categories": _TEXTS, "relative_bboxes": _BOXES,
    "scores": pa.list_(pa.float32()), "relative_segmentations": _TEXTS, "relative_keypoints": _TEXTS,
}  # fmt: skip
_MISSING = {"scores": math.nan, "relative_segmentations": "", "relative_keypoints": ""}
"""What stands in a list for an object that has none, of what not all labels have."""


class _BadLabelError(Exception):
    """A label is not what it should be."""


@dataclass(frozen=True)
class Boxes:
    """What labels of one extension become.

    Attributes:
        kind: how they are written.
        columns: that they become.
        classes: of YOLO, what the numbers of classes are called; a class without a name is called by its number.
    """

    kind: Literal["yolo", "voc"]
    columns: tuple[str, ...]
    classes: NamedClasses = field(default_factory=NamedClasses)

    @property
    def fields(self) -> dict[str, pa.DataType]:
        """Type of each column."""
        every = _YOLO if self.kind == "yolo" else _VOC
        return {name: every[name] for name in self.columns}

    def read(self, contents: Contents, keys: pa.StringArray, report: ShardReport) -> dict[str, pa.Array]:
        """Columns of some samples, null for one without labels; what is no label is counted.

        Args:
            contents: of the labels, None where a sample has none.
        """
        found: list[dict[str, Any]] = []
        bad: list[int] = []
        for row, (content, key) in enumerate(zip(contents, keys.to_pylist(), strict=True)):
            values, sound = ({}, True) if content is None else self._read(content, key)
            found.append(values)
            if not sound:
                bad.append(row)
        if bad:
            report.count("bad_labels", len(bad))
            report.problem(f"labels of {where(keys, bad)} are unreadable, all or in part: that is left out")
        return {name: pa.array([one.get(name) for one in found], kind) for name, kind in self.fields.items()}

    def _read(self, content: bytes, key: str) -> tuple[dict[str, Any], bool]:
        try:
            rows, others = _voc(content) if self.kind == "voc" else _yolo(content, self.classes.of(key))
        except _BadLabelError:
            return {}, False
        objects = [row for row in rows if row is not None]
        lists = {n: [row.get(n, _MISSING.get(n)) for row in objects] for n in self.columns if n not in others}
        return lists | others, len(objects) == len(rows) and all(set(row) <= set(self.columns) for row in objects)


def boxes_of(contents: Sequence[bytes | None], classes: NamedClasses) -> Boxes | None:
    """What some labels of one extension become; None where they are no labels.

    Args:
        classes: as `find_classes` found them.
    """
    some = [content for content in contents if content is not None and content.strip()]
    if not some:
        return None
    if sum(map(_is_voc, some)) > len(some) / 2:  # those that are damaged are counted when they are read
        return Boxes("voc", tuple(_VOC))
    lines = [line for content in some for line in _text(content).splitlines() if line.strip()]
    if sum(map(_is_yolo, lines)) <= len(lines) / 2 or not any("." in line for line in lines):
        return None
    known = [said for _, said in classes.folders] or [Classes()]
    seen = {name for content in some for said in known for row in _yolo(content, said)[0] for name in row or ()}
    return Boxes("yolo", tuple(name for name in _YOLO if name not in _MISSING or name in seen), classes)


def _text(content: bytes) -> str:
    return (unmarked(content) or b"").decode("utf-8", "replace")


def _is_yolo(line: str) -> bool:
    match = _LINE.fullmatch(line)
    return match is not None and all(-_SLACK <= float(value) <= 1 + _SLACK for value in match[2].split()[:4])


def _yolo(content: bytes, classes: Classes) -> tuple[list[dict[str, Any] | None], dict[str, Any]]:
    names = dict(classes.names)
    lines = [line for line in _text(content).splitlines() if line.strip()]
    return [_object(line, names, classes.keypoints) for line in lines], {}


def _object(line: str, names: dict[int, str], keypoints: int) -> dict[str, Any] | None:
    match = _LINE.fullmatch(line)
    if match is None:
        return None
    number, values = int(match[1]), [float(value) for value in match[2].split()]
    found: dict[str, Any] = {"category_ids": number, "categories": names.get(number, str(number))}
    if keypoints and len(values) == 4 + keypoints:
        found["relative_keypoints"] = json.dumps(values[4:])
    elif len(values) == 5:
        found["scores"] = values[4]
    elif len(values) > 5:
        if len(values) % 2:
            return None
        xs, ys = values[::2], values[1::2]
        found["relative_segmentations"] = json.dumps([values])
        return found | {"relative_bboxes": [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]}
    x, y, width, height = values[:4]
    return found | {"relative_bboxes": [x - width / 2, y - height / 2, width, height]}


def _is_voc(content: bytes) -> bool:
    try:
        return _parsed(content).tag == "annotation"
    except _BadLabelError:
        return False


def _voc(content: bytes) -> tuple[list[dict[str, Any] | None], dict[str, Any]]:
    root = _parsed(content)
    if root.tag != "annotation":
        raise _BadLabelError
    sides = {name: _whole(root.findtext(f"size/{name}")) for name in ("width", "height")}
    return [_boxed(one) for one in root.iterfind("object")], sides


def _boxed(one: Element) -> dict[str, Any] | None:
    try:
        left, top, right, bottom = (float(one.findtext(f"bndbox/{s}") or "") for s in ("xmin", "ymin", "xmax", "ymax"))
        said = json.dumps(_data(one), ensure_ascii=False)
    except (ValueError, RecursionError):
        return None
    if not all(map(math.isfinite, (left, top, right, bottom))):
        return None
    name = (one.findtext("name") or "").strip()
    return {"categories": name, "bboxes": [left, top, right - left, bottom - top], "objects": said}


def _data(element: Element) -> Any:
    """An element for JSON: its text, or what is in it; several of one name are a list."""
    if not len(element):
        return (element.text or "").strip()
    found: dict[str, list[Any]] = {}
    for one in element:
        found.setdefault(one.tag, []).append(_data(one))
    return {name: values if len(values) > 1 else values[0] for name, values in found.items()}


def _whole(text: str | None) -> int | None:
    """A side in pixels; 0 is written where it is not known."""
    try:
        number = int(float(text or ""))
    except (ValueError, OverflowError):
        return None
    return number if 0 < number < 2**31 else None


def _parsed(content: bytes) -> Element:
    """An XML document without entities of its own, which could be of any size.

    Raises:
        _BadLabelError: it is none.
    """
    parser, builder = expat.ParserCreate(), TreeBuilder()
    parser.buffer_text = True
    parser.EntityDeclHandler = _refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
        return builder.close()
    except (expat.ExpatError, ValueError, AssertionError, LookupError) as error:
        raise _BadLabelError from error


def _refuse(*_: Any) -> None:
    raise ValueError("entities are not read")
