"""CLIP as two signals: pictures and captions as unit vectors whose dot product says how well they fit.

```python
from factory_lib.signals import clip

query.add_signals(clip.encode_image, clip.encode_text)          # TinyCLIP, or what FACTORY_CLIP names
large = clip.Clip("openai/clip-vit-large-patch14", name="l14")  # any CLIP or SigLIP: columns `l14` and `l14_text`
target = large.one("a photo of a dress")                        # or a path, bytes, a PIL picture
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from factory_lib.errors import SignalError
from factory_lib.pictures import EXTENSIONS
from factory_lib.settings import settings
from factory_lib.signals.checkpoint import Checkpoint, resolve
from factory_lib.signals.outputs import Vector
from factory_lib.signals.signal import Signal, signal

if TYPE_CHECKING:
    from PIL import Image

Precision = Literal["float32", "bfloat16", "float16"]
_IMAGE_SUFFIXES = tuple(f".{extension}" for extension in EXTENSIONS)


class Model(Protocol):
    """A loaded model: what `clip_models` gives for each kind of checkpoint."""

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """One picture as the array that the image tower takes."""

    def images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings (n, dimension) of prepared pictures."""

    def texts(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (n, dimension) of captions."""


@dataclass(frozen=True)
class Tower:
    """What both signals of a checkpoint need: where the model is and how to run it.

    Attributes:
        checkpoint: the model's files.
        device: "cpu", "cuda", …; None takes a GPU when there is one.
        precision: of the computation.
        model: set by `setup()`, once in each worker process.
    """

    checkpoint: Checkpoint
    device: str | None = None
    precision: Precision = "float32"
    model: Model | None = None

    def setup(self) -> None:
        """Load the model."""
        from factory_lib.signals.clip_models import load

        object.__setattr__(self, "model", load(self.checkpoint, self.device, self.precision))

    def __fingerprint__(self) -> dict[str, str]:
        """What the values depend on besides the code: weights, preprocessing, precision."""
        return {**self.checkpoint.components(), "precision": self.precision}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "model": None}

    @property
    def ready(self) -> Model:
        """The loaded model."""
        if self.model is None:
            raise SignalError("The CLIP model is not loaded.", "Call setup() first, or use the signal's .one().")
        return self.model


class ImageTower(Tower):
    """Pictures to vectors."""

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """One picture as the model takes it."""
        return self.ready.prepare(image)

    def __call__(self, prepared: list[NDArray[Any]]) -> NDArray[np.float32]:
        """Vectors (n, dimension) of prepared pictures."""
        return self.ready.images(prepared)


class TextTower(Tower):
    """Captions to vectors."""

    def __call__(self, caption: list[str]) -> NDArray[np.float32]:
        """Vectors (n, dimension) of captions."""
        return self.ready.texts(caption)


class Clip:
    """A CLIP-like model as two signals. Nothing is loaded before the first value is computed.

    Args:
        checkpoint: "tinyclip" (comes with the package), a TinyCLIP safetensors file, a folder with a CLIP or SigLIP as
            transformers saves it, or a hub id.
        name: column of the image vectors; the captions' column is `<name>_text`.
        device: where to compute; None takes a GPU when there is one.
        precision: of the computation; vectors are stored as unit length BFloat16 in any case.
        batch: samples in one pass through the model.
        revision: branch, tag or commit of a hub id.

    Raises:
        SignalError: the checkpoint cannot be found, or the name cannot name a column.
    """

    def __init__(
        self,
        checkpoint: str | Path = "tinyclip",
        *,
        name: str = "clip",
        device: str | None = None,
        precision: Precision = "float32",
        batch: int = 64,
        revision: str | None = None,
    ) -> None:
        if precision not in {"float32", "bfloat16", "float16"}:
            raise SignalError(f"precision={precision!r} is not known.", "Use 'float32', 'bfloat16' or 'float16'.")
        self.checkpoint = resolve(checkpoint, revision)
        self.name = name
        self._batch = batch
        self._tower = Tower(self.checkpoint, device, precision)

    @property
    def dimension(self) -> int:
        """Length of the vectors."""
        return self.checkpoint.dimension

    @cached_property
    def encode_image(self) -> Signal:
        """Signal: `image` -> unit vector, column `<name>`."""
        return self._signal(ImageTower(**_fields(self._tower)), self.name)

    @cached_property
    def encode_text(self) -> Signal:
        """Signal: `caption` -> unit vector, column `<name>_text`."""
        return self._signal(TextTower(**_fields(self._tower)), f"{self.name}_text")

    def one(self, value: Any) -> NDArray[np.float32]:
        """The unit vector, float32 (dimension,), of a picture or a text.

        Args:
            value: a `Path`, bytes or PIL picture; a string is a path or URI where a file of that name exists or it ends
                like an image file, else a text.
        """
        text = isinstance(value, str) and not _names_a_picture(value)
        vector: NDArray[np.float32] = (self.encode_text if text else self.encode_image).one(value)
        return vector

    def _signal(self, tower: ImageTower | TextTower, name: str) -> Signal:
        return signal(tower, name=name, output=Vector(self.dimension), batch=self._batch)

    def __repr__(self) -> str:
        return f"Clip({self.checkpoint.repository or str(self.checkpoint.path)!r}, name={self.name!r})"


def _fields(tower: Tower) -> dict[str, Any]:
    return {"checkpoint": tower.checkpoint, "device": tower.device, "precision": tower.precision}


def _names_a_picture(text: str) -> bool:
    if "://" in text or text.lower().endswith(_IMAGE_SUFFIXES):
        return True
    try:
        return Path(text).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):  # too long for a path, no home folder, a NUL byte
        return False


_default = Clip(settings().clip)
encode_image = _default.encode_image
encode_text = _default.encode_text
one = _default.one
