"""Versions made again from what was recorded of them: equal when they should be, and what is said when they cannot be."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from click.testing import CliRunner

from factory_assets.demo.rendered.folder import write_folder
from factory_lib import C, DatasetQuery, case, cosine_distance, fn, signal, sql_text
from factory_lib.cli import factory
from factory_lib.history.reproducing import Reproduction, reproduce
from factory_lib.plan.sql import Rendering
from factory_lib.signals.hashes import phash
from factory_lib.signals.text import caption_stats
from factory_lib.sources import open_source
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version, datasets

pytestmark = pytest.mark.usefixtures("engine")

SIGNALS = """
    import os
    from factory_lib import signal

    FACTOR = 1

    @signal
    def words(caption: str) -> int:
        with open(os.environ["WORDS_LOG"], "a") as log:
            log.write("x")
        return len(caption.split()) * FACTOR
    """


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_folder(tmp_path_factory.mktemp("rendered"), samples=60, shards=3, seed=3).path)


@pytest.fixture
def folder(rendered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(rendered, tmp_path / "shards"))


@pytest.fixture
def laion(folder: Path) -> Version:
    return DatasetQuery.from_source(str(folder)).save("laion")


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user's with a signal that notes its calls."""
    (tmp_path / "attic_signals.py").write_text(textwrap.dedent(SIGNALS))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("WORDS_LOG", str(tmp_path / "log"))
    yield importlib.import_module("attic_signals")
    sys.modules.pop("attic_signals", None)


def leftovers() -> list[str]:
    names = "SELECT concat(database, '.', name) AS n FROM system.tables WHERE startsWith(name, '_stage_')"
    return [row["n"] for row in warehouse().rows(names)]


def verdicts(found: Reproduction) -> dict[str, str]:
    return {shard.shard: shard.verdict for shard in found.shards}


QUERIES: dict[str, Callable[[DatasetQuery], DatasetQuery]] = {
    "filter": lambda q: q.filter(C.width > 60, "length(caption) > 3"),
    "columns": lambda q: q.mutate(ratio=C.width / C.height, n=C.caption.length()).drop("url").rename(w="width"),
    "copy": lambda q: q.mutate(rank=fn.row_number().over("shard", [C.width.desc(), C.key])),
    "sample": lambda q: q.sample(7, seed=3).union(q.sample(fraction=0.3)),
    "order": lambda q: q.order_by(C.width.desc(), "key").limit(9).offset(2),
    "none": lambda q: q.limit(0),
    "nested": lambda q: q.order_by("key").limit(20).filter(C.key > "0000000"),
    "distinct": lambda q: q.order_by("key").distinct("width"),
    "groups": lambda q: q.group_by("width", parity=C.height % 2).agg(n=fn.count(), low=fn.min(C.key)).order_by("width", "parity"),
    "whole": lambda q: q.agg(n=fn.count(), q=fn.quantileExact(C.width, parameters=[0.9])),
    "join": lambda q: q.select("shard", "position", "key", "width").join(q.select("key", w2=C.width), on="key", how="left"),
    "semi": lambda q: q.join(q.filter(C.width > 90), on="sample_id", how="anti"),
    "isin": lambda q: q.filter(C.key.isin(q.order_by("key").limit(30).select("key")) & C.width.isin([1, 64, 96, 128])),
    "values": lambda q: q.mutate(
        day=dt.date(2026, 1, 2),
        time=dt.datetime(2026, 1, 2, 3, 4, 5),
        text='it\'s "quoted" \\ and {braces:String} ünï',
        big=2**64 - 1,
        flag=True,
        nan=float("nan"),
        infinite=fn.negate(float("inf")),
        small=np.float32(0.1),
        wide=np.arange(3, dtype=np.uint16),
        raw=b"\x00\xff",
    ),
    "vectors": lambda q: q.mutate(
        d=cosine_distance([0.6, 0.8], fn.array(C.width.cast("Float32"), 1.0).cast("Array(Float32)"))
    ),
    "case": lambda q: q.mutate(c=case((C.width > 90, "wide"), default="narrow"), s=sql_text("upper(caption)"), item=C.image.size),
    "union": lambda q: q.filter(C.width > 90).union(q.filter(C.width <= 60).drop("url")),
}  # fmt: skip


@pytest.mark.parametrize("name", QUERIES)
def test_every_kind_of_query_can_be_made_again(name: str, laion: Version) -> None:
    version = QUERIES[name](DatasetQuery(laion)).save("made")
    found = reproduce(version)
    assert found.is_equal, found
    assert found.unpinned == []
    assert verdicts(found) == dict.fromkeys(version.shards, "equal")
    assert leftovers() == []


