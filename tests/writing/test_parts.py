"""How an export is cut into parts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from factory_lib.writing.parts import cuts, parts_of


@given(st.lists(st.integers(0, 30), max_size=60), st.one_of(st.none(), st.integers(1, 60)), st.integers(1, 20))
def test_parts_hold_all_rows_and_no_more_than_they_may(
    sizes: list[int], most_bytes: int | None, most_rows: int
) -> None:
    edges = cuts(np.array(sizes, np.int64), most_bytes, most_rows)
    # one row after another, as a writer would that begins a new file when the next row does not fit
    expected, held, count = [0], 0, 0
    for row, size in enumerate(sizes):
        full = count == most_rows or (most_bytes is not None and count > 0 and held + size > most_bytes)
        if full:
            expected.append(row)
            held = count = 0
        held, count = held + size, count + 1
    assert [edge for edge in edges if edge < len(sizes)] == [edge for edge in expected if edge < len(sizes)]
    assert edges[-1] == len(sizes)
    parts = parts_of(edges)
    assert [row for part in parts for row in range(part.start, part.stop)] == list(range(len(sizes)))
    assert [part.name for part in parts] == [f"{n:05d}" for n in range(len(parts))]
