"""Arguments of `to_torch`, made whole: what is left out is filled in, what cannot be is an error that names the nearest
right value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from factory_lib.errors import LoaderError, nearest
from factory_lib.loading.decode import IMAGE_MEMBERS, Decoder, decoder
from factory_lib.loading.index import Index
from factory_lib.loading.order import Tail
from factory_lib.warehouse.arrow_types import is_pointer

Tokenizer = Callable[[list[str]], Any]


def check_known(**arguments: tuple[Any, Sequence[Any]]) -> None:
    """Raise where an argument, given with what it may be, is none of those.

    Raises:
        LoaderError: names the nearest right value.
    """
    for name, (value, known) in arguments.items():
        if value not in known:
            raise LoaderError(f"{name}={value!r} is not known.", nearest(str(value), known))


def sizes_of(batch_size: int | None, global_batch_size: int | None) -> tuple[int, bool]:
    """Rows of a batch, and whether that is the batch of one rank.

    Raises:
        LoaderError: both are given, or one is below 1.
    """
    if batch_size is not None and global_batch_size is not None:
        raise LoaderError(
            f"batch_size={batch_size} and global_batch_size={global_batch_size} are two answers to one question.",
            "batch_size counts rows of a rank, global_batch_size those of all ranks together.",
        )
    name, size = ("batch_size", batch_size) if batch_size is not None else ("global_batch_size", global_batch_size)
    size = 512 if size is None else size
    if size < 1:
        raise LoaderError(f"{name}={size} cannot be.", "It is at least 1.")
    return size, batch_size is not None


def tail_of(tail: Tail | None, drop_last: bool | None) -> Tail:
    """What becomes of the last rows of an epoch.

    Raises:
        LoaderError: the arguments contradict each other, or there is no such tail.
    """
    if tail is None:
        return "drop" if drop_last else "repeat"
    check_known(tail=(tail, ("repeat", "drop", "mask")))
    if drop_last is not None and drop_last != (tail == "drop"):
        raise LoaderError(f"tail={tail!r} and drop_last={drop_last} contradict each other.", "Give one of them.")
    return tail


def shapes_of(buckets: Sequence[tuple[int, int]], image_size: int | None) -> list[tuple[int, int]]:
    """(height, width) of the buckets.

    Raises:
        LoaderError: a side below 1, or an `image_size` beside.
    """
    shapes = [(int(height), int(width)) for height, width in dict.fromkeys(map(tuple, buckets))]
    if not shapes or min(min(shape) for shape in shapes) < 1 or image_size is not None:
        raise LoaderError(
            f"buckets={list(buckets)} with image_size={image_size} cannot be.",
            "buckets is a list of (height, width) in pixels and takes the place of image_size.",
        )
    return shapes


def decoders_of(
    members: Sequence[str], decoders: Decoder | Mapping[str, Decoder], size: int | None
) -> dict[str, Decoder]:
    """A decoder for each member: the one given for it, or for pictures; bytes for what is no picture."""
    if isinstance(decoders, str):
        chosen: dict[str, Decoder] = {m: decoders if m in IMAGE_MEMBERS else "raw" for m in members}
    else:
        for member in set(decoders) - set(members):
            raise LoaderError(f"decoders names {member!r}, which is not among members.", nearest(member, members))
        chosen = {m: decoders.get(m, "pillow" if m in IMAGE_MEMBERS else "raw") for m in members}
    for kind in chosen.values():
        if kind != "raw":
            decoder(kind, size)
    return chosen


def pictures_of(kinds: Mapping[str, str]) -> list[str]:
    """Members of which there are pictures, by the ClickHouse types of columns: `image`, where it points at bytes."""
    return [name for name in ("image",) if is_pointer(kinds.get(name, ""))]


def check_delivers(query: str, kinds: Mapping[str, str], wanted: Sequence[str]) -> None:
    """Raise where a loader of a query, whose columns have these ClickHouse types, would deliver nothing.

    Raises:
        LoaderError: names the members that there are.
    """
    if not wanted:
        known = ", ".join(name for name, kind in kinds.items() if is_pointer(kind))
        raise LoaderError(
            f"to_torch() of {query} has nothing to deliver: no members, no columns.",
            f"Name members ({known or 'there are none'}) or columns.",
        )


def check_pictures(decoders: Mapping[str, Decoder], **wanted: Any) -> None:
    """Raise where something is to be done to pictures, and no member is delivered as one.

    Raises:
        LoaderError: names the argument and the members.
    """
    name = next((name for name, value in wanted.items() if value is not None), None)
    if name is not None and all(kind == "raw" for kind in decoders.values()):
        members = ", ".join(decoders)
        raise LoaderError(
            f"{name} is for pictures, and none is decoded ({f'as bytes: {members}' if members else 'no members'}).",
            f'Name the picture among members, and a decoder: decoders={{"{next(iter(decoders), "image")}": "pillow"}}.',
        )


def tokenizers_of(tokenizer: Tokenizer | Mapping[str, Tokenizer] | None, index: Index) -> Mapping[str, Tokenizer]:
    """The tokenizer of each text column that has one."""
    texts = index.text_columns
    if tokenizer is None:
        return {}
    if isinstance(tokenizer, Mapping):
        for name in set(tokenizer) - set(texts):
            raise LoaderError(f"tokenizer names {name!r}, which is no text column of the batch.", nearest(name, texts))
        return tokenizer
    if len(texts) != 1:
        raise LoaderError(
            f"tokenizer needs one text column, columns has {len(texts)}: {', '.join(texts)}.",
            "Say which: tokenizer={'caption': function}.",
        )
    return {texts[0]: tokenizer}
