"""Staging tables that go with a Python object: at once, later where garbage is collected, never those of others."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from factory_lib.names import STAGING
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.derive import SYSTEM
from factory_lib.warehouse.embedded import engine_url, is_held, stop_engine
from factory_lib.warehouse.lifetimes import drop_left, drop_with
from factory_lib.warehouse.staging import StagingTable, create_stage


class Thing:
    """Something that a table goes with."""

    cycle: Thing | None = None


def made(wh: Warehouse) -> tuple[Thing, StagingTable]:
    thing, stage = Thing(), create_stage(wh, STAGING, {**SYSTEM, "a": "UInt8"})
    drop_with(thing, stage)
    return thing, stage


def is_there(stage: StagingTable) -> bool:
    return bool(stage.warehouse.rows(f"EXISTS TABLE {stage.name}")[0]["result"])


@pytest.mark.usefixtures("engine")
def test_a_table_goes_at_once_with_what_nobody_refers_to() -> None:
    thing, stage = made(warehouse())
    assert is_there(stage)
    del thing
    assert not is_there(stage)


@pytest.mark.usefixtures("engine")
def test_what_is_collected_as_garbage_asks_no_engine_and_is_dropped_later(monkeypatch: pytest.MonkeyPatch) -> None:
    thing, stage = made(warehouse())
    thing.cycle = thing
    del thing
    asked: list[object] = []
    with monkeypatch.context() as during:
        during.setattr(Warehouse, "execute", lambda _, *sql: asked.append(sql))
        gc.collect()
    assert asked == []
    assert is_there(stage)
    made(warehouse())  # and dropped, too: nobody refers to it
    assert not is_there(stage)
    thing, stage = made(warehouse())
    thing.cycle = thing
    del thing
    gc.collect()
    drop_left()
    assert not is_there(stage)


@pytest.mark.usefixtures("engine")
def test_the_copy_of_a_fork_takes_no_table_of_its_parent() -> None:
    thing, stage = made(warehouse())
    child = os.fork()
    if not child:
        del thing
        os._exit(0)
    os.waitpid(child, 0)
    assert is_there(stage)
    del thing
    assert not is_there(stage)


def test_no_engine_is_started_to_drop_a_table(tmp_path: Path) -> None:
    home = tmp_path / "home"
    engine_url(home)
    try:
        thing, _ = made(Warehouse(home=home))
    finally:
        stop_engine(home)
    del thing
    assert not is_held(home)
