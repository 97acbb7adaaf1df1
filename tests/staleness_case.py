"""The cases of `staleness_kinds`: sources of small signals, with `«old|new»` where each is edited."""

from __future__ import annotations

HEAD = "from factory_lib.signals import Vector, env, signal\n"
CASES: dict[str, str] = {}


def case(name: str, source: str) -> None:
    """Add one; `RETURN` in it stands for the head of the usual signal."""
    assert name not in CASES, name
    CASES[name] = HEAD + source.replace("RETURN", "@signal\ndef s(caption: str) -> float:\n    return").lstrip("\n")
