"""Samples of a version as pictures, small enough to be kept in Dagster's event log.

The UI renders a picture inside Markdown as a data URI: at once where the Markdown has fewer than 1,000 characters,
    behind
a click otherwise. So there are two: a strip of a few tiny pictures, and a sheet. Both are stored with their event.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from factory_lib.errors import FactoryError
from factory_lib.pictures import decode, open_picture
from factory_lib.warehouse.arrow_types import is_pointer

if TYPE_CHECKING:
    from PIL.Image import Image

    from factory_lib.warehouse.versions import Version

COLUMNS, ROWS = 8, 3
TILE = 72
"""Pixels a side of a tile; pictures keep their proportions on a grey ground."""

SHEET_BYTES = 15_000
"""Bytes of the sheet at most: 20 KB as base64."""

STRIP_CHARACTERS = 990
"""Length of the strip's Markdown at most: from 1,000 on the UI hides it behind a click."""


@dataclass(frozen=True)
class Samples:
    """Pictures of a version, the same ones for the same rows.

    Attributes:
        sheet: a grid of up to 24 samples, Markdown.
        strip: a row of the first few, Markdown that the UI shows at once; empty where it cannot be made small enough.
    """

    sheet: str
    strip: str


def picture_samples(version: Version, member: str = "image") -> Samples | None:
    """Pictures of some samples of a version.

    Args:
        member: the pointer column whose bytes are the pictures.

    Returns:
        The pictures; None when the version has no such column or no row.
    """
    if not is_pointer(version.columns.get(member, "")):
        return None
    pictures = _pictures(version, member)
    if not pictures:
        return None
    return Samples(_markdown(_jpeg(_grid(pictures)), "jpeg"), _strip([p for p in pictures if p is not None]))


def _markdown(data: bytes, kind: str) -> str:
    return f"![samples](data:image/{kind};base64,{base64.b64encode(data).decode()})"


def _strip(pictures: list[Image]) -> str:
    """As many pictures in a row, as good, as the characters allow."""
    from PIL import Image

    for count, side in ((6, 48), (6, 40), (6, 32), (5, 32), (4, 24)):
        strip = Image.new("RGB", (min(count, len(pictures)) * side, side))
        for index, picture in enumerate(pictures[:count]):
            strip.paste(picture.resize((side, side)), (index * side, 0))
        for quality in (40, 25, 12) if pictures else ():
            out = io.BytesIO()
            strip.save(out, "AVIF", quality=quality)
            text = _markdown(out.getvalue(), "avif")
            if len(text) <= STRIP_CHARACTERS:
                return text
    return ""


def _pictures(version: Version, member: str) -> list[Image | None]:
    """Small pictures of some samples, None for those that cannot be decoded."""
    from factory_lib.plan.expressions import C
    from factory_lib.query import DatasetQuery
    from factory_lib.storage.store import store

    # The smallest ids are a random choice, for an id is a hash, and a stable one: few change from version to version.
    samples = DatasetQuery(version).select("sample_id", member)
    chosen = samples.order_by(C.sample_id).limit(COLUMNS * ROWS).to_arrow()
    pointers: list[dict[str, Any]] = chosen.column(member).to_pylist()
    found: list[Image | None] = []
    for pointer in pointers:
        try:
            [data] = store().read_ranges(pointer["uri"], [(pointer["offset"], pointer["size"])])
            found.append(_tile(bytes(data)))
        except FactoryError:
            found.append(None)
    return found


def _tile(data: bytes) -> Image | None:
    from PIL import Image

    try:
        with open_picture(data) as picture:
            tile = decode(picture, TILE)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    tile.thumbnail((TILE, TILE))
    return tile


def _grid(pictures: list[Image | None]) -> Image:
    from PIL import Image

    rows = -(-len(pictures) // COLUMNS)
    step = TILE + 4
    sheet = Image.new("RGB", (min(len(pictures), COLUMNS) * step + 4, rows * step + 4), (245, 245, 245))
    for index, picture in enumerate(pictures):
        left, top = 4 + index % COLUMNS * step, 4 + index // COLUMNS * step
        if picture is None:
            sheet.paste((200, 200, 200), (left, top, left + TILE, top + TILE))
        else:
            sheet.paste(picture, (left + (TILE - picture.width) // 2, top + (TILE - picture.height) // 2))
    return sheet


def _jpeg(sheet: Image) -> bytes:
    for quality in (80, 65, 50, 35, 20):
        out = io.BytesIO()
        sheet.save(out, "JPEG", quality=quality, optimize=True)
        if out.tell() <= SHEET_BYTES:
            break
    return out.getvalue()
