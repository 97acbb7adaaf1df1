"""COCO's JSON as a table of pictures: one row a picture, with lists of what its annotations say.

`bboxes` are (x, y, width, height) in pixels, `categories` names and `category_ids` numbers of the same annotations in
the same order, `segmentations` the JSON of each as it is: a list of polygons, or for `iscrowd` = 1 a run-length
encoding (RLE) with `size` and `counts`. Captions become `caption`, the first, and `captions`, all of them.
Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from factory_lib.errors import SourceError
from factory_lib.redaction import redact
from factory_lib.sources.columns import json_column, json_type
from factory_lib.storage.store import FileInfo

_PLURALS = {
    "bbox": "bboxes", "category_id": "category_ids", "area": "areas", "segmentation": "segmentations",
    "caption": "captions", "id": "annotation_ids",
}  # fmt: skip
_TEXTS = {"segmentation", "keypoints", "segments_info", "attributes"}


def is_coco(found: Any) -> bool:
    """Whether a JSON document is of this format."""
    if not isinstance(found, dict) or not isinstance(found.get("images"), list):
        return False
    first = next(iter(found["images"]), None)  # of a test set, there are no annotations
    return "annotations" in found or (isinstance(first, dict) and {"id", "file_name"} <= first.keys())


class CocoTable:
    """Pictures of one COCO file.

    Attributes:
        skipped: annotations of pictures that the file does not list, and entries that are not what they should be.
    """

    def __init__(self, file: FileInfo, document: Mapping[str, Any]) -> None:
        images = [image for image in document["images"] if isinstance(image, dict)]
        if not images or not all("id" in image and "file_name" in image for image in images):
            raise SourceError(f"{redact(file.uri)} lists no images with an id and a file_name.")
        rows = {_hashable(image["id"]): row for row, image in enumerate(images)}
        grouped: list[list[dict[str, Any]]] = [[] for _ in images]
        self.skipped = len(document["images"]) - len(images)
        annotations = document.get("annotations")
        for annotation in annotations if isinstance(annotations, list) else ():
            row = rows.get(_hashable(annotation.get("image_id"))) if _is_sound(annotation) else None
            if row is None:
                self.skipped += 1
            else:
                grouped[row].append(annotation)
        columns = dict(_image_columns(images, document)) | dict(_annotation_columns(grouped, document))
        self._batch = pa.RecordBatch.from_pydict(columns)

    @property
    def schema(self) -> pa.Schema:
        """Columns of the pictures."""
        return self._batch.schema

    @property
    def rows(self) -> int:
        """Number of pictures."""
        return len(self._batch)

    def batches(self, size: int, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        """The pictures in pieces of at most `size`."""
        batch = self._batch if columns is None else self._batch.select(list(columns))
        for start in range(0, len(batch), size):
            yield batch.slice(start, size)


def _is_sound(annotation: Any) -> bool:
    """Whether an annotation is an object whose box and caption are such."""
    if not isinstance(annotation, dict):
        return False
    box, caption = annotation.get("bbox"), annotation.get("caption")
    numbers = box is None or (isinstance(box, list) and all(_is_number(side) for side in box))
    return numbers and (caption is None or isinstance(caption, str))


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63)


def _hashable(value: Any) -> Any:
    """An id that things are looked up by: a number may be written as text."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,18}", value):
        return int(value)
    return _text(value) if isinstance(value, list | dict) else value


def _image_columns(images: list[dict[str, Any]], document: Mapping[str, Any]) -> Iterator[tuple[str, pa.Array]]:
    licenses = {
        _hashable(one.get("id")): one.get("name") for one in document.get("licenses") or () if isinstance(one, dict)
    }
    for name in dict.fromkeys(name for image in images for name in image):
        values = [image.get(name) for image in images]
        if name == "license" and licenses:
            values = [licenses.get(_hashable(value), value) for value in values]
        yield "image_id" if name == "id" else name, json_column(values, json_type(values))[0]


def _annotation_columns(
    grouped: list[list[dict[str, Any]]], document: Mapping[str, Any]
) -> Iterator[tuple[str, pa.Array]]:
    names = dict.fromkeys(name for annotations in grouped for one in annotations for name in one)
    for name in names:
        if name == "image_id":
            continue
        lists = [[one.get(name) for one in annotations] for annotations in grouped]
        column = "caption_ids" if name == "id" and "caption" in names else _PLURALS.get(name, name)
        yield column, _list_column(name, lists)
        if name == "caption":
            yield "caption", json_column([next(filter(None, said), None) for said in lists], pa.string())[0]
        if name == "category_id":
            categories = {
                _hashable(one.get("id")): one for one in document.get("categories") or () if isinstance(one, dict)
            }
            for field, plural in (("name", "categories"), ("supercategory", "supercategories")):
                if any(field in one for one in categories.values()):
                    found = [
                        [str(categories.get(_hashable(n), {}).get(field, n)) for n in numbers] for numbers in lists
                    ]
                    yield plural, _lists(found, pa.string())


def _objects(document: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    found = document.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _said(category: Mapping[str, Any], field: str, number: Any) -> str:
    """What a category is called; its number where it is in no list."""
    said = category.get(field, number)
    return said if isinstance(said, str) else _text(said)


def _list_column(name: str, lists: list[list[Any]]) -> pa.Array:
    if name == "bbox":
        return pa.array(lists, pa.list_(pa.list_(pa.float32())))
    values = [value for some in lists for value in some]
    kind = json_type(values)
    if name in _TEXTS or pa.types.is_string(kind):
        texts = [[v if v is None or isinstance(v, str) else _text(v) for v in some] for some in lists]
        return _lists(texts, pa.string())
    return _lists(lists, kind)


def _lists(lists: list[list[Any]], kind: pa.DataType) -> pa.ListArray:
    """Lists of JSON values as lists of one type."""
    values, _ = json_column([value for some in lists for value in some], kind)
    ends = np.cumsum([len(some) for some in lists], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), values)


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
