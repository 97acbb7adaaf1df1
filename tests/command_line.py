"""Commands called in this process, and datasets for them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest
from click.testing import CliRunner, Result

from factory_lib import C, DatasetQuery
from factory_lib.cli import factory

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "factory_lib.cli"]


def run(*arguments: str, code: int = 0, stdin: str | None = None) -> Result:
    """Run a command in this process and check its exit code."""
    result = CliRunner().invoke(factory, list(arguments), input=stdin)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def data(*arguments: str) -> Any:
    """What a command prints with --json."""
    return json.loads(run(*arguments, "--json").stdout)


@pytest.fixture
def photos(engine: None) -> None:
    """photos.v1 and v2, and wide.v1 made of it."""
    for name, start in (("a", 0), ("b", 100)):
        table = pa.table(
            {
                "part": [name] * 100,
                "key": [f"{name}{i}" for i in range(100)],
                "width": range(start, start + 100),
                "caption": [f'a, "b" [{i}]' for i in range(100)],
                "v": [[float(i), 0.5] for i in range(100)],
            }
        )
        DatasetQuery.from_arrow(table, shard="part").save("photos", mode="overwrite_shards")
    DatasetQuery("photos").filter(C.width >= 150).save("wide")
