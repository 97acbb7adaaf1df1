"""Everything is killed at random while everything goes on: a short soak. `bench.soak` kills 200 times, and Dagster's daemon."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_six_kills_lose_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", "--kills", "6", "--seed", "1", "--without", "daemon"],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count(": whole") >= 6
