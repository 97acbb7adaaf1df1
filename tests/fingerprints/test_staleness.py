"""When a value is stale and when it is not: hundreds of small edits, against what the code gives before and after."""

from __future__ import annotations

import builtins
import importlib
import itertools
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import PIL.Image
import pytest

from factory_lib.compute.travel import packed, unpacked
from factory_lib.fingerprints.components import unequal
from factory_lib.signals.fingerprint import FingerprintWarning, walk_of
from tests import staleness_kinds as kinds

SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases"
NOT_THERE = f"the cases are not there: {SHARED}"
NOT_SENT = {
    "all subclasses", "attribute of a member of an enumeration", "compiled by torch", "context variable", "default of a context variable", "items of a queue",
    "numpy subclass with an attribute", "parametrized module", "weak method", "what a weak reference refers to",
}  # fmt: skip
"""What cannot be sent to another process, and is refused there."""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FingerprintWarning)
        yield


@pytest.fixture(autouse=True)
def put_back() -> Iterator[None]:
    """What cases set in modules that others use, too, is there for them alone."""
    pixels = PIL.Image.MAX_IMAGE_PIXELS
    yield
    PIL.Image.MAX_IMAGE_PIXELS = pixels
    vars(builtins).pop("KINDS_K", None)


@pytest.mark.parametrize("name", kinds.CASES)
def test_a_fingerprint_changes_exactly_when_the_values_do(name: str, tmp_path: Path) -> None:
    before, after = kinds.texts(name)
    kinds.prepare(tmp_path)
    one = kinds.looked_at(before, tmp_path)
    kinds.prepare(tmp_path)
    two = kinds.looked_at(after, tmp_path)
    assert (one.fingerprint == two.fingerprint) == (one.values == two.values)
    assert one.fingerprint == one.after_use


@pytest.mark.parametrize("name", sorted(set(kinds.CASES) - NOT_SENT))
def test_what_arrives_elsewhere_gives_the_same_values(name: str, tmp_path: Path) -> None:
    kinds.prepare(tmp_path)
    given = kinds.loaded(kinds.texts(name)[1], tmp_path).s
    with packed([given]) as sent:
        cloudpickle.cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID.clear()  # its classes are made anew, as elsewhere
        arrived = unpacked(sent[0])
    assert unequal(sent[0].components, walk_of(arrived).found) == []
    assert kinds.values(arrived) == kinds.values(given)


def test_another_process_elsewhere_has_the_same_fingerprints(tmp_path: Path) -> None:
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
    environment = os.environ | {"PYTHONHASHSEED": "5", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-m", "tests.staleness_kinds", str(tmp_path / "there")]
    there = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
    here = kinds.fingerprints(tmp_path / "here")
    assert {name for name in here if here[name] != there[name]} == set()


def shared_cases() -> dict[str, Any]:
    """The cases of the folder beside the repository, but those that no fingerprint can know."""
    if not SHARED.exists():
        return {}
    sys.path.insert(0, str(SHARED))
    try:
        harness = importlib.import_module("harness")
        found = list(importlib.import_module("must_recompute").CASES)
        importlib.import_module("must_keep")
    finally:
        sys.path.remove(str(SHARED))
    unknowable = {line.split("#")[0].strip() for line in (SHARED / "unknowable.txt").read_text().splitlines()}
    return {f"{case.kind} {case.id}": case for case in [*found, *harness.CASES] if case.id not in unknowable}


SHARED_CASES = shared_cases()
PRELOADED = """
import sys
import torch, pandas, polars, factory_lib.signals.single, factory_lib.signals.fingerprint
source = open(sys.argv[1]).read()
exec(compile(source, sys.argv[1], "exec"), {"__name__": "zygote", "__file__": sys.argv[1]})
"""


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Any], dict[str, Any]]]:
    """Runs a case: before its edit in a process with one hash seed, after it in one with another."""
    lab = tmp_path_factory.mktemp("cases")
    harness = importlib.import_module("harness")
    harness.LAB, harness.ROOT = lab, lab / "run"
    for step in ("make_samples", "make_rows"):
        subprocess.run([sys.executable, str(SHARED / f"{step}.py"), str(lab / "data")], check=True)
    environment = os.environ | {"CASE_ROWS": str(lab / "data" / "rows.json"), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    os.environ["CASE_ROWS"] = environment["CASE_ROWS"]
    command, pipe = [sys.executable, "-c", PRELOADED, str(SHARED / "zygote.py")], subprocess.PIPE
    started = [
        subprocess.Popen(
            command, stdin=pipe, stdout=pipe, text=True, cwd=lab, env=environment | {"PYTHONHASHSEED": seed}
        )
        for seed in ("1", "2")
    ]
    turns = itertools.cycle(started)
    harness.zygote = lambda: next(turns)

    def run(case: Any) -> dict[str, Any]:
        case.kw["real"] = False
        found: dict[str, Any] = harness.go(case)
        return found

    yield run
    del os.environ["CASE_ROWS"]
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not SHARED.exists(), reason=NOT_THERE)
@pytest.mark.parametrize("name", SHARED_CASES)
def test_edits_of_small_projects(name: str, go: Callable[[Any], dict[str, Any]]) -> None:
    found = go(SHARED_CASES[name])
    assert found["verdict"] in ("ok", "ILL-FORMED"), re.sub(r"\s+", " ", str(found))
