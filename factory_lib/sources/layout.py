"""What the members of a source's tars become: settled once, from its first tars, so that all shards have one schema."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from factory_lib.pictures import EXTENSIONS
from factory_lib.sources.boxes import Boxes, boxes_of
from factory_lib.sources.classes import NamedClasses
from factory_lib.sources.columns import TYPES, json_type, name_columns
from factory_lib.sources.members import split_names
from factory_lib.sources.shards import POINTER
from factory_lib.sources.sidecars import json_objects
from factory_lib.sources.tar import TarBlock

IMAGES = EXTENSIONS
"""Extensions of what becomes `image`; when a sample has several, the first in this order."""
INTEGERS = frozenset({"cls", "cls2", "class", "index", "inx", "id", "count"})
"""Extensions of members that hold one integer as text."""
TEXTS = frozenset({"txt", "text", "caption", "transcript"})
"""Extensions, also at the end of a dotted one (`url.txt`), of members that hold text."""

Kind = Literal["image", "pointer", "text", "integer", "json", "json_text", "boxes", "ignored"]
_LOOKED_INTO = 200
"""Texts of an extension that are looked into for being labels."""


_READ = frozenset({"text", "integer", "json", "json_text", "boxes"})
"""Kinds whose contents are read."""


@dataclass(frozen=True)
class MemberSlot:
    """What members of one extension become.

    Attributes:
        extension: lower-case, dots included.
        kind: `image` and `pointer` stay where they are, `json` becomes one column a field, `json_text` one text,
            `boxes` the columns of labels.
        column: name; of `json` that of documents that are no objects, empty when there are none; of an
            `image` the column for a second image of a sample, empty when no sample has one.
        boxes: what labels become.
    """

    extension: str
    kind: Kind
    column: str
    boxes: Boxes | None = None


@dataclass(frozen=True)
class JsonField:
    """One field of the samples' JSON objects and the column that it becomes."""

    name: str
    column: str
    type: pa.DataType


@dataclass(frozen=True)
class Layout:
    """Extensions and JSON fields of a source with the columns that they become."""

    slots: tuple[MemberSlot, ...] = ()
    fields: tuple[JsonField, ...] = ()
    key_pattern: str | None = None

    @property
    def extensions(self) -> tuple[str, ...]:
        """What `Members.codes` index."""
        return tuple(slot.extension for slot in self.slots)

    @property
    def textual(self) -> frozenset[str]:
        """Extensions whose contents are read."""
        return frozenset(slot.extension for slot in self.slots if slot.kind in _READ)

    @property
    def has_image(self) -> bool:
        """Whether there is an `image` column."""
        return any(slot.kind == "image" for slot in self.slots)

    @property
    def schema(self) -> pa.Schema:
        """`key`, pointers, then attributes."""
        columns: dict[str, pa.DataType] = {"key": pa.string()}
        if self.has_image:
            columns["image"] = POINTER
        of_kind = {"text": pa.string(), "integer": pa.int64(), "json_text": pa.string(), "json": pa.string()}
        columns |= {slot.column: POINTER for slot in self.slots if slot.kind in {"image", "pointer"} and slot.column}
        columns |= {slot.column: of_kind[slot.kind] for slot in self.slots if slot.column and slot.kind in of_kind}
        for slot in self.slots:
            for name, kind in slot.boxes.fields.items() if slot.boxes else ():
                columns.setdefault(name, kind)
        for found in self.fields:
            columns.setdefault(found.column, found.type)
        return pa.schema(columns)


