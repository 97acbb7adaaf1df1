"""Which type holds all values of two others exactly: the engine's rule for rows of a union, as columns need it."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"(U?Int|Float)(8|16|32|64)")
_MANTISSA = {"32": 24, "64": 53}
"""Bits of a float -> bits of the whole numbers that it holds."""
_WRAPPED = re.compile(r"(Nullable|Array)\((.*)\)")
_TIME = re.compile(r"DateTime64\((\d), 'UTC'\)")
_DECIMAL = re.compile(r"Decimal\((\d+), (\d+)\)")
_MOST_DIGITS = 76


def supertype(one: str, other: str) -> str | None:
    """The narrowest ClickHouse type that holds all values of two; None where there is none.

    Numbers are those of the engine's least supertype: no whole number is rounded, none of 64 bits becomes a float. What
    is nullable on one side is nullable.
    """
    if one == other:
        return one
    first, second = _unwrapped("Nullable", one), _unwrapped("Nullable", other)
    if first or second:
        inner = supertype(first or one, second or other)
        return inner and f"Nullable({inner})"
    first, second = _unwrapped("Array", one), _unwrapped("Array", other)
    if first and second:
        inner = supertype(first, second)
        return inner and f"Array({inner})"
    return _of_numbers(one, other) or _of_times(one, other) or _of_decimals(one, other)


def _unwrapped(wrapper: str, kind: str) -> str | None:
    found = _WRAPPED.fullmatch(kind)
    return found[2] if found and found[1] == wrapper else None


def _of_numbers(one: str, other: str) -> str | None:
    found = [_NUMBER.fullmatch(one), _NUMBER.fullmatch(other)]
    numbers = [(match[1], match[2]) for match in found if match]
    if len(numbers) < 2:
        return None
    floats, signed, unsigned = (
        [bits for kind, bits in numbers if kind == name] for name in ("Float", "Int", "UInt")
    )  # fmt: skip
    width = max((int(bits) for bits in (*signed, *unsigned)), default=0)
    if signed and unsigned and max(map(int, unsigned)) >= max(map(int, signed)):
        width += 1  # the sign's
    if floats:
        needed = max(width, *(_MANTISSA[bits] for bits in floats))
        return next((f"Float{bits}" for bits, held in _MANTISSA.items() if held >= needed), None)
    return next((f"{'Int' if signed else 'UInt'}{bits}" for bits in (8, 16, 32, 64) if bits >= width), None)


def _of_times(one: str, other: str) -> str | None:
    found = [_TIME.fullmatch(one), _TIME.fullmatch(other)]
    digits = [int(match[1]) for match in found if match]
    return f"DateTime64({max(digits)}, 'UTC')" if len(digits) == 2 else None


def _of_decimals(one: str, other: str) -> str | None:
    found = [_DECIMAL.fullmatch(one), _DECIMAL.fullmatch(other)]
    sizes = [(int(match[1]), int(match[2])) for match in found if match]
    if len(sizes) < 2:
        return None
    scale = max(scale for _, scale in sizes)
    digits = scale + max(precision - scale for precision, scale in sizes)
    return f"Decimal({digits}, {scale})" if digits <= _MOST_DIGITS else None
