"""Batches on an accelerator, copied while the training works on the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch

from factory_lib.loading.tasks import MadeBatch

Device = torch.device | str | int


def moved(value: Any, device: Device) -> Any:
    """A batch with its tensors on a device: dicts, lists and tuples are gone through, and what knows `to` is asked."""
    if isinstance(value, torch.Tensor):
        return value.to(device, non_blocking=True)
    if type(value) is not dict and callable(getattr(value, "to", None)):  # a tokenizer's BatchEncoding, say
        return value.to(device)
    if isinstance(value, Mapping):
        return {name: moved(part, device) for name, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(moved(part, device) for part in value))
    if isinstance(value, list | tuple):
        return type(value)(moved(part, device) for part in value)
    return value


def on_device(batches: Iterable[MadeBatch], device: Device | None) -> Iterator[MadeBatch]:
    """The same batches on a device; on a GPU, each is copied on a stream of its own while the one before is used.

    Copies overlap with work only from page-locked memory (``pin_memory=True``).
    """
    if device is None:
        yield from batches
    elif torch.device(device).type != "cuda":
        for made in batches:
            yield replace(made, batch=moved(made.batch, device))
    else:
        yield from _copied_ahead(batches, torch.device(device))


def _copied_ahead(batches: Iterable[MadeBatch], device: torch.device) -> Iterator[MadeBatch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    # on the device, and what it is copied from, which must live so long
    waiting: tuple[MadeBatch, MadeBatch] | None = None
    for made in batches:
        with torch.cuda.stream(stream):
            copying = (replace(made, batch=moved(made.batch, device)), made)
        if waiting is not None:
            yield _ready(waiting[0], stream)
        waiting = copying
    if waiting is not None:
        yield _ready(waiting[0], stream)


def _ready(made: MadeBatch, stream: torch.cuda.Stream) -> MadeBatch:
    """A batch that the current stream may use: it waits for the copy, and its memory is not given away before."""
    current = torch.cuda.current_stream(stream.device)
    current.wait_stream(stream)
    _recorded(made.batch, current)
    return made


def _recorded(value: Any, stream: torch.cuda.Stream) -> None:
    if isinstance(value, torch.Tensor) and value.is_cuda:
        value.record_stream(stream)
    elif isinstance(value, Mapping):
        for part in value.values():
            _recorded(part, stream)
    elif isinstance(value, list | tuple):
        for part in value:
            _recorded(part, stream)
