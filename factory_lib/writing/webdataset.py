"""Samples as WebDataset's tars: a member for each pointer, the caption as `txt`, attributes as `json`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import ClassVar

from factory_lib.errors import ExportError
from factory_lib.pictures import EXTENSIONS
from factory_lib.sources.entries import picture_format
from factory_lib.storage.tars import writing_tar
from factory_lib.writing.formats import ExportFormat, json_bytes, json_texts, put
from factory_lib.writing.parts import ExportPart, PartReport
from factory_lib.writing.rows import ExportRows, SampleBlock

_KNOWN = "|".join([*EXTENSIONS, "npy", "npz", "pth", "pt", "mp4", "mp3", "wav", "flac", "json", "txt", "bin"])
_ENDS_IN = re.compile(rf"(.+)_({_KNOWN})")
Members = dict[str, bytes | memoryview]


@dataclass(frozen=True, kw_only=True)
class WebDatasetExport(ExportFormat):
    """Tars `00000.tar`, and `sizes.json`, the samples of each, as OpenCLIP reads it.

    `image` has the extension of its format by its first bytes; another member `seg_png` is `seg.png`. Members of a
    sample stand in the order of their names, as WebDataset's own writer has them.
    """

    name: ClassVar[str] = "webdataset"

    def files(self, parts: Sequence[ExportPart]) -> list[str]:
        """Tars and `sizes.json`."""
        return [*(f"{part.name}.tar" for part in parts), "sizes.json"]

    def write(self, part: ExportPart, rows: ExportRows, to: str, parts: int) -> PartReport:
        """One tar."""
        report = PartReport()
        file = f"{part.name}.tar"
        with writing_tar(f"{to}/{file}") as tar:
            for block in rows.blocks(part, report, strict=self.strict):
                for key, members in zip(self.names(block, rows), samples_of(block, rows), strict=True):
                    tar.add(key, members)
        report.files = {file: tar.size}
        return report

    def names(self, block: SampleBlock, rows: ExportRows) -> list[str]:
        """What the samples of a block are called in their tar."""
        return block.keys

    def finish(self, rows: ExportRows, parts: Mapping[ExportPart, PartReport], to: str) -> PartReport:
        """`sizes.json`."""
        sizes = {f"{part.name}.tar": report.samples for part, report in parts.items()}
        return PartReport(files=put(to, "sizes.json", json_bytes(sizes)))


def samples_of(block: SampleBlock, rows: ExportRows) -> Iterator[Members]:
    """Extension -> bytes of each sample of a block.

    Raises:
        ExportError: two members of a sample have one extension.
    """
    columns = {name: block.columns.column(name).to_pylist() for name in rows.names}
    texts = json_texts(columns) if columns else [None] * len(block.positions)
    captions = columns.get("caption", texts and [None] * len(texts))
    for n, (text, caption) in enumerate(zip(texts, captions, strict=True)):
        found = [
            (extension_of(name, content), content)
            for name, contents in block.members.items()
            if (content := contents[n]) is not None
        ]
        found += [("txt", str(caption).encode())] if caption is not None else []
        found += [("json", text)] if text is not None else []
        members = dict(sorted(found, key=itemgetter(0)))
        if len(members) < len(found):
            said = ", ".join(sorted(extension for extension, _ in found))
            raise ExportError(
                f"Members of the sample {block.keys[n]!r} would have the same name in a tar: {said}.",
                "Choose some of them: members=…, columns=….",
            )
        yield members


def extension_of(member: str, content: bytes | memoryview) -> str:
    """What a member is called in a tar: such that it becomes the same column when the tar is read."""
    kind = picture_format(bytes(content[:64]))
    if member == "image":
        return kind or "bin"
    if known := _ENDS_IN.fullmatch(member):
        return f"{known[1]}.{known[2]}"
    return f"{member}.{kind}" if kind else member
