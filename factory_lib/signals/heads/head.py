"""A head with weights of yours as a signal, and where it is linear as an expression.

```python
from factory_lib.signals.heads import AESTHETIC_V2_L14, Head

head = Head("s3://models/aesthetic.safetensors", AESTHETIC_V2_L14)
query.add_signals(head.signal("aesthetic", vectors="l14"))   # any head
query.mutate(aesthetic=head.expression("l14"))               # a linear one, in the database
```
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from factory_lib.errors import SignalError
from factory_lib.signals.given import GivenFile
from factory_lib.signals.heads.architecture import Architecture
from factory_lib.signals.heads.weights import Weights, fitted, folded, read_tensors
from factory_lib.signals.signal import Signal, signal
from factory_lib.signals.vectors import read_vectors

if TYPE_CHECKING:
    from factory_lib.plan.operators import Expr

_BATCH = 1024


@dataclass(frozen=True)
class Head:
    """A head. Nothing is read before it is used or its fingerprint is asked for.

    Attributes:
        uri: path or URI of a safetensors file with its weights.
        architecture: what they are the weights of.
        prefix: of the names of the tensors that are its own, where the file has a larger model.
    """

    uri: str
    architecture: Architecture
    prefix: str = ""

    def weights(self) -> Weights:
        """The weights, read now.

        Raises:
            FileMissing: there is no such file.
            SignalError: the file does not fit the architecture; names the tensor and what was expected.
        """
        return self._scoring.read()

    def signal(self, name: str, vectors: str = "clip") -> Signal:
        """Signal: a column of vectors -> float32 score.

        A sample without a vector, with one of another length, of zeros or of numbers that are not finite, or whose
        score is too large for float32, has no score, and the reason in `<name>_error`.

        Args:
            name: of the column.
            vectors: column of the vectors.
        """
        return signal(self._scoring, name=name, inputs={"vectors": vectors}, output=float, batch=_BATCH)

    def expression(self, vectors: str = "clip") -> Expr:
        """The score of a linear head in the database: one dot product; NULL where the signal would have an error.

        It is what the signal computes, in double precision, too.

        Args:
            vectors: column of the vectors.

        Raises:
            SignalError: the head is not linear, or its weights do not fit.
        """
        from factory_lib.plan.expressions import C, case, fn
        from factory_lib.plan.operators import Literal

        weights, bias = self.folded()
        size = len(weights)
        # `if` may evaluate both branches, and a dot product of different lengths is an error
        sized = fn.arrayResize(C[vectors], size).cast("Array(Float32)").cast("Array(Float64)")
        length = fn.L2Norm(sized)
        number = fn.dotProduct(sized, Literal(weights.astype(np.float64)))
        score = fn.toFloat32((number / length if self.architecture.unit else number) + bias)
        return case(((fn.length(C[vectors]) == size) & (length > 0) & fn.isFinite(length) & fn.isFinite(score), score))

    def folded(self) -> tuple[NDArray[np.float32], float]:
        """The one vector, float32 (in,), and the number added to a dot product with it, that a linear head is.

        Raises:
            SignalError: the head is not linear, or its weights do not fit.
        """
        if not self.architecture.is_linear:
            raise SignalError(
                f"{self.architecture.name} is not linear: {self.architecture.rectified} ReLUs,"
                f" output={self.architecture.output!r}.",
                "Use it as a signal: head.signal(name).",
            )
        ((matrix, added),) = folded(self.weights()).layers
        return matrix[:, 0], float(added[0])

    @property
    def _scoring(self) -> Scoring:
        return Scoring(GivenFile(self.uri), self.architecture, self.prefix)


class Scoring:
    """What a head's signal runs.

    Args:
        file: with the weights: what scores depend on are its bytes, wherever they lie.
        architecture, prefix: see `Head`.

    Attributes:
        weights: set by `setup()`, once in each worker process.
    """

    weights: Weights

    def __init__(self, file: GivenFile, architecture: Architecture, prefix: str) -> None:
        self.file, self.architecture, self.prefix = file, architecture, prefix

    def setup(self) -> None:
        """Read the weights."""
        weights = self.read()
        self.weights = folded(weights) if self.architecture.is_linear else weights

    def read(self) -> Weights:
        """The weights, read now; raises as `Head.weights`."""
        return fitted(read_tensors(self.file, self.prefix), self.architecture, self.file.uri)

    def __fingerprint__(self) -> dict[str, str]:
        """What scores depend on besides the code."""
        weights = self.file.__fingerprint__()["sha256"]
        return {"weights": weights, "prefix": self.prefix, **self.architecture.__fingerprint__()}

    def __call__(self, vectors: pa.Array) -> list[float | Exception]:
        """A score of each vector, or why it has none."""
        given = read_vectors(vectors, self.architecture.widths[0], unit=False)
        matrix = given.matrix.astype(np.float64)  # float32 would hold no large numbers, and no small lengths
        if self.architecture.unit:
            matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        scores = map(_finite, scored(matrix, self.weights, self.architecture).tolist())
        return [next(scores) if error is None else error for error in given.errors()]


def _finite(score: float) -> float | Exception:
    return score if math.isfinite(score) else ValueError("the score is too large for float32")


def scored(vectors: NDArray[np.float64], weights: Weights, architecture: Architecture) -> NDArray[np.float32]:
    """Scores, float32 (n,), of vectors, float64 (n, in), that are scaled already where they have to be."""
    if weights.scale is not None and weights.shift is not None:
        vectors = vectors * weights.scale + weights.shift
    for number, (matrix, added) in enumerate(weights.layers):
        vectors = vectors @ matrix + added
        if number < architecture.rectified:
            vectors = np.maximum(vectors, 0)
    if architecture.output == "softmax":
        shares = np.exp(vectors - vectors.max(axis=1, keepdims=True))
        return np.asarray(shares[:, 0] / shares.sum(axis=1), np.float32)
    score = vectors[:, 0]
    if architecture.output == "sigmoid":
        from scipy.special import expit

        score = expit(score)
    with np.errstate(over="ignore"):
        return score.astype(np.float32)
