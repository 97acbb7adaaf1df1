"""A client of the embedded engine and tables in it: what the tests of the client use."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from factory_lib.warehouse.client import Warehouse, warehouse

UTC = datetime.UTC
PROPERTY = hypothesis_settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def wh(engine_for_all: None) -> Warehouse:
    found = warehouse()
    found.execute("CREATE DATABASE IF NOT EXISTS client_test")
    return found


@pytest.fixture
def table(wh: Warehouse) -> Iterator[Callable[[str], str]]:
    made: list[str] = []

    def create(columns: str) -> str:
        made.append(f"client_test.t{uuid.uuid4().hex}")
        wh.execute(f"CREATE TABLE {made[-1]} ({columns}) ENGINE = MergeTree ORDER BY tuple()")
        return made[-1]

    yield create
    for name in made:
        wh.drop(name)


def running(wh: Warehouse, mark: str) -> int:
    sql = "SELECT count() FROM system.processes WHERE query LIKE {m:String} AND query NOT LIKE '%system.processes%'"
    return int(wh.scalar(sql, {"m": f"%{mark}%"}))
