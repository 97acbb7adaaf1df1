"""A plain asset of Dagster's on the factory's IO manager: it reads versions and makes them."""

from __future__ import annotations

import dagster as dg
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery
from factory_lib.orchestration.io_manager import VersionedTableIOManager

GIVEN = dg.AssetSpec("given").with_io_manager_key("versions")


@dg.asset(io_manager_key="versions", ins={"given": dg.AssetIn(input_manager_key="versions")})
def chosen(given: DatasetQuery) -> DatasetQuery:
    """Rows above 1."""
    return given.filter(C.n > 1)


@pytest.mark.usefixtures("engine")
def test_a_run_makes_one_version_and_one_event_that_follows_the_content() -> None:
    def made(*numbers: int) -> dg.AssetMaterialization:
        DatasetQuery.from_arrow(pa.table({"n": numbers})).save("given")
        resources = {"versions": VersionedTableIOManager()}
        result = dg.materialize([GIVEN, chosen], instance=instance, resources=resources)
        [event] = result.asset_materializations_for_node("chosen")
        return event

    with dg.DagsterInstance.ephemeral() as instance:
        first, second, third = made(1, 2, 3), made(1, 2, 3), made(1, 2)
    assert [one.metadata["version"].value for one in (first, second, third)] == ["chosen.v1", "chosen.v2", "chosen.v3"]
    assert [one.metadata["dagster/row_count"].value for one in (first, second, third)] == [2, 2, 1]
    versions = [(one.tags or {})["dagster/data_version"] for one in (first, second, third)]
    assert versions[0] == versions[1] != versions[2]
