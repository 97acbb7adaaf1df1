"""One batch in the making: rows are read, decoded, transformed and stacked; broken ones are replaced."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from factory_lib.errors import FactoryError, FileChanged, FileDamaged, FileMissing, LoaderError, StoreError
from factory_lib.loading import collate
from factory_lib.loading.decode import Decode, Picture, as_image, decoder, fitted
from factory_lib.loading.hooks import call, kept_generators
from factory_lib.loading.index import Pointers
from factory_lib.loading.limits import SlowSample, limited
from factory_lib.loading.order import Order, Rows
from factory_lib.loading.reading import SampleReader
from factory_lib.loading.tasks import Batch, Broken
from factory_lib.redaction import redact

if TYPE_CHECKING:
    from factory_lib.loading.batches import BatchRecipe

NEAR, ATTEMPTS = 8, 32  # rows of the same window, and in all, that are tried in place of a broken one
NOTES = 3  # broken samples of a batch that are told of
DAMAGED = (FileMissing, FileChanged, FileDamaged)
"""Errors of storage that are a shard's own; any other one says that nothing can be read, and replaces nothing."""

Read = tuple[torch.Tensor, NDArray[np.int64]]


class Making:
    """One batch in the making.

    Args:
        rows: that the order has at the positions.
        lost: files that are known not to be readable, with the reason; what is found is added.
        subset: the rows that the order numbers, where it is of some of the rows only.
    """

    def __init__(
        self,
        recipe: BatchRecipe,
        reader: SampleReader,
        order: Order,
        positions: Rows,
        rows: Rows,
        lost: dict[int, FactoryError],
        subset: Rows | None = None,
    ) -> None:
        self.recipe, self.reader, self.order, self.lost = recipe, reader, order, lost
        self.positions, self.subset = positions, subset
        self.rows = rows.copy() if subset is None else subset[rows]
        self.replaced = np.zeros(len(rows), np.bool_)
        self.broken: list[Broken] = []
        self.counters: dict[str, float] = {"samples": len(rows), "substituted": 0}

    def build(self) -> Batch:
        """Members first: those that are broken replace rows; then columns of the rows as they are now."""
        clock = time.perf_counter()
        with kept_generators():
            batch = self._members()
        names = list(self.recipe.index.columns)
        for name, values in zip(names, self.recipe.index.take(self.rows, names), strict=True):
            batch[name] = collate.column(values, name, self.recipe.lengths.get(name))
        hook = self.recipe.hooks.sample_transform
        if hook is not None:
            with kept_generators():
                batch = collate.stacked(self._changed(hook, collate.samples(batch)))
        self.count("make_seconds", clock)
        return batch

    def count(self, name: str, since: float) -> None:
        """Add the seconds since then to a counter."""
        self.counters[name] = self.counters.get(name, 0.0) + time.perf_counter() - since

    def _members(self) -> Batch:
        kinds = self.recipe.decoders
        decoded = {m: decoder(kind, self.recipe.decode_size) for m, kind in kinds.items() if kind != "raw"}
        stacks = {member: collate.Stack(len(self.rows)) for member in decoded}
        refused: dict[int, FactoryError] = {}
        pointers = {member: self._pointers(member, self.rows) for member in kinds}
        for member in kinds:
            for index in np.flatnonzero(pointers[member].missing).tolist():
                refused.setdefault(index, LoaderError(f"{member} is missing."))
        read = {member: self._read_all(pointers[member], refused) for member in kinds}
        clock = time.perf_counter()
        for index in range(len(self.rows)) if decoded else sorted(refused):
            self._put(index, decoded, read, stacks, refused.get(index))
        self.count("decode_seconds", clock)
        batch: Batch = {}
        for member in kinds:
            if member in stacks:
                batch[member] = stacks[member].value()
            else:
                batch[member] = collate.ragged(*self._raw(member, read[member]))
        return batch

    def _put(
        self,
        index: int,
        decoded: Mapping[str, Decode],
        read: Mapping[str, Read],
        stacks: Mapping[str, collate.Stack],
        error: Exception | None,
    ) -> None:
        """Put the pictures of a sample into their stacks; a sample of which a member is broken is replaced whole."""
        with limited(self.recipe.limit(), lambda: self.place(index)):
            pictures: dict[str, Picture] = {}
            if error is None:
                try:
                    pictures = {m: decode(_one(read[m], index)) for m, decode in decoded.items()}
                except SlowSample:
                    raise
                except Exception as broken:  # whatever a decoder raises on broken bytes
                    error = broken
            if error is not None:
                self._refuse(index, error)
                pictures = self._substitute(index, decoded, error)
            for member, picture in pictures.items():
                self._stack(stacks[member], picture, index)

    def _substitute(self, index: int, decoded: Mapping[str, Decode], error: Exception) -> dict[str, Picture]:
        """Replace a row by the next whole one, nearby first; the pictures of that one."""
        position = int(self.positions[index])
        self.replaced[index] = True
        self.counters["substituted"] += 1
        for attempt in range(ATTEMPTS):
            if attempt < NEAR:
                other = self.order.substitute(position, attempt)
            else:
                other = self.order.distant(position, attempt - NEAR)
            self.rows[index] = other if self.subset is None else self.subset[other]
            row = self.rows[index : index + 1]
            pointers = {member: self._pointers(member, row) for member in self.recipe.decoders}
            if any(p.missing[0] or int(p.file[0]) in self.lost for p in pointers.values()):
                continue
            try:
                read = {member: self._read(pointers[member]) for member in self.recipe.decoders}
                return {m: decode(_one(read[m], 0)) for m, decode in decoded.items()}
            except SlowSample:
                raise
            except DAMAGED as gone:
                self._lose(pointers.values(), gone)
            except StoreError:
                raise
            except Exception:  # whatever a decoder raises on broken bytes: the next row is tried
                continue
        kind = type(error) if isinstance(error, StoreError) else LoaderError
        raise kind(
            f"No sample of {self.recipe.key.identity!r} is whole in place of position {position}: {ATTEMPTS} were "
            f"tried. {self.broken[0].text if self.broken else ''}".rstrip(),
            "Filter broken samples out of the version: add the image_header signal and keep what decodes.",
        )

    def _refuse(self, index: int, error: Exception) -> None:
        if self.recipe.on_error == "raise":
            if isinstance(error, StoreError):
                raise error
            raise LoaderError(
                f"Sample {self.place(index)} is broken: {type(error).__name__}: {error}",
                'Filter it out, or use on_error="substitute".',
            ) from error
        if len(self.broken) < NOTES:
            text = error.message if isinstance(error, FactoryError) else redact(f"{type(error).__name__}: {error}")
            self.broken.append(Broken(type(error).__name__, f"sample {self.place(index)}: {text}"))

    def place(self, index: int) -> str:
        """Which sample that is, and where its bytes lie."""
        source, row = self.recipe.index, int(self.rows[index])
        places = []
        for member in source.members:
            pointer = self._pointers(member, np.array([row]))
            if not pointer.missing[0]:
                places.append(
                    f"{member} at byte {pointer.offset[0]} of {redact(source.files[int(pointer.file[0])].uri)}"
                )
        return f"{row} of {source.identity} ({', '.join(places) or 'no member'})"

    def _stack(self, stack: collate.Stack, picture: Picture, index: int) -> None:
        transform, shape = self.recipe.hooks.transform, self.recipe.shape
        if transform is not None:
            stack.put(index, self._hooked("transform", transform, as_image(picture), index))
        elif shape is not None:
            fitted(picture, stack.place(index, (*shape, 3)))
        else:
            stack.put(index, np.asarray(picture))

    def _hooked(self, name: str, hook: Callable[..., Any], value: Any, index: int) -> Any:
        """The answer of the user's function for a sample."""
        try:
            return call(hook, value, self.order.sample_seed(int(self.positions[index])))
        except SlowSample:
            raise
        except Exception as error:
            raise LoaderError(
                f"{name} failed on sample {self.place(index)}: {type(error).__name__}: {error}"
            ) from error

    def _changed(self, hook: Callable[..., Any], samples: list[Any]) -> list[Any]:
        """The answers of the user's function for whole samples."""
        done = []
        for index, sample in enumerate(samples):
            with limited(self.recipe.limit(), lambda: self.place(index)):  # noqa: B023  # called at once
                done.append(self._hooked("sample_transform", hook, sample, index))
        return done

    def _raw(self, member: str, read: Read) -> Read:
        return self._read(self._pointers(member, self.rows)) if self.replaced.any() else read

    def _pointers(self, member: str, rows: Rows) -> Pointers:
        return self.recipe.index.pointers(member, rows)

    def _read_all(self, pointers: Pointers, refused: dict[int, FactoryError]) -> Read:
        """The bytes of rows, those of `refused` left out; rows of a damaged shard are added to those."""
        self._avoid(pointers, refused)
        try:
            return self._read(pointers, refused)
        except DAMAGED:
            if self.recipe.on_error == "raise":
                raise
            for number in np.unique(pointers.file[~pointers.missing]).tolist():
                self._probe(number, pointers, refused)
            return self._read(pointers, refused)

    def _avoid(self, pointers: Pointers, refused: dict[int, FactoryError]) -> None:
        for number, error in self.lost.items():
            for index in np.flatnonzero(pointers.file == number).tolist():
                refused.setdefault(index, error)

    def _probe(self, number: int, pointers: Pointers, refused: dict[int, FactoryError]) -> None:
        """Find out which rows of a file cannot be read."""
        mine = [index for index in np.flatnonzero(pointers.file == number).tolist() if index not in refused]
        for index in mine:
            try:
                self._read(pointers.at(np.array([index])))
            except FileDamaged as damage:
                refused[index] = damage
            except DAMAGED as gone:
                self.lost[number] = gone
                self._avoid(pointers, refused)
                return

    def _lose(self, pointers: Any, error: FactoryError) -> None:
        """Note a file that is gone, so that it is not asked for again."""
        if isinstance(error, FileDamaged):
            return
        for one in pointers:
            try:
                self._read(one)
            except DAMAGED:
                self.lost[int(one.file[0])] = error

    def _read(self, pointers: Pointers, refused: Mapping[int, FactoryError] | None = None) -> Read:
        """Bytes of rows end to end, with the offset of each; those of refused rows are empty."""
        clock = time.perf_counter()
        if refused:
            size = pointers.size.copy()
            size[list(refused)] = 0
            wanted = np.setdiff1d(np.arange(len(size)), list(refused))
        else:
            size, wanted = pointers.size, None
        offsets = np.concatenate([[0], np.cumsum(size)]).astype(np.int64)
        blob = collate.empty((int(offsets[-1]),), torch.uint8)
        if wanted is None:
            self.reader.read(pointers, blob.numpy(), offsets[:-1])
        elif len(wanted):
            self.reader.read(pointers.at(wanted), blob.numpy(), offsets[wanted])
        self.count("read_seconds", clock)
        return blob, offsets


def _one(read: Read, index: int) -> memoryview:
    blob, offsets = read
    return blob.numpy().data[int(offsets[index]) : int(offsets[index + 1])]
