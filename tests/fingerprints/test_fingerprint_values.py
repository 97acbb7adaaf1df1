"""Values as they count in fingerprints, what is declared, and what cannot be told."""

from __future__ import annotations

import functools
import json
import math
import os
import pathlib
import random
import re
import subprocess
import sys
import textwrap
import threading
import warnings
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from factory_lib.errors import SignalError
from factory_lib.fingerprints.files import content, file_digest
from factory_lib.fingerprints.sources import Sources
from factory_lib.fingerprints.walk import Walk
from factory_lib.signals import Vector, env, signal, use
from factory_lib.signals.fingerprint import FingerprintWarning, why

LOCK = threading.Lock()
GENERATOR = (number for number in range(3))


def test_a_value_that_cannot_be_told_is_said_to_be_opaque() -> None:
    def opaque(caption: str) -> int:
        return next(GENERATOR)

    def locked(caption: str) -> int:
        with LOCK:
            return 1

    with pytest.warns(FingerprintWarning, match="GENERATOR is a builtins.generator"):
        found = signal(opaque).components
    assert f"{__name__}.GENERATOR" in found
    assert signal(locked).components[f"{__name__}.LOCK"] != ""


class Colour(Enum):
    RED = 1
    BLUE = 2


class Point(NamedTuple):
    x: int
    y: float


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = value


PAIRS: list[tuple[Any, Any]] = [
    (1, 1.0),
    (True, 1),
    ("a", b"a"),
    ([1, 2], (1, 2)),
    ([1, 2], [2, 1]),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1, 2}, {1, 3}),
    (np.array([1, 2]), np.array([1, 3])),
    (np.array([1, 2], dtype=np.int32), np.array([1, 2], dtype=np.int64)),
    (np.zeros((2, 3)), np.zeros((3, 2))),
    (np.float32(0.1), np.float64(0.1)),
    (re.compile("a"), re.compile("a", re.IGNORECASE)),
    (Colour.RED, Colour.BLUE),
    (Point(1, 2.0), Point(1, 3.0)),
    (Slotted(1), Slotted(2)),
    (math.nan, math.inf),
    (0.0, -0.0),
    (slice(1, 2), slice(1, 3)),
    (pathlib.Path("a"), pathlib.Path("b")),
    (math.sin, math.cos),
    (functools.partial(pow, 2), functools.partial(pow, 3)),
    (random.Random(1).getstate(), random.Random(2).getstate()),
]


def digest_of(value: Any) -> dict[str, str]:
    walk = Walk()
    walk.use(value, "here")
    return walk.found


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=[repr(pair[0])[:20] for pair in PAIRS])
def test_different_values_differ(one: Any, other: Any) -> None:
    import copy

    def token(value: Any) -> Any:
        walk = Walk()
        return walk.use(value, "here"), walk.found

    assert token(one) != token(other)
    assert token(one) == token(copy.deepcopy(one))


def test_cycles_end_and_open_files_are_opaque(tmp_path: Path) -> None:
    cyclic: list[Any] = [1]
    cyclic.append(cyclic)
    assert digest_of(cyclic) != digest_of([1, [1]])
    with (tmp_path / "file").open("w") as file:
        walk = Walk()
        walk.use([file], "here")
        assert walk.held == [("here[0]", file)]


def test_a_path_stands_for_the_content_of_its_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_text("same")
    here, there = tmp_path / "a" / "weights", tmp_path / "b" / "weights"
    assert digest_of(here) == digest_of(there)
    assert digest_of(str(here.parent)) == digest_of(str(there.parent))
    before = file_digest(here)
    here.write_text("diff")
    assert digest_of(here) != digest_of(there)
    assert digest_of(here.parent) != digest_of(there.parent)
    assert file_digest(here) != before
    assert content(str(tmp_path / "nothing")) is None


def test_of_a_folder_with_code_only_what_is_named_counts(tmp_path: Path) -> None:
    for name in ("code.py", "words.txt", "other.txt"):
        (tmp_path / name).write_text(name)
    named, whole = content(str(tmp_path), ["words.txt", "hat"]), content(str(tmp_path))
    (tmp_path / "other.txt").write_text("changed")
    assert content(str(tmp_path), ["words.txt", "hat"]) == named
    assert content(str(tmp_path)) != whole
    (tmp_path / "words.txt").write_text("changed")
    assert content(str(tmp_path), ["words.txt", "hat"]) != named


def test_modules_that_are_imported_inside_count_without_layout_and_docstrings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))

    def module(text: str, name: str) -> str:
        (tmp_path / f"{name}.py").write_text(text)
        found: dict[str, str] = {}
        Sources(found, lambda module: False, lambda module, name, value: None, set()).imported((name, 0, ()), "")
        return found[f"{name} (module)"]

    plain = module("def f(a, b=1):\n    return [a, 'xy']", "inside_one")
    assert (
        module(
            "'doc'\ndef f(\n    a,\n    b = 0x1,\n):\n    'doc'\n    pass\n    return [a, 'xy']  # end", "inside_two"
        )
        == plain
    )
    assert module("def f(a, b=2):\n    return [a, 'xy']", "inside_three") != plain


