"""Running ONNX models: on the GPU when there is one, on no more threads than a worker process may have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from factory_lib.environment import threads_of_process
from factory_lib.errors import SignalError
from factory_lib.signals.bundled import not_installed

_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
"""Where a model runs, the best first."""
_ERRORS_ALONE = 3


class OnnxModel:
    """A model with one input, loaded.

    Args:
        path: the file.

    Raises:
        SignalError: onnxruntime is not installed, or does not take the file.
    """

    def __init__(self, path: Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise not_installed("ONNX models are run", "onnxruntime") from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads_of_process()
        options.inter_op_num_threads = 1
        options.log_severity_level = _ERRORS_ALONE
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other workers want the core
        there = onnxruntime.get_available_providers()
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=[one for one in _PROVIDERS if one in there]
            )
        except Exception as error:  # its own kinds of errors are of a private module
            reason = " ".join(str(error).split())[:300]
            raise SignalError(f"{path} cannot be loaded by onnxruntime: {reason}") from error
        self._input = self._session.get_inputs()[0].name

    def __call__(self, batch: NDArray[Any], *outputs: str) -> list[NDArray[Any]]:
        """Run a batch.

        Args:
            batch: as the model takes it.
            outputs: names of the outputs that are wanted; without any, all in the model's order.
        """
        found: list[NDArray[Any]] = self._session.run(list(outputs) or None, {self._input: batch})
        return found
