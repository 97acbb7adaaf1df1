"""Damaged files of every format: an error about one is said, never a traceback, never a loss in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzzing import fuzz


@pytest.mark.usefixtures("factory_home")
def test_whatever_is_in_a_file_is_read_or_said(tmp_path: Path) -> None:
    assert fuzz(12, 1, tmp_path) == []
