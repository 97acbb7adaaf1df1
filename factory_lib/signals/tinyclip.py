"""TinyCLIP: a contrastive image-text model of 1.5 MB that trains in minutes on one core and knows what it sees.

Image tower: five 3x3 convolutions over 64x64 pixels, mean and maximum over the places left, a linear map. Text tower:
the sum of word vectors, so word order is not seen, and a small MLP. Both give unit vectors; their dot product is the
CLIP score. The vocabulary and what is known of the training travel in the header of the safetensors file.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from factory_lib.errors import SignalError

SIDE = 64
"""Side in pixels of the square that a picture is scaled to."""

DIMENSION = 64
"""Length of the embeddings."""

FORMAT = "tinyclip-1"
"""Written into the header of a weights file; changes when the architecture or the preprocessing changes."""

_WIDTHS = (16, 48, 96, 128, 128)
_WORD = re.compile(r"[^\W_]+")


def pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """The picture as the model sees it: squeezed to 64x64, RGB, uint8 (64, 64, 3)."""
    if picture.mode != "RGB":
        picture = picture.convert("RGB")
    small = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small, dtype=np.uint8)


def words(caption: str) -> list[str]:
    """The words of a caption: lower-case runs of letters and digits."""
    return _WORD.findall(caption.lower())


def vocabulary_of(captions: Iterable[str], size: int = 8192) -> tuple[str, ...]:
    """The most frequent words of the captions, at most `size`, the most frequent first."""
    counts = Counter(word for caption in captions for word in words(caption))
    return tuple(word for word, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:size])


class TinyClip(nn.Module):
    """The two towers.

    Args:
        vocabulary: the words that the text tower knows; all others are passed over.
    """

    def __init__(self, vocabulary: Sequence[str]) -> None:
        super().__init__()
        self.vocabulary = tuple(vocabulary)
        self._index = {word: number for number, word in enumerate(self.vocabulary)}
        layers: list[nn.Module] = []
        for number, (before, after) in enumerate(zip((3, *_WIDTHS[:-1]), _WIDTHS, strict=True)):
            stride = 2 if number < 4 else 1
            layers += [nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        self.convolutions = nn.Sequential(*layers)
        self.project = nn.Linear(2 * _WIDTHS[-1], DIMENSION)
        self.word_vectors = nn.EmbeddingBag(max(1, len(self.vocabulary)), 128, mode="sum")
        self.read = nn.Sequential(nn.Linear(128, 128), nn.ReLU(inplace=True), nn.Linear(128, DIMENSION))
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(1 / 0.07))))

    def images(self, batch: Tensor) -> Tensor:
        """Unit vectors (n, 64) of pixels, uint8 (n, 64, 64, 3)."""
        values = batch.permute(0, 3, 1, 2).to(self.log_scale.dtype, memory_format=torch.channels_last)
        seen = self.convolutions(values / 127.5 - 1.0)
        pooled = torch.cat([seen.mean((2, 3)), seen.amax((2, 3))], dim=1)
        return nn.functional.normalize(self.project(pooled), dim=1)

    def texts(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors (n, 64) of captions."""
        known = [[self._index[word] for word in words(caption) if word in self._index] for caption in captions]
        starts = np.cumsum([0, *map(len, known[:-1])]) if known else np.zeros(0)
        flat = torch.tensor([number for caption in known for number in caption], dtype=torch.long)
        device = self.log_scale.device
        summed = self.word_vectors(flat.to(device), torch.as_tensor(starts, dtype=torch.long, device=device))
        return nn.functional.normalize(self.read(summed), dim=1)


def save_weights(model: TinyClip, path: str | Path, facts: Mapping[str, str]) -> None:
    """Write the weights as safetensors; the header takes the vocabulary, the format and the given facts."""
    Path(path).write_bytes(weights_bytes(model, facts))


def weights_bytes(model: TinyClip, facts: Mapping[str, str]) -> bytes:
    """What `save_weights` writes."""
    from safetensors.torch import save

    header = {**facts, "format": FORMAT, "vocabulary": json.dumps(model.vocabulary)}
    return save({name: value.contiguous() for name, value in model.state_dict().items()}, header)


def load_weights(path: str | Path) -> TinyClip:
    """Read what `save_weights` wrote, ready to compute (evaluation mode).

    Raises:
        SignalError: the file is not a TinyCLIP of this format.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file

    with safe_open(str(path), framework="numpy") as file:
        header = cast(dict[str, str], file.metadata() or {})
    if header.get("format") != FORMAT:
        found = header.get("format", "no format")
        raise SignalError(f"{path} is no TinyCLIP: its header says {found!r}, not {FORMAT!r}.", "Train it anew.")
    model = TinyClip(json.loads(header["vocabulary"]))
    model.load_state_dict(load_file(str(path)))
    return model.eval()
