"""Which texts may name modules."""

from __future__ import annotations

import pytest

from factory_lib.fingerprints.by_name import modules


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("numpy", ["numpy"]),
        ("numpy.linalg:norm", ["numpy.linalg"]),
        ("numpy.linalg.norm", ["numpy.linalg"]),
        ("numpy: sums of rows", []),
        ("numpy:", ["numpy"]),
        ("no_such_package_at_all", []),
        ("numpy and others", []),
    ],
)
def test_what_names_a_module_and_what_is_a_sentence(text: str, found: list[str]) -> None:
    assert list(modules([text], "factory_lib")) == found