@dataclass
class LayoutBuilder:
    """Collects what the first tars hold.

    Args:
        parse_json: whether fields of `.json` members become columns; not where a table beside the tar says the same.
        texts: extensions whose contents are text besides those in `TEXTS`.
        classes: what is known of the classes of labels.
        reserved: columns that samples have besides.
    """

    parse_json: bool = True
    texts: frozenset[str] = frozenset()
    classes: NamedClasses = field(default_factory=NamedClasses)
    reserved: frozenset[str] = frozenset()
    extensions: dict[str, None] = field(default_factory=dict)
    members: Counter[str] = field(default_factory=Counter)
    values: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    second_images: set[str] = field(default_factory=set)
    named_classes: set[str] = field(default_factory=set)
    labels: dict[str, list[bytes | None]] = field(default_factory=lambda: defaultdict(list))
    has_other_json: bool = False
    key_pattern: str | None = None

    def add(self, block: TarBlock) -> None:
        """Take the extensions and JSON fields of a block into account."""
        keys, encoded = split_names(block.names, self.key_pattern)
        self.extensions |= dict.fromkeys(name for name in encoded.dictionary.to_pylist() if name)
        names = encoded.to_pylist()
        self.members.update(name for name in names if name)
        self.add_images(keys.to_pylist(), names)
        for extension in INTEGERS & self.extensions.keys():
            rows = [row for row, name in enumerate(names) if name == extension]
            self.add_classes(extension, block.payloads(np.asarray(rows, np.int64)))
        for extension in filter(may_be_labels, self.extensions):
            left = _LOOKED_INTO - len(self.labels[extension])
            rows = [row for row, name in enumerate(names) if name == extension][:left]
            self.add_labels(extension, block.payloads(np.asarray(rows, np.int64)))
        if self.parse_json and "json" in self.extensions:
            rows = [row for row, name in enumerate(names) if name == "json"]
            self.add_json(block.payloads(np.asarray(rows, np.int64)))

    def add_images(self, keys: Sequence[str | None], extensions: Sequence[str | None]) -> None:
        """Note which image extensions come second in a sample that has several."""
        previous: tuple[str | None, str] | None = None
        for key, extension in zip(keys, extensions, strict=True):
            if extension not in IMAGES:
                continue
            if previous is not None and previous[0] == key and previous[1] != extension:
                self.second_images.add(max(previous[1], extension, key=IMAGES.index))
            previous = (key, extension)

    def add_classes(self, extension: str, contents: Sequence[bytes | None]) -> None:
        """Note an extension whose members hold names rather than integers."""
        if any(c is not None and re.search(rb"[A-Za-z_]", c[:200]) for c in contents):
            self.named_classes.add(extension)

    def add_labels(self, extension: str, contents: Sequence[bytes | None]) -> None:
        """Take contents that may be labels into account."""
        self.labels[extension] += contents[: _LOOKED_INTO - len(self.labels[extension])]

    def add_json(self, documents: Sequence[bytes | None]) -> None:
        """Take the fields of JSON documents into account."""
        others: list[str | None] = [None] * len(documents)
        objects = json_objects(documents, None, None, others)
        self.has_other_json = self.has_other_json or any(other is not None for other in others)
        for found in objects:
            for name, value in found.items():
                self.values[name].append(value)

    def build(self) -> Layout:
        """Settle names and types."""
        boxes = {extension: boxes_of(some, self.classes) for extension, some in self.labels.items()}
        roles = [
            (extension, "boxes" if boxes.get(extension) else self._kind(extension)) for extension in self.extensions
        ]
        if not self.parse_json:
            roles = [(extension, "ignored" if kind == "json" else kind) for extension, kind in roles]
        named = [e for e, kind in roles if kind not in {"image", "json", "boxes", "ignored"} or e in self.second_images]
        named += ["json"] if self.has_other_json and ("json", "json") in roles else []
        named.sort(key=lambda extension: extension != "txt")  # txt is the caption, whatever else is called so
        taken = {"key", "image"} if any(kind == "image" for _, kind in roles) else {"key"}
        taken |= self.reserved | {name for found in boxes.values() if found for name in found.columns}
        columns = name_columns(named, taken)
        roles.sort(key=lambda role: IMAGES.index(role[0]) if role[1] == "image" else -1)
        slots = tuple(
            MemberSlot(extension, kind, columns.get(extension, ""), boxes.get(extension)) for extension, kind in roles
        )
        return Layout(slots, self._fields(slots), self.key_pattern)

    def _kind(self, extension: str) -> Kind:
        kind: Kind = "text" if extension in self.texts else _kind(extension)
        return "text" if kind == "integer" and extension in self.named_classes else kind

    def _fields(self, slots: Sequence[MemberSlot]) -> tuple[JsonField, ...]:
        # A field called as a text member supplements it; img2dataset writes the caption both ways.
        texts = {slot.column for slot in slots if slot.kind == "text"}
        pointers = {slot.column for slot in slots if slot.kind != "text"} | {"key", "image"}
        pointers |= self.reserved | {name for slot in slots if slot.boxes for name in slot.boxes.columns}
        names = name_columns((name for name in self.values if name != "key"), taken=pointers)
        return tuple(
            JsonField(name, column, pa.string() if column in texts else _type(column, self.values[name]))
            for name, column in names.items()
        )


def with_classes(layout: Layout, classes: NamedClasses) -> Layout:
    """The layout with other names of the classes of labels."""
    slots = (replace(s, boxes=s.boxes and replace(s.boxes, classes=classes)) for s in layout.slots)
    return replace(layout, slots=tuple(slots))


def may_be_labels(extension: str) -> bool:
    """Whether contents of an extension may be labels with boxes."""
    return extension.rpartition(".")[2] in TEXTS | {"xml"}


def _kind(extension: str) -> Kind:
    last = extension.rsplit(".", 1)[-1]
    if extension in IMAGES:
        return "image"
    if extension == "json":
        return "json"
    if last == "json":
        return "json_text"
    if last in TEXTS:
        return "text"
    return "integer" if extension in INTEGERS else "pointer"


def _type(column: str, values: list[Any]) -> pa.DataType:
    """The known type of a column where all values fit it, else what the values say."""
    kind = json_type(values)
    known = TYPES.get(column)
    if known is None or (
        pa.types.is_string(kind) and not pa.types.is_string(known) and any(v is not None for v in values)
    ):
        return kind
    return known


def first_blocks(blocks: Iterable[TarBlock], members: int) -> Iterable[TarBlock]:
    """The first blocks, until they hold `members` members."""
    seen = 0
    for block in blocks:
        yield block
        seen += len(block.names)
        if seen >= members:
            return