def test_declared_dependencies_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, folder = tmp_path / "labels.json", tmp_path / "weights"
    labels.write_text("1")
    folder.mkdir()
    (folder / "w.bin").write_text("1")
    monkeypatch.setenv("SHOP_LANGUAGE", "en")
    limits = [3]

    def other() -> int:
        return limits[0]

    @signal(depends_on=[labels, folder, env("SHOP_LANGUAGE"), other, 5])
    def declared(caption: str) -> int:
        return 1

    def changes(edit: Any) -> list[str]:
        before = declared.components
        edit()
        return [line.partition(": ")[0].rpartition(".")[0] or line for line in why(before, declared.components)]

    assert changes(lambda: labels.write_text("2")) == ["file:labels.json"]
    assert changes(lambda: (folder / "w.bin").write_text("2")) == ["file:weights"]
    assert changes(lambda: monkeypatch.setenv("SHOP_LANGUAGE", "fr")) == ["env:SHOP_LANGUAGE"]
    assert len(changes(lambda: limits.append(4))) == 1
    assert changes(lambda: None) == []
    labels.unlink()
    with pytest.raises(SignalError, match=r"labels\.json.*not there"):
        _ = declared.components


def test_undeclared_reading_is_told_once_with_its_line() -> None:
    def reads(caption: str) -> int:
        return len(open("labels.txt").read()) + len(os.environ["LANG"])

    line = reads.__code__.co_firstlineno + 1
    with pytest.warns(FingerprintWarning) as told:
        _ = [signal(reads, name="reads_files").components for _ in range(2)]
    texts = [str(one.message) for one in told]
    assert len(texts) == 2
    assert all(f"{Path(__file__).name}:{line} " in text and "depends_on" in text for text in texts)
    declared = signal(reads, name="reads_more", depends_on=[env("LANG")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _ = declared.components


@pytest.mark.parametrize("cheap_seconds", [10.0, -1.0])
def test_use_changes_no_fingerprint_and_configuration_does(
    cheap_seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(use, "CHEAP_SECONDS", cheap_seconds)
    seen: dict[str, int] = {}
    factor = [1]

    @signal
    def memo(caption: str) -> int:
        return seen.setdefault(caption, len(caption)) * factor[0]

    before = memo.fingerprint
    assert [memo.one(text) for text in ("hat", "shirt")] == [3, 5]
    assert len(seen) == 2
    assert memo.fingerprint == before
    factor[0] = 2
    configured = memo.fingerprint
    assert configured != before
    for text in ("dress", "blouse", "tee", "sock"):
        assert memo.one(text) == 2 * len(text)
        assert memo.fingerprint == configured
    factor[0] = 3
    assert memo.fingerprint not in (before, configured)
    factor[0] = 2
    seen["tee"] = 4
    assert memo.fingerprint not in (before, configured)


@pytest.mark.parametrize("uses", [1, 3, 5])
def test_a_change_behind_uses_that_nobody_looked_at_is_seen(uses: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(use, "CHEAP_SECONDS", -1.0)
    model: dict[str, int] = {}

    @signal
    def loads(caption: str) -> int:
        return len(caption) + model.setdefault("weight", 1)

    before = loads.named(f"loads{uses}")
    first = before.fingerprint
    for _ in range(uses):
        assert before.one("hat") == 4
    assert before.fingerprint == first
    model["weight"] = 2
    assert before.fingerprint != first


def test_another_way_of_fingerprinting_is_said() -> None:
    now = signal(lambda caption: 1, name="now", output=int).components
    assert why({"factory": "1", "a": "b"}, now) == [
        "the way of fingerprinting changed (1 -> 5); its values are computed once more"
    ]


def test_a_signal_depends_on_its_declaration() -> None:
    def embed(image: bytes) -> list[float]:
        return [1.0]

    fingerprints = {
        signal(embed, output=Vector(2)).fingerprint,
        signal(embed, output=Vector(3)).fingerprint,
        signal(embed, output=Vector(2, dtype="float32")).fingerprint,
        signal(embed, output=Vector(2, unit=False)).fingerprint,
        signal(embed, output=Vector(2), version="2").fingerprint,
        signal(embed, output=Vector(2), inputs={"image": "thumbnail"}).fingerprint,
        signal(embed, output=Vector(2), version="2", pinned=True).fingerprint,
    }
    assert len(fingerprints) == 7
    assert signal(embed, output=Vector(2), name="other").fingerprint in fingerprints


def test_what_others_imported_already_is_no_part_of_a_fingerprint(tmp_path: Path) -> None:
    """Packages that import their parts when they are asked for, and parts that somebody else has imported."""
    code = """
        import concurrent, json, sys, xml
        import numpy as np, scipy
        from factory_lib.signals.fingerprint import code_components

        def drawn(n):
            return np.random.default_rng(n).random() + scipy.stats.norm.pdf(n) + scipy.linalg.norm([n])

        def parsed(text):
            return concurrent.futures.Future, xml.dom.minidom.parseString(text), np.fft

        print(json.dumps([code_components(drawn), code_components(parsed)]))
    """
    path = tmp_path / "parts.py"
    path.write_text(textwrap.dedent(code))
    loaded = "numpy.random, numpy.fft, scipy.stats, scipy.linalg, concurrent.futures, xml.dom.minidom"
    run = f"import runpy; runpy.run_path({str(path)!r})"
    there = [
        json.loads(subprocess.run([sys.executable, "-c", text], capture_output=True, check=True).stdout)
        for text in (run, f"import {loaded}; {run}")
    ]
    assert there[0] == there[1]
    assert {"package:numpy", "package:scipy"} <= there[0][0].keys()
