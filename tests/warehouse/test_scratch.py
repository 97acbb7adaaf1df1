"""Scratch tables go with the block that needed them, however it ends."""

from __future__ import annotations

import pytest

from factory_lib.errors import EngineError
from factory_lib.owners import Owner
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.retention import find_sweepable
from factory_lib.warehouse.scratch import scratch_table

pytestmark = pytest.mark.usefixtures("engine")


@pytest.fixture(autouse=True)
def staging(engine: None) -> None:
    warehouse().execute("CREATE DATABASE IF NOT EXISTS factory_staging")


def names() -> list[str]:
    rows = warehouse().rows("SELECT name FROM system.tables WHERE database = 'factory_staging' ORDER BY name")
    return [row["name"] for row in rows]


def test_a_scratch_table_is_there_for_a_block_and_belongs_to_this_process() -> None:
    with scratch_table(warehouse(), "numbers", select="SELECT number AS n FROM system.numbers LIMIT 5") as table:
        assert warehouse().scalar(f"SELECT sum(n) FROM {table}") == 10
        (name,) = names()
        assert name.startswith("_stage_numbers_")
        comment = str(warehouse().scalar("SELECT comment FROM system.tables WHERE name = {n:String}", {"n": name}))
        owner = Owner.of(comment)
        assert owner is not None
        assert owner.is_alive
        assert find_sweepable(warehouse()) == []
        with scratch_table(warehouse(), "numbers", "n UInt8", engine="MergeTree ORDER BY n"):
            assert len(names()) == 2
    assert names() == []


def test_it_goes_when_the_block_fails_or_it_could_not_be_filled() -> None:
    with pytest.raises(ZeroDivisionError), scratch_table(warehouse(), "numbers", "n UInt8"):
        _ = 1 / 0
    with pytest.raises(EngineError), scratch_table(warehouse(), "numbers", select="SELECT throwIf(1) AS n"):
        pass
    assert names() == []