def test_another_engine_is_said(laion: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    version = DatasetQuery(laion).filter(C.width > 64).save("wide")
    present = warehouse().scalar("SELECT version()")
    monkeypatch.setattr(type(warehouse()), "version", "99.1")
    found = reproduce(version)
    assert found.is_equal
    assert found.unpinned == [f"ClickHouse is 99.1, it was {present}"]


def test_a_recipe_gives_the_same_sql(laion: Version) -> None:
    from factory_lib.build.recipes import prepared, recipe_of

    for name, query in QUERIES.items():
        block = query(DatasetQuery(laion)).plan
        recipe = json.loads(json.dumps(recipe_of(block, {"laion.v1": laion.uuid})))
        read = prepared(recipe, {laion.uuid: "laion.v1"}).query
        assert Rendering(inline=True).select(read) == Rendering(inline=True).select(block), name
        bound, again = Rendering(), Rendering()
        assert again.select(read) == bound.select(block), name
        assert repr(again.params) == repr(bound.params), name


def test_what_was_changed_behind_its_back_is_found(laion: Version) -> None:
    version = DatasetQuery(laion).filter(C.width > 0).save("made")
    rows = version.rows
    shard = next(iter(version.shards))
    warehouse().execute(f"ALTER TABLE {version.table} MODIFY SETTING table_readonly = 0")
    warehouse().execute(
        f"ALTER TABLE {version.table} UPDATE caption = 'other' WHERE shard = '{shard}' AND position < 3",
        settings={"mutations_sync": 2},
    )
    found = reproduce(version)
    assert [(s.shard, s.verdict, dict(s.columns)) for s in found.shards if s.verdict != "equal"] == [
        (shard, "different", {"caption": 3})
    ]
    warehouse().execute(f"DELETE FROM {version.table} WHERE shard = '{shard}' AND position = 5")
    warehouse().execute("TRUNCATE TABLE factory.fingerprints")
    other = next(s for s in reproduce(version).shards if s.shard == shard)
    assert (other.verdict, other.added, other.changed) == ("different", 1, 3)
    assert rows == version.rows


def test_ingest_and_merges_by_several_makers(folder: Path) -> None:
    source = open_source(str(folder))
    names = [shard.name for shard in source.shards()]
    assert len(names) == 3
    DatasetQuery.from_source(source, shards=names[:2]).save("laion")
    DatasetQuery.from_source(str(folder), shards=names[2:]).save("laion", mode="overwrite_shards")
    laion = DatasetQuery.from_source(str(folder), shards=names[:1]).save("laion", mode="overwrite_shards")
    assert len({shard.origin for shard in laion.shards.values()}) == 3
    found = reproduce(laion)
    assert found.is_equal, found
    assert {one.made_by for one in found.shards} == {"laion.v1", "laion.v2", "laion.v3"}
    # a merge with other columns: what the earlier shards lack is NULL, and so it is when they are made again
    for number, name in enumerate(names):
        query = DatasetQuery(laion, shards=[name]).filter(C.width > 10)
        query = query.mutate(**{f"c{number}": C.width + number})
        merged = query.save("merged", mode="overwrite_shards", schema_evolution=True)
    assert {"c0", "c1", "c2"} <= merged.columns.keys()
    again = reproduce(merged)
    assert again.is_equal, again
    assert {one.made_by for one in again.shards} == {"merged.v1", "merged.v2", "merged.v3"}
    whole = reproduce(DatasetQuery(merged).filter(C.c0 > 0).save("end"))
    assert whole.is_equal, whole


def test_signals_are_computed_anew(laion: Version, module: Any, tmp_path: Path) -> None:
    log = tmp_path / "log"
    version = (
        DatasetQuery(laion).add_signals(module.words, phash, caption_stats.reading(caption="url")).save("measured")
    )
    assert len(log.read_text()) == laion.rows
    log.write_text("")
    assert reproduce(version).is_equal
    assert len(log.read_text()) == laion.rows
    renamed = DatasetQuery(laion).add_signals(module.words.named("other").reading(caption="url")).save("measured")
    assert reproduce(renamed).is_equal
    assert leftovers() == []


def test_a_signal_of_other_code_is_said_and_compared(laion: Version, module: Any, tmp_path: Path) -> None:
    version = DatasetQuery(laion).add_signals(module.words).save("measured")
    path = tmp_path / "attic_signals.py"
    path.write_text(path.read_text().replace("FACTOR = 1", "FACTOR = 1 + 0 "))
    fresh = reload("attic_signals")
    assert fresh.words.fingerprint == module.words.fingerprint  # the value counts, not how it is written
    assert reproduce(version).is_equal
    path.write_text(path.read_text().replace("FACTOR = 1 + 0 ", "FACTOR = 2"))
    reload("attic_signals")
    found = reproduce(version)
    assert not found.is_equal
    assert "signal words has the fingerprint" in found.unpinned[0]
    worded = DatasetQuery(version).filter(C.words > 0).count()  # twice nothing is nothing
    assert sum(one.columns["words"] for one in found.shards) == worded
    path.unlink()
    sys.modules.pop("attic_signals")
    importlib.invalidate_caches()
    assert "no such module" in reproduce(version).shards[0].reason


def reload(name: str) -> Any:
    sys.modules.pop(name)
    importlib.invalidate_caches()
    shutil.rmtree(Path(sys.path[0]) / "__pycache__", ignore_errors=True)
    return importlib.import_module(name)


def test_signals_that_cannot_be_imported(laion: Version) -> None:
    @signal
    def local(caption: str) -> int:
        return len(caption)

    version = DatasetQuery(laion).add_signals(local).save("measured")
    found = reproduce(version)
    assert set(verdicts(found).values()) == {"not reproducible"}
    assert "Signal 'local' was made inside a function" in found.shards[0].reason


def test_a_model_of_ones_own_is_found_by_its_checkpoint(laion: Version) -> None:
    from factory_lib.signals.clip import Clip

    query = DatasetQuery(laion).limit(12).add_signals(Clip("tinyclip", name="mine").encode_text)
    assert reproduce(query.save("embedded")).is_equal


def test_sources_that_changed(folder: Path, laion: Version) -> None:
    measured = DatasetQuery(laion).add_signals(phash).save("measured")
    kept = DatasetQuery(measured).filter(C.width > 0).save("kept")
    first, *others = sorted(folder.glob("*.tar"))
    os.utime(first, (1, 1))
    expected = {first.stem: "not reproducible", **dict.fromkeys((p.stem for p in others), "equal")}
    for version in (laion, measured):
        found = reproduce(version)
        assert verdicts(found) == expected
        assert "source changed" in found.shards[0].reason
    assert reproduce(kept).is_equal  # its rows come from the version alone
    first.unlink()
    assert verdicts(reproduce(laion)) == expected
    shutil.rmtree(folder)
    found = reproduce(laion)
    assert set(verdicts(found).values()) == {"not reproducible"}
    assert "cannot be read any more" in found.shards[0].reason


def test_rows_from_memory_and_values_that_are_drawn(laion: Version) -> None:
    given = DatasetQuery.from_arrow(pa.table({"key": ["a", "b"], "x": [1, 2]})).save("given")
    found = reproduce(given)
    assert [(s.verdict, "came from memory" in s.reason) for s in found.shards] == [("not reproducible", True)]
    key = DatasetQuery(laion).order_by("-shard", "-position").limit(1).to_arrow()["key"][0].as_py()
    columns = pa.table({"key": [key], "score": [0.5]})
    added = DatasetQuery(laion).add_columns(columns, on="key").save("scored")
    assert DatasetQuery(added).filter(C.score == 0.5).to_arrow()["key"].to_pylist() == [key]
    assert [p["name"] for p in (added.provenance or given.provenance).parents] == ["laion.v1"]  # type: ignore[union-attr]
    assert "came from memory" in reproduce(added).shards[0].reason
    drawn = DatasetQuery(laion).mutate(x=fn.rand64()).save("drawn")
    found = reproduce(drawn)
    assert found.unpinned == ["rand64() gives other values each time"]
    assert sum(one.columns["x"] for one in found.shards) == laion.rows


def test_parents_that_were_dropped_and_versions_without_a_record(laion: Version) -> None:
    made = DatasetQuery(laion).filter(C.width > 0).save("made")
    warehouse().execute("DROP TABLE laion.v1 SYNC")
    assert "made of laion.v1, which was dropped" in reproduce(made).shards[0].reason
    warehouse().execute("TRUNCATE TABLE factory.recipes")
    assert "not recorded" in reproduce(made).shards[0].reason


def test_nothing_is_left_and_nothing_is_shown_when_it_is_interrupted(
    laion: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = DatasetQuery(laion).add_signals(caption_stats).save("measured")
    seen: list[list[str]] = []

    def interrupted(*_: Any, **__: Any) -> Iterator[pa.RecordBatch]:
        seen.append(leftovers())
        assert set(datasets(warehouse())) == {"laion", "measured"}
        raise KeyboardInterrupt

    monkeypatch.setattr("factory_lib.compute.run.compute", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce(version)
    assert seen[0]
    assert leftovers() == []


def test_the_command(laion: Version) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        result = CliRunner().invoke(factory, ["reproduce", *arguments])
        return result.exit_code, result.stdout, result.stderr

    code, out, err = run("laion")
    assert (code, "laion.v1: 3 shards made again, all equal" in out) == (0, True)
    assert "making 3 shards of laion.v1 again" in err
    DatasetQuery.from_arrow(pa.table({"key": ["a"], "x": [1]})).save("given")
    code, out, _ = run("given", "--json")
    shown = json.loads(out)
    assert (code, shown["is_equal"], shown["not_reproducible"]) == (1, False, 1)
    assert shown["shards"][0]["verdict"] == "not reproducible"
    assert run("given")[0] == 1
    assert "came from memory" in run("given")[1]
    code, _, err = run("laio")
    assert (code, "Did you mean 'laion'" in err) == (1, True)
    assert run()[0] == 2
