"""What makes a value stale, and what does not: every edit of a small package against the signals that depend on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factory_lib.fingerprints.places import distribution, place_of
from factory_lib.signals import signal
from factory_lib.signals.fingerprint import code_components, digest, why
from factory_lib.signals.signal import Signal

PACKAGE = {
    "shop/__init__.py": "",
    "shop/config.py": """
        LIMIT = 5
        SYNONYMS = {"tee": "t-shirt"}
        """,
    "shop/deep.py": '''
        def fold(text):
            """Lower case."""
            return text.casefold()  # as Unicode says
        ''',
    "shop/helpers.py": '''
        from .deep import fold

        def clean(text):
            """Strip and fold."""
            return fold(text).strip()

        def unrelated(text):
            return text + "!"
        ''',
    "shop/lazy.py": """
        import heavy
        from shop import config as settings

        SCALE = 3
        TABLE = {word: 1 for word in ("a", "b")}

        def score(text):
            return heavy.run(text) * SCALE + settings.LIMIT

        class Model:
            width = SCALE
            def __call__(self, text):
                return len(TABLE)
        """,
    "shop/models.py": """
        from dataclasses import dataclass, field
        from shop.deep import fold
        from factory_lib.fingerprints.files import file_digest

        class Base:
            def shared(self, text):
                return fold(text)

        @dataclass
        class Scorer(Base):
            weight: float = 0.5
            device: str = field(default="cpu", compare=False)

            def __call__(self, caption: str) -> float:
                return self.weight * len(self.shared(caption))

        class Weighted:
            def __init__(self, path):
                self.path = path
            def __fingerprint__(self):
                return {"weights": file_digest(self.path)}
            def __call__(self, caption: str) -> float:
                return 1.0
        """,
    "shop/decorators.py": """
        import functools

        def twice(times=2):
            def decorate(function):
                @functools.wraps(function)
                def wrapper(caption):
                    return function(caption) * times
                return wrapper
            return decorate
        """,
    "shop/scores.py": """
        import functools
        import math
        import os
        from pathlib import Path

        import heavy

        import shop.config
        from factory_lib.signals import signal
        from shop import config
        from shop.decorators import twice
        from shop.helpers import clean
        from shop.models import Scorer, Weighted

        THRESHOLD = 0.3
        WORDS = frozenset({"dress", "shirt", "shoe", "hat", "bag"})
        _SEEN = {}
        HERE = Path(__file__).parent
        WEIGHTS = HERE / "weights.bin"
        RULES = {"hat": lambda text: text.count("h")}

        in_lambda = signal(lambda caption: len(caption) > 7, name="in_lambda", output=bool)
        first, second = [signal(f, name=n, output=int) for f, n in [(lambda caption: 10, "first"), (lambda caption: 20, "second")]]

        @signal
        def by_helper(caption: str) -> str:
            return clean(caption)

        @signal
        def by_global(caption: str) -> bool:
            return len(caption) > THRESHOLD

        @signal
        def by_module(caption: str) -> bool:
            return len(caption) > config.LIMIT

        @signal
        def by_dotted_module(caption: str) -> bool:
            return len(caption) > shop.config.LIMIT

        @signal
        def by_getattr(caption: str) -> bool:
            return len(caption) > getattr(config, "LIMIT")

        @signal
        def by_set(caption: str) -> bool:
            return caption in WORDS

        def make(number):
            def closed(caption: str) -> int:
                return number
            return signal(closed, name="by_closure")

        by_closure = make(11)

        @signal
        def by_default(caption: str, least=THRESHOLD) -> bool:
            return len(caption) > least

        def _partial(caption: str, factor: int) -> int:
            return len(caption) * factor

        by_partial = signal(functools.partial(_partial, factor=4), name="by_partial", inputs={"caption": "caption"})
        by_class = signal(Scorer(weight=0.25), name="by_class")
        by_weights = signal(Weighted(HERE / "weights.bin"), name="by_weights")
        by_method = signal(Scorer().shared, name="by_method", inputs={"text": "caption"}, output=str)

        @signal
        @twice(times=3)
        def by_decorator(caption: str) -> int:
            return 1

        @signal
        def by_package(caption: str) -> int:
            return heavy.run(caption)

        @signal
        def by_lazy_import(caption: str) -> int:
            from shop.lazy import score
            return score(caption)

        @signal
        def by_lazy_class(caption: str) -> int:
            import shop.lazy as lazy
            return lazy.Model()(caption)

        @signal
        def by_cache(caption: str) -> int:
            _SEEN[caption] = 1
            return len(caption)

        @signal
        def by_rules(caption: str) -> int:
            return sum(rule(caption) for rule in RULES.values())

        @functools.lru_cache
        def _cached(caption):
            return clean(caption)

        @signal
        def by_cached_helper(caption: str) -> str:
            return _cached(caption)

        def even(number):
            return number == 0 or odd(number - 1)

        def odd(number):
            return number != 0 and even(number - 1)

        @signal
        def by_signal(caption: str) -> str:
            return by_helper.one(caption) if caption else by_signal.one("empty")

        @signal
        def by_recursion(caption: str) -> bool:
            return even(len(caption))

        @signal
        def by_file(caption: str) -> int:
            return len(WEIGHTS.read_bytes())

        @signal(version="3", pinned=True)
        def pinned(caption: str) -> bool:
            return len(clean(caption)) > THRESHOLD

        def stage(query):
            return query.filter(config.LIMIT).add_signals(by_helper)

        PLAIN = ["stage"]
        """,
    "shop/weights.bin": "0123456789",
    "site-packages/heavy/__init__.py": "def run(text):\n    return 1\n",
    "site-packages/heavy-1.4.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: heavy\nVersion: 1.4.0\n",
    "site-packages/heavy-1.4.0.dist-info/top_level.txt": "heavy\n",
    "site-packages/heavy-1.4.0.dist-info/RECORD": "heavy/__init__.py,,\n",
}

CLEAN_USERS = {"by_helper", "by_cached_helper", "by_signal", "stage"}
STALE: dict[str, tuple[str, str, str, set[str]]] = {
    "constant in a lambda": ("shop/scores.py", "> 7", "> 8", {"in_lambda"}),
    "one of two lambdas on a line": ("shop/scores.py", "caption: 20", "caption: 21", {"second"}),
    "helper in another module": ("shop/helpers.py", ".strip()", ".strip('.')", CLEAN_USERS),
    "helper of a helper": ("shop/deep.py", "casefold", "lower", CLEAN_USERS | {"by_class", "by_method"}),
    "global": ("shop/scores.py", "THRESHOLD = 0.3", "THRESHOLD = 0.4", {"by_global", "by_default"}),
    "item of a set": ("shop/scores.py", '"bag"', '"belt"', {"by_set"}),
    "constant of another module": (
        "shop/config.py",
        "LIMIT = 5",
        "LIMIT = 6",
        {"by_module", "by_dotted_module", "by_getattr", "by_lazy_import", "by_lazy_class", "stage"},
    ),
    "closure value": ("shop/scores.py", "make(11)", "make(12)", {"by_closure"}),
    "argument of a partial": ("shop/scores.py", "factor=4", "factor=5", {"by_partial"}),
    "field of an object": ("shop/scores.py", "weight=0.25", "weight=0.75", {"by_class"}),
    "default of a field": ("shop/models.py", "weight: float = 0.5", "weight: float = 0.6", {"by_class", "by_method"}),
    "method of a base class": (
        "shop/models.py",
        "return fold(text)",
        "return fold(text)[1:]",
        {"by_class", "by_method"},
    ),
    "code of a class": ("shop/models.py", "return 1.0", "return 2.0", {"by_weights"}),
    "weights under the same path": ("shop/weights.bin", "0123456789", "0123456780", {"by_weights", "by_file"}),
    "decorator": ("shop/decorators.py", "function(caption) * times", "function(caption) + times", {"by_decorator"}),
    "argument of a decorator": ("shop/scores.py", "twice(times=3)", "twice(times=4)", {"by_decorator"}),
    "code under a decorator": (
        "shop/scores.py",
        "def by_decorator(caption: str) -> int:\n    return 1",
        "def by_decorator(caption: str) -> int:\n    return 2",
        {"by_decorator"},
    ),
    "global of a module imported inside": (
        "shop/lazy.py",
        "SCALE = 3",
        "SCALE = 4",
        {"by_lazy_import", "by_lazy_class"},
    ),
    "function imported inside": (
        "shop/lazy.py",
        "heavy.run(text) *",
        "2 * heavy.run(text) *",
        {"by_lazy_import", "by_lazy_class"},
    ),
    "comprehension of a module imported inside": (
        "shop/lazy.py",
        '("a", "b")',
        '("a", "c")',
        {"by_lazy_import", "by_lazy_class"},
    ),
    "lambda in a dict": ("shop/scores.py", 'count("h")', 'count("t")', {"by_rules"}),
    "mutual recursion": ("shop/scores.py", "number != 0 and", "number > 0 and", {"by_recursion"}),
    "declared version": ("shop/scores.py", 'version="3"', 'version="4"', {"pinned"}),
    "output type": (
        "shop/scores.py",
        "def by_set(caption: str) -> bool",
        "def by_set(caption: str) -> int",
        {"by_set"},
    ),
    "input": ("shop/scores.py", 'inputs={"text": "caption"}', 'inputs={"text": "title"}', {"by_method"}),
    "initial value of a cache": ("shop/scores.py", "_SEEN = {}", "_SEEN = {'a': 2}", {"by_cache"}),
}
FRESH: dict[str, tuple[str, str, str]] = {
    "comment": ("shop/deep.py", "# as Unicode says", "# not what Unicode says"),
    "docstring": ("shop/helpers.py", "Strip and fold.", "Fold, then strip."),
    "docstring removed": ("shop/helpers.py", '    """Strip and fold."""\n', ""),
    "formatting": (
        "shop/helpers.py",
        "return fold(text).strip()",
        "return (\n        fold( text )\n        .strip()\n    )",
    ),
    "quotes": ("shop/scores.py", 'count("h")', "count('h')"),
    "lines added above": ("shop/helpers.py", "def clean", "\n\n# moved down\n\ndef clean"),
    "unrelated function": ("shop/helpers.py", 'text + "!"', 'text + "?"'),
    "unrelated constant": ("shop/scores.py", "THRESHOLD = 0.3\n", "THRESHOLD = 0.3\nUNUSED = 2\n"),
    "new function in the module": ("shop/scores.py", "def even(", "def newcomer():\n    return THRESHOLD\n\ndef even("),
    "field that does not count": ("shop/scores.py", "Scorer(weight=0.25)", 'Scorer(weight=0.25, device="cuda")'),
    "batch size and name": ("shop/scores.py", 'name="by_class"', 'name="by_class_too"'),
}


class Process:
    """A process that tells the components of the signals of a folder."""

    def __init__(self, seed: str) -> None:
        command = [sys.executable, str(Path(__file__).parents[1] / "fingerprint_process.py")]
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONDONTWRITEBYTECODE": "1"}
        root = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = root
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=root)
        assert self._out() == "ready"

    def _out(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def components(self, folder: Path, module: str = "shop.scores") -> dict[str, Any]:
        assert self._process.stdin is not None
        request = {"paths": [str(folder), str(folder / "site-packages")], "module": module}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._out())
        assert "failed" not in found, found
        return found

    def fingerprints(self, folder: Path) -> dict[str, str]:
        found = self.components(folder)
        del found["modules"]
        return {name: digest(components) for name, components in found.items()}

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def process() -> Iterator[Process]:
    made = Process("1")
    yield made
    made.stop()


def write_package(folder: Path, edits: dict[str, tuple[str, str]] | None = None) -> Path:
    for name, written in PACKAGE.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = textwrap.dedent(written).lstrip("\n") if name.endswith(".py") else written
        old, new = (edits or {}).get(name, ("", ""))
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new, 1) if old else text)
    return folder


@pytest.fixture(scope="module")
def original(process: Process, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return process.fingerprints(write_package(tmp_path_factory.mktemp("original")))


def changed(old: dict[str, str], new: dict[str, str]) -> set[str]:
    assert old.keys() == new.keys()
    return {name for name in old if old[name] != new[name]}


@pytest.mark.parametrize("case", STALE)
def test_an_edit_makes_exactly_its_dependents_stale(
    case: str, process: Process, original: dict[str, str], tmp_path: Path
) -> None:
    file, old, new, affected = STALE[case]
    edited = process.fingerprints(write_package(tmp_path, {file: (old, new)}))
    assert changed(original, edited) == affected


@pytest.mark.parametrize("case", FRESH)
def test_an_edit_that_changes_no_value_leaves_all_fresh(
    case: str, process: Process, original: dict[str, str], tmp_path: Path
) -> None:
    file, old, new = FRESH[case]
    assert changed(original, process.fingerprints(write_package(tmp_path, {file: (old, new)}))) == set()


def test_a_package_upgrade_makes_stale_what_uses_the_package(
    process: Process, original: dict[str, str], tmp_path: Path
) -> None:
    site = write_package(tmp_path) / "site-packages"
    shutil.move(site / "heavy-1.4.0.dist-info", site / "heavy-1.5.0.dist-info")
    metadata = site / "heavy-1.5.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("1.4.0", "1.5.0"))
    assert changed(original, process.fingerprints(tmp_path)) == {"by_package", "by_lazy_import", "by_lazy_class"}
    before = {"package:heavy": "1.4.0"}
    assert process.components(tmp_path)["by_package"].items() >= {("package:heavy", "1.5.0")}
    assert why(before, {"package:heavy": "1.5.0"}) == ["package:heavy: 1.4.0 -> 1.5.0"]


def test_an_edit_of_the_package_itself_is_not_looked_at(
    process: Process, original: dict[str, str], tmp_path: Path
) -> None:
    edit = {"site-packages/heavy/__init__.py": ("return 1", "return 2")}
    assert changed(original, process.fingerprints(write_package(tmp_path, edit))) == set()


def test_fingerprints_do_not_depend_on_hash_seed_or_process(original: dict[str, str], tmp_path: Path) -> None:
    other = Process("7")
    try:
        assert other.fingerprints(write_package(tmp_path / "some" / "other" / "place")) == original
    finally:
        other.stop()


def test_the_distribution_of_a_module_is_found_whatever_it_is_called() -> None:
    from importlib.metadata import version

    import attr
    import PIL.Image

    assert distribution(PIL.Image.__file__, "PIL") == ("pillow", version("pillow"))
    assert distribution(attr.__file__, "attr") == ("attrs", version("attrs"))
    assert distribution(str(Path(attr.__file__).parents[1] / "nobodys.py"), "nobodys") is None
    assert place_of("json").owner == "python"
    assert place_of(__name__).owner == "own"


def test_nothing_is_imported_for_a_fingerprint(process: Process, tmp_path: Path) -> None:
    edit = {"shop/lazy.py": ("import heavy\n", "import heavy\nraise RuntimeError('imported')\n")}
    assert process.components(write_package(tmp_path, edit))["by_lazy_import"]["shop.lazy (module)"]
    loaded = process.components(tmp_path, "factory_lib.signals.hashes")
    assert loaded["modules"] == []
    assert {"package:scipy", "package:pillow", "package:numpy"} <= loaded["phash"].keys()


def test_components_say_what_changed(process: Process, tmp_path: Path) -> None:
    old = process.components(write_package(tmp_path / "a"))
    new = process.components(write_package(tmp_path / "b", {"shop/scores.py": ("THRESHOLD = 0.3", "THRESHOLD = 0.4")}))
    assert why(old["by_global"], new["by_global"]) == ["shop.scores.THRESHOLD: 0.3 -> 0.4"]
    new = process.components(write_package(tmp_path / "c", {"shop/deep.py": ("casefold", "lower")}))
    assert why(old["stage"], new["stage"]) == ["shop.deep.fold: changed"]
    assert why(old["by_helper"], old["by_helper"]) == []
    assert why({"a": "1"}, {"b": "1"}) == ["a: no longer used", "b: new"]


def test_what_runs_counts_and_not_the_file_it_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(constant: int, docstring: str = "") -> Signal:
        namespace: dict[str, Any] = {"__name__": "typed_in", "LIMIT": 3}
        exec(f"def typed(caption):\n    '{docstring}'\n    return len(caption) > LIMIT + {constant}", namespace)
        return signal(namespace["typed"], output=bool)

    one, same, other = typed(1, "Said").components, typed(1, "Meant").components, typed(2).components
    assert one == same
    assert one["typed_in.LIMIT"] == "3"
    assert why(one, other) == ["typed_in.typed: changed"]

    monkeypatch.syspath_prepend(str(tmp_path))
    path = tmp_path / "edited_later.py"
    path.write_text("def score(caption):\n    return len(caption) + 1\n")
    import edited_later  # type: ignore[import-not-found]

    loaded = code_components(edited_later.score)
    path.write_text("def score(caption):\n    return len(caption) + 20\n")
    assert code_components(edited_later.score) == loaded
    import importlib

    importlib.reload(edited_later)
    assert code_components(edited_later.score) != loaded
