"""Assets that are no datasets have a lineage, too: what their last run read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from factory_lib import DatasetQuery
from factory_lib.orchestration.home import factory_instance
from factory_lib.orchestration.io_manager import VersionedTableIOManager
from factory_lib.orchestration.stage import stage
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve
from tests.command_line import data, run


@stage(group="test")
def pictures() -> DatasetQuery:
    """Rows."""
    return DatasetQuery.from_arrow(pa.table({"key": ["a", "b"]}))


@dg.asset(ins={"pictures": dg.AssetIn(input_manager_key="versions")})
def model(pictures: DatasetQuery) -> int:
    """What is no dataset."""
    return pictures.count()


@dg.asset
def alone() -> int:
    """What is made of nothing."""
    return 1


@pytest.fixture(scope="module", autouse=True)
def read(factory_home: Path, engine_for_all: None) -> Iterator[str]:
    """The version that the last run read."""
    resources = {"versions": VersionedTableIOManager(), "io_manager": dg.mem_io_manager}
    with factory_instance() as instance:
        for _ in range(2):
            assert dg.materialize([pictures, model, alone], instance=instance, resources=resources).success
        name = str(resolve(warehouse(), "pictures"))
        DatasetQuery.from_arrow(pa.table({"key": ["c"]})).save("pictures")  # nothing read it
        yield name


def test_a_model_comes_from_the_versions_that_its_last_run_read(read: str) -> None:
    found = data("lineage", "model")
    assert [(one["parent"], one["child"], one["kind"]) for one in found["links"]] == [(read, "model", "made of")]
    assert [version["name"] for version in found["versions"]] == ["model", read]
    assert f"└── {read}" in run("lineage", "model").stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("alone",), "read no version"),
        (("model", "--down"), "what was made of it is not recorded"),
        (("modell",), "There is no dataset 'modell'"),
    ],
)
def test_what_cannot_be_told_is_said(arguments: tuple[str, ...], said: str) -> None:
    assert said in run("lineage", *arguments, code=1).stderr
