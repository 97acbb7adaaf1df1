"""Small signals and an edit of each: what it must do to the fingerprint follows from what it does to the values.

`CASES` maps a name to a source text with `«old|new»` where it is edited; `s` is the signal. Values of `SAMPLES` are
computed before and after: where they differ the fingerprint has to, and where they do not it must not. Run as a
program, it prints the fingerprints of all sources before the edit, as another process has them.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

from tests import staleness_code, staleness_names, staleness_values
from tests.staleness_case import CASES

__all__ = ["CASES", "staleness_code", "staleness_names", "staleness_values"]
SAMPLES = ("a hat", "Dress and shoes", "", "tee 42")
_numbers = itertools.count()
_EDIT = re.compile(r"«(.*?)\|(.*?)»", re.DOTALL)


def texts(name: str) -> tuple[str, str]:
    """The source before and after the edit."""
    return _EDIT.sub(r"\1", CASES[name]), _EDIT.sub(r"\2", CASES[name])


def loaded(source: str, folder: Path) -> types.ModuleType:
    """The source as the module `kinds_case`, loaded from a file."""
    path = folder / "kinds_case.py"
    path.write_text(source)
    module = types.ModuleType("kinds_case")
    module.__file__ = str(path)
    sys.modules["kinds_case"] = module
    exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
    return module


class Looked(NamedTuple):
    """What a signal is before its first value, its values, and what it is after them."""

    fingerprint: str
    values: list[str]
    after_use: str


def looked_at(source: str, folder: Path) -> Looked:
    """Load a source, and compute."""
    signal: Any = loaded(source, folder).s.named(f"s{next(_numbers)}")
    return Looked(signal.fingerprint, values(signal), signal.fingerprint)


def values(signal: Any) -> list[str]:
    """The values of the samples, as text."""
    return [told(signal.one(text)) for text in SAMPLES]


def told(value: Any) -> str:
    """A value as text: NaN and signed zero are told apart."""
    if isinstance(value, float):
        return "nan" if math.isnan(value) else f"{value!r} {math.copysign(1, value)}"
    return repr(value)


CONFIG = "LIMIT = 5\nOTHER = 1\ndef clean(t): return t\ndef call(t): return clean(t)\n"


def prepare(folder: Path) -> None:
    """Write the module that some cases import, and forget it where it was loaded."""
    (folder / "kinds_config.py").write_text(CONFIG)
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    sys.modules.pop("kinds_config", None)


def fingerprints(folder: Path) -> dict[str, str]:
    """The fingerprints before the edits."""
    found = {}
    for name in CASES:
        prepare(folder)
        found[name] = loaded(texts(name)[0], folder).s.fingerprint
    return found


if __name__ == "__main__":
    print(json.dumps(fingerprints(Path(sys.argv[1]))))
