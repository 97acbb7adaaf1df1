"""A contact sheet: a grid of samples of a version, small enough to be kept in Dagster's event log.

The UI renders a picture inside Markdown as a data URI. Every sheet is stored with its event, so it is bounded in bytes.
"""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

from factory_lib.errors import FactoryError

if TYPE_CHECKING:
    from PIL.Image import Image

    from factory_lib.warehouse.versions import Version

COLUMNS, ROWS = 8, 3
TILE = 72
"""Pixels a side of a tile; pictures keep their proportions on a grey ground."""

MAX_BYTES = 15_000
"""Bytes of the JPEG: 20 KB as base64."""


def contact_sheet(version: Version, member: str = "image") -> bytes | None:
    """A JPEG of a grid of samples, the same ones for the same rows.

    Args:
        member: the pointer column whose bytes are the pictures.

    Returns:
        The JPEG, of at most `MAX_BYTES`; None when the version has no such column or no row.
    """
    if member not in version.columns:
        return None
    pictures = _pictures(version, member)
    if not pictures:
        return None
    return _jpeg(_grid(pictures))


def as_markdown(jpeg: bytes) -> str:
    """Markdown that shows a JPEG without a server."""
    return f"![samples](data:image/jpeg;base64,{base64.b64encode(jpeg).decode()})"


def _pictures(version: Version, member: str) -> list[Image | None]:
    """Small pictures of some samples, None for those that cannot be decoded."""
    from factory_lib.expressions import C
    from factory_lib.query import DatasetQuery
    from factory_lib.storage.store import store

    # The smallest ids are a random choice, for an id is a hash, and a stable one: few samples change from version to version.
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
        with Image.open(io.BytesIO(data)) as picture:
            picture.draft("RGB", (TILE, TILE))
            tile = picture.convert("RGB")
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
        if out.tell() <= MAX_BYTES:
            break
    return out.getvalue()
