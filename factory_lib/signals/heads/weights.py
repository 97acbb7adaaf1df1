"""The weights of a head, from a safetensors file: what does not fit its architecture is said by name.

Names of tensors differ from port to port (`layers.0.weight`, `linear_1.weight`, `dense.weight`), their order does not:
`weight` and `bias` in the order of their names, numbers in names compared as numbers. Weights are (out, in), as torch
has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import SignalError
from factory_lib.signals.given import GivenFile
from factory_lib.signals.heads.architecture import Architecture

Tensors: TypeAlias = Mapping[str, NDArray[np.float32]]

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8"}
_MEANS, _VARIANCES = ("mean", "running_mean"), ("variance", "var", "running_var")
_COUNTERS = ("count", "num_batches_tracked")
"""How many samples mean and variance were taken of: no part of the model."""

_OTHER_FILE = "Give the weights of this head; of a larger model the head alone: prefix='classifier.'."
_CONVERT = (
    "Of a checkpoint of torch: safetensors.torch.save_file(torch.load(path, weights_only=True), 'head.safetensors')."
)


@dataclass(frozen=True)
class Weights:
    """The numbers of a head.

    Attributes:
        scale, shift: x * scale + shift is the standardised vector, float32 (in,); None where it is not standardised.
        layers: of each layer the matrix, float32 (in, out), and what is added, float32 (out,).
    """

    scale: NDArray[np.float32] | None
    shift: NDArray[np.float32] | None
    layers: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]


def read_tensors(file: GivenFile, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    """The tensors of a safetensors file, as float32.

    Args:
        file: the file.
        prefix: those whose names begin so, without it.

    Raises:
        FileMissing: there is no such file.
        SignalError: it is no safetensors file, or a tensor is not of floating-point numbers, or has some that are not
            finite.
    """
    from safetensors import SafetensorError, deserialize

    try:
        given = deserialize(file.read())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise SignalError(f"{file.uri} is no safetensors file: {error}.", _CONVERT) from error
    found = {}
    for name, tensor in sorted(given, key=lambda one: _natural(one[0])):
        if not name.startswith(prefix):
            continue
        kind = _TYPES.get(tensor["dtype"])
        if kind is None:
            raise SignalError(
                f"{file.uri}: tensor {name} is of {tensor['dtype']}.", f"Save it as one of {', '.join(_TYPES)}."
            )
        values = np.frombuffer(tensor["data"], kind).reshape(tensor["shape"])
        if tensor["dtype"] == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        found[name.removeprefix(prefix)] = _finite(values.astype(np.float32), name, file.uri)
    return found


def fitted(tensors: Tensors, architecture: Architecture, uri: str) -> Weights:
    """The tensors as the weights of an architecture.

    Args:
        tensors: name -> values, in the order of the layers.
        architecture: what they have to be.
        uri: for messages.

    Raises:
        SignalError: names the file, the tensor, and what was expected.
    """
    given = _Given(
        {name: values for name, values in tensors.items() if _last(name) not in _COUNTERS}, architecture, uri
    )
    scale, shift = given.standard() if architecture.standardised else (None, None)
    return Weights(scale, shift, given.layers())


def folded(weights: Weights) -> Weights:
    """Layers without anything between them as the one that they are, computed in double precision."""
    matrix, total = (one.astype(np.float64) for one in weights.layers[-1])
    for before, added in reversed(weights.layers[:-1]):
        matrix, total = before @ matrix, added @ matrix + total
    if weights.scale is not None and weights.shift is not None:
        matrix, total = weights.scale[:, None] * matrix, weights.shift @ matrix + total
    return Weights(None, None, ((matrix.astype(np.float32), total.astype(np.float32)),))


@dataclass(frozen=True)
class _Given:
    """Tensors that are taken one after the other.

    Attributes:
        rest: those that are left.
        architecture, uri: for messages.
    """

    rest: dict[str, NDArray[np.float32]]
    architecture: Architecture
    uri: str

    def layers(self) -> tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...]:
        """All linear layers; nothing may be left then."""
        named = self.architecture.name
        widths = self.architecture.widths
        stems = [name[: -len("weight")] for name in self.rest if _last(name) == "weight" and self.rest[name].ndim == 2]
        if len(stems) != len(widths) - 1:
            raise SignalError(
                f"{self.uri} has {len(stems)} linear layers, {named} has {len(widths) - 1} ({self.architecture.shown});"
                f" its tensors: {_listed(self.rest)}.",
                _OTHER_FILE,
            )
        found = []
        for stem, before, after in zip(stems, widths, widths[1:], strict=False):
            matrix = self._taken(f"{stem}weight", (after, before))
            found.append((np.ascontiguousarray(matrix.T), self._taken(f"{stem}bias", (after,))))
        if self.rest:
            raise SignalError(f"{self.uri} has tensors that {named} does not have: {_listed(self.rest)}.", _OTHER_FILE)
        return tuple(found)

    def standard(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What standardises a vector, (x - mean) / sqrt(variance), with a batch norm's own weight and bias after it."""
        width = self.architecture.widths[:1]
        mean_name = next((name for name in self.rest if _last(name) in _MEANS), "mean")
        stem = mean_name[: -len(_last(mean_name))]
        variance_name = next((name for name in self.rest if _last(name) in _VARIANCES), f"{stem}variance")
        mean, variance = (self._taken(name, width).astype(np.float64) for name in (mean_name, variance_name))
        if not (variance > 0).all():
            place = int(np.argmin(variance > 0))
            raise SignalError(
                f"{self.uri}: tensor {variance_name} is {variance[place]:g} in place {place}, and has to be positive."
            )
        scale = 1 / np.sqrt(variance)
        shift = -mean * scale
        if (weight := self.rest.get(f"{stem}weight")) is not None and weight.ndim == 1:
            weight, bias = self._taken(f"{stem}weight", width), self._taken(f"{stem}bias", width)
            scale, shift = scale * weight, shift * weight + bias
        return scale.astype(np.float32), shift.astype(np.float32)

    def _taken(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """A tensor, which is not left then; keras keeps means as (1, width)."""
        if name not in self.rest:
            raise SignalError(
                f"{self.uri} has no tensor {name}, of shape {shape}: {self.architecture.name} needs one.",
                f"There are: {_listed(self.rest)}." if self.rest else "There are no others.",
            )
        values = self.rest.pop(name)
        if len(shape) == 1 and values.shape == (1, *shape):
            values = values[0]
        if values.shape != shape:
            turned = values.shape == shape[::-1]
            raise SignalError(
                f"{self.uri}: tensor {name} has the shape {values.shape}, {self.architecture.name}"
                f" ({self.architecture.shown}) takes {shape}.",
                "Linear weights are (out, in), as torch has them: transpose it." if turned else _OTHER_FILE,
            )
        return values


def _finite(values: NDArray[np.float32], name: str, uri: str) -> NDArray[np.float32]:
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise SignalError(f"{uri}: tensor {name} has {wrong:,} of {values.size:,} numbers that are not finite.")
    return values


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _natural(name: str) -> list[list[str | int]]:
    """`layers.9` before `layers.10`, `dense` before `dense1`."""
    parts = (re.split(r"(\d+)", part) for part in name.split("."))
    return [[int(one) if one.isdigit() else one for one in part] for part in parts]


def _listed(names: Iterable[str], most: int = 6) -> str:
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
