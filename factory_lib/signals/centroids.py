"""The nearest of some centroids: what DataComp's `image_based` filter asks of a picture's vector, as a signal."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.errors import SignalError
from factory_lib.signals.given import GivenFile
from factory_lib.signals.signal import Signal, signal
from factory_lib.signals.vectors import comparable

if TYPE_CHECKING:
    import torch

NAME = "nearest_centroid"
"""The column, unless another name is given."""
_BATCH = 1024


@dataclass(frozen=True)
class CentroidFinder:
    """The number of the centroid whose inner product with a vector is the largest.

    Attributes:
        centroids: an npy file, (k, dimension).
        device: "cpu", "cuda", …; None takes a GPU when there is one.
        loaded: set by `setup()`, once in each worker process: float32 (k, dimension).
    """

    centroids: GivenFile
    device: str | None = field(default=None, compare=False)
    loaded: torch.Tensor | None = field(default=None, compare=False)

    def setup(self) -> None:
        """Read the centroids.

        Raises:
            SignalError: the file holds none.
            StoreError: it is not there, or cannot be read.
        """
        import torch

        device = self.device or ("cuda" if torch.cuda.is_available() else "cpu")
        object.__setattr__(self, "loaded", torch.from_numpy(centroids_in(self.centroids)).to(device))

    def __fingerprint__(self) -> dict[str, str]:
        """What the file holds."""
        return {"centroids": self.centroids.__fingerprint__()["sha256"]}

    def __call__(self, vectors: pa.Array) -> list[Any]:
        """The number of each vector's centroid, from 0; an error for one that cannot be compared."""
        import torch

        assert self.loaded is not None
        matrix, found = comparable(vectors, self.loaded.shape[1])
        with torch.inference_mode():
            products = torch.from_numpy(matrix).to(self.loaded.device) @ self.loaded.T
            nearest = iter(products.argmax(dim=1).tolist())
        return [next(nearest) if one is None else one for one in found]


def nearest_centroid(
    centroids: str, *, vectors: str = "l14_img", name: str = NAME, device: str | None = None
) -> Signal:
    """Signal: the number, from 0, of the centroid with the largest inner product with a vector, in float32.

    Neither is scaled, as DataComp has it: of centroids that differ in length the longer one is favoured. A vector of
    another length than the centroids', a zero vector, and one with numbers that are not finite have no centroid, and
    `<name>_error` says why.

    Args:
        centroids: path or URI of an npy file, (k, dimension).
        vectors: column of the vectors.
        name: of the column.
        device: where to compute; None takes a GPU when there is one.
    """
    finder = CentroidFinder(GivenFile(centroids), device)
    return signal(finder, name=name, output=np.uint32, inputs={"vectors": vectors}, batch=_BATCH)


def centroids_in(file: GivenFile) -> NDArray[np.float32]:
    """The centroids in an npy file, float32 (k, dimension).

    Raises:
        SignalError: it is no npy file, or holds no centroids.
        StoreError: it is not there, or cannot be read.
    """
    try:
        found = np.lib.format.read_array(io.BytesIO(file.read()), allow_pickle=False)
    except ValueError as error:
        raise SignalError(
            f"{file.uri} holds no centroids: {error}",
            "Give an npy file; of a .pt file: numpy.save('centroids.npy', torch.load('centroids.pt')).",
        ) from error
    if found.ndim != 2 or not found.size or found.dtype.kind not in "fiu":
        held = f"{found.dtype} of shape {found.shape}"
        raise SignalError(f"{file.uri} holds no centroids: {held}, not numbers of shape (k, dimension).")
    centroids: NDArray[np.float32] = np.ascontiguousarray(found, np.float32)
    if not np.isfinite(centroids).all():
        raise SignalError(f"{file.uri} holds centroids with numbers that are not finite in float32.")
    return centroids
