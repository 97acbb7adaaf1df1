"""The catalog's schema: one of an earlier release is brought along, one of a later release is left alone."""

from __future__ import annotations

import pytest

from factory_lib import DatasetQuery
from factory_lib.errors import EngineError
from factory_lib.history.lineage import lineage
from factory_lib.warehouse import schema
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve
from tests.history_rows import samples, save

pytestmark = pytest.mark.usefixtures("engine")

COLUMNS = ("storage", "parents", "signals", "sources")


def as_before(*columns: str) -> None:
    """Make the catalog one of before schemas had numbers, or one whose step was interrupted: it lacks these columns."""
    for name in columns:
        warehouse().execute(f"ALTER TABLE factory.versions DROP COLUMN {name}", settings={"mutations_sync": 2})
    warehouse().execute("ALTER TABLE factory.versions MODIFY COMMENT ''")
    schema.checked.clear()


def comment() -> str:
    return str(warehouse().scalar("SELECT comment FROM system.tables WHERE database = 'factory' AND name = 'versions'"))


@pytest.mark.parametrize("lacking", [COLUMNS, ("sources",), ()])
def test_a_catalog_is_brought_along(lacking: tuple[str, ...]) -> None:
    save(samples("a", range(3)), dataset="source")
    DatasetQuery("source").filter("x > 0").save("kept")
    columns = "SELECT name, type, default_kind FROM system.columns WHERE database = 'factory' AND table = 'versions'"
    made = warehouse().rows(f"{columns} ORDER BY name"), comment()
    as_before(*lacking)
    found = lineage(resolve(warehouse(), "kept"))
    assert [(link.parent, link.child, link.kind) for link in found.links] == [("source.v1", "kept.v1", "made of")]
    assert found.versions["kept.v1"].storage == resolve(warehouse(), "kept").provenance.storage != ""
    assert (warehouse().rows(f"{columns} ORDER BY name"), comment()) == made


def test_what_is_committed_then_is_known_too() -> None:
    save(samples("a", range(3)), dataset="source")
    as_before(*COLUMNS)
    DatasetQuery("source").filter("x > 0").save("kept")
    rows = warehouse().rows("SELECT dataset, parents.name AS parents FROM factory.versions ORDER BY dataset")
    assert [(row["dataset"], list(row["parents"])) for row in rows] == [("kept", ["source.v1"]), ("source", [])]


def test_a_catalog_of_a_later_release_is_left_alone() -> None:
    save(samples("a", range(3)))
    warehouse().execute(f"ALTER TABLE factory.versions MODIFY COMMENT 'schema {schema.SCHEMA + 1}'")
    schema.checked.clear()
    with pytest.raises(EngineError, match=f"later release.*schema {schema.SCHEMA + 1}"):
        DatasetQuery("d").count()
