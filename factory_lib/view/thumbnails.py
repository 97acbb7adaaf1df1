"""Small pictures for notebooks, read straight from storage: few, small, and not waited for long."""

from __future__ import annotations

import base64
import io
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from factory_lib.errors import FactoryError
from factory_lib.pictures import decode, open_picture
from factory_lib.storage.store import store
from factory_lib.tables import cell
from factory_lib.view.html import Text, bad, picture

SIDE = 96
"""Pixels of the longer side."""
MOST = 24
"""Pictures that are read, at most."""
_BYTES = 32 << 20
"""A file above this is not read for a picture of this size."""
_SECONDS = 5.0
"""All together; what is not there by then is left out."""
_AT_ONCE = 4

Pointer = Mapping[str, Any]


def thumbnails(pointers: Sequence[Pointer | None], *, seconds: float = _SECONDS) -> list[Text]:
    """What a table shows in place of pointers: pictures, or what is wrong with them.

    Where not one of them is a picture, and not because its file is gone, they are no pictures: the pointers are shown.

    Args:
        seconds: how long is waited for all of them.
    """
    found: dict[int, bytes | str] = {}
    wanted = [i for i, one in enumerate(pointers[:MOST]) if one is not None and one["size"]]
    _read(pointers, wanted, found, time.monotonic() + seconds)
    texts = ["–" if one is None else cell(dict(one)) for one in pointers]
    if not any(isinstance(one, bytes) or one.startswith(_UNREAD) for one in found.values()):
        return list(texts)
    shown: list[Text] = []
    for i, text in enumerate(texts):
        what = found.get(i)
        if isinstance(what, bytes):
            shown.append(picture(f"data:image/jpeg;base64,{base64.b64encode(what).decode()}", text))
        elif i in wanted:
            shown.append(bad(f"{what or 'not read in time'}: {text}"))
        else:
            shown.append(text)
    return shown


_UNREAD = "cannot be read"


def _read(pointers: Sequence[Pointer | None], wanted: Sequence[int], found: dict[int, bytes | str], end: float) -> None:
    """Read and shrink what is wanted, by threads that nobody waits for once the time is over."""
    left: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, bytes | str]] = queue.SimpleQueue()
    for i in wanted:
        left.put(i)

    def work() -> None:
        while time.monotonic() < end:
            try:
                i = left.get_nowait()
            except queue.Empty:
                return
            done.put((i, _small(pointers[i] or {})))

    for _ in range(min(_AT_ONCE, len(wanted))):
        threading.Thread(target=work, daemon=True, name="factory-thumbnails").start()
    for _ in wanted:
        try:
            i, what = done.get(timeout=max(end - time.monotonic(), 0))
        except queue.Empty:
            return
        found[i] = what


def _small(pointer: Pointer) -> bytes | str:
    """A picture as a small JPEG, or in a few words what is wrong."""
    if pointer["size"] > _BYTES:
        return f"{_UNREAD}: {pointer['size'] / 1e6:,.0f} MB"
    try:
        [data] = store().read_ranges(pointer["uri"], [(pointer["offset"], pointer["size"])])
    except FactoryError as error:
        return f"{_UNREAD}: {error.message}"
    try:
        with open_picture(data) as opened:
            tile = decode(opened, SIDE)
        tile.thumbnail((SIDE, SIDE))
        out = io.BytesIO()
        tile.save(out, "JPEG", quality=80)
    except Exception as error:  # whatever Pillow raises on foreign bytes
        return f"no picture ({type(error).__name__})"
    return out.getvalue()
