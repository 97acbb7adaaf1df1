"""Random trainings, as `bench.loader_soak` runs thousands of: every row once, its own bytes, in one order."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.loader_soak import case_of, run


@pytest.mark.parametrize("first", range(0, 30, 10))
def test_random_trainings_see_what_they_are_to(first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "home"))
    for number in range(first, first + 10):
        # Processes cost a tenth of a second each: here one case of ten has workers.
        run(case_of(number, (0,) if number % 10 else (1, 2)), tmp_path / str(number))
