"""Fingerprints of the bundled signals are what they were: nobody computes anew because the house was tidied.

`fixtures/bundled_signals.json` holds what each signal's code was, by a release before. Where a value changes on
purpose, its components are written anew there, and the changelog says that it is computed again.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "bundled_signals.json").read_text())
_OF_THE_MACHINE = ("python", "package:")


def _own(components: dict[str, str]) -> dict[str, str]:
    """Components that the code gives, without the versions of what is installed."""
    return {name: value for name, value in components.items() if not name.startswith(_OF_THE_MACHINE)}


@pytest.mark.parametrize("name", RECORDED)
def test_a_bundled_signal_is_what_it_was(name: str) -> None:
    recorded = RECORDED[name]["components"]
    if recorded["python"] != f"{sys.version_info.major}.{sys.version_info.minor}":
        pytest.skip(f"recorded with Python {recorded['python']}: another one compiles the code differently")
    module, _, attribute = name.partition(":")
    signal = getattr(importlib.import_module(module), attribute)
    assert _own(dict(signal.components)) == _own(recorded)
    if signal.components == recorded:
        assert signal.fingerprint == RECORDED[name]["fingerprint"]
