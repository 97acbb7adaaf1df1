"""CLIP checkpoints loaded with torch: TinyCLIP, and what transformers knows (CLIP, SigLIP and their kin)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from factory_lib.errors import SignalError
from factory_lib.signals.checkpoint import Checkpoint
from factory_lib.signals.tinyclip import load_weights, pixels

if TYPE_CHECKING:
    from PIL import Image

    from factory_lib.signals.clip import Model


def load(checkpoint: Checkpoint, device: str | None, precision: str) -> Model:
    """Load a checkpoint for computing embeddings.

    Args:
        checkpoint: see `checkpoint.resolve`.
        device: torch's name of the device; None takes a GPU when there is one.
        precision: torch's name of the floating-point type.
    """
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind: torch.dtype = getattr(torch, precision)
    if checkpoint.kind == "tinyclip":
        return Tiny(checkpoint, chosen, kind)
    return Transformers(checkpoint, chosen, kind)


class Tiny:
    """A TinyCLIP."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: torch.dtype) -> None:
        self._model = load_weights(checkpoint.path).to(device, precision)
        self._device = device

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """uint8 (64, 64, 3)."""
        return pixels(image)

    @torch.inference_mode()
    def images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Unit vectors (n, 64)."""
        return _as_numpy(self._model.images(torch.from_numpy(np.stack(prepared)).to(self._device)))

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors (n, 64); all captions without a word that the model knows get one and the same vector."""
        return _as_numpy(self._model.texts(captions))


class Transformers:
    """A model of the transformers library with `get_image_features` and `get_text_features`."""

    def __init__(self, checkpoint: Checkpoint, device: torch.device, precision: torch.dtype) -> None:
        import transformers

        place = checkpoint.repository or str(checkpoint.path)
        revision = {"revision": checkpoint.revision} if checkpoint.revision else {}
        library: Any = transformers
        try:
            # One backend on every machine, whether torchvision is installed or not: they differ in pixel values.
            self._processor = library.AutoImageProcessor.from_pretrained(place, backend="pil", **revision)
            self._tokenizer = library.AutoTokenizer.from_pretrained(place, **revision)
            model = library.AutoModel.from_pretrained(place, dtype=precision, **revision)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            raise SignalError(
                f"Checkpoint {place!r} cannot be loaded: {reason}",
                "It needs a model, an image processor and a tokenizer, as save_pretrained() writes them.",
            ) from error
        self._model = model.to(device).eval()
        self._device, self._precision = device, precision
        text = model.config.text_config
        self._length = int(getattr(text, "max_position_embeddings", 77))
        self._siglip = str(model.config.model_type).startswith("siglip")

    def prepare(self, image: Image.Image) -> NDArray[Any]:
        """float32 (3, height, width), as the checkpoint's own image processor makes it."""
        made = self._processor(images=image, return_tensors="np")["pixel_values"]
        return np.asarray(made[0], dtype=np.float32)

    @torch.inference_mode()
    def images(self, prepared: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """Embeddings (n, dimension)."""
        batch = torch.from_numpy(np.stack(prepared)).to(self._device, self._precision)
        return _as_numpy(_pooled(self._model.get_image_features(pixel_values=batch)))

    @torch.inference_mode()
    def texts(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """Embeddings (n, dimension); captions longer than the model's context are cut."""
        # SigLIP was trained on captions padded to full length, and attends to the padding.
        padding: Any = "max_length" if self._siglip else True
        tokens = self._tokenizer(
            list(captions), padding=padding, truncation=True, max_length=self._length, return_tensors="pt"
        ).to(self._device)
        mask = {} if self._siglip else {"attention_mask": tokens["attention_mask"]}
        return _as_numpy(_pooled(self._model.get_text_features(input_ids=tokens["input_ids"], **mask)))


def _pooled(features: Any) -> torch.Tensor:
    """The features: a tensor, or since transformers 5 an output that holds them."""
    pooled: torch.Tensor = features if isinstance(features, torch.Tensor) else features.pooler_output
    return pooled


def _as_numpy(vectors: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = vectors.float().cpu().numpy()
    return values
