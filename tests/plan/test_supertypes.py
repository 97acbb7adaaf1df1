"""The type that holds all values of two: held against what the engine makes of both."""

from __future__ import annotations

import itertools

import pytest

from factory_lib.plan.supertypes import supertype
from factory_lib.warehouse.client import warehouse

NUMBERS = [*(f"{kind}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)), "Float32", "Float64"]
OTHERS = ["String", "Decimal(9, 4)", "DateTime64(3, 'UTC')", "DateTime64(6, 'UTC')"]


def by_engine(one: str, other: str) -> str | None:
    """What the engine makes of a list of both; None where it would have them side by side."""
    casts = ", ".join(f"CAST(NULL AS Nullable({kind}))" for kind in (one, other))
    (row,) = warehouse().rows(f"SELECT toTypeName([{casts}]) AS kind")
    kind = str(row["kind"]).removeprefix("Array(")
    return None if kind.startswith("Variant(") else kind.removeprefix("Nullable(").removesuffix("))")


@pytest.mark.usefixtures("engine")
def test_it_is_what_the_engine_makes_of_both() -> None:
    for one, other in itertools.combinations_with_replacement(NUMBERS, 2):
        assert (one, other, supertype(one, other)) == (one, other, by_engine(one, other))
        assert supertype(other, one) == supertype(one, other)
    for one, other in itertools.combinations(OTHERS, 2):
        assert (one, other, supertype(one, other)) == (one, other, by_engine(one, other))


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        ("Nullable(Float32)", "Nullable(Float64)", "Nullable(Float64)"),
        ("UInt8", "Nullable(UInt16)", "Nullable(UInt16)"),
        ("Array(Float32)", "Array(Float64)", "Array(Float64)"),
        ("Array(Nullable(Int8))", "Array(Int16)", "Array(Nullable(Int16))"),
        ("Decimal(10, 2)", "Decimal(9, 4)", "Decimal(12, 4)"),  # 8 digits before the point, 4 behind it
        ("Decimal(76, 0)", "Decimal(76, 1)", None),
        ("Array(Float32)", "Float32", None),
        ("Nullable(String)", "Nullable(Int8)", None),
        ("Bool", "UInt8", None),
    ],
)
def test_what_is_nullable_or_a_list_goes_by_what_is_in_it(one: str, other: str, both: str | None) -> None:
    assert supertype(one, other) == supertype(other, one) == both
