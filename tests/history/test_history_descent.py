"""History: where versions come from, and the history of one sample."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, signal
from factory_lib.errors import NotFound, QueryError
from factory_lib.history.drawing import boxes, label, mermaid
from factory_lib.history.lineage import Lineage, lineage
from factory_lib.history.summaries import version_summaries
from factory_lib.history.tracing import trace
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
from factory_lib.warehouse.versions import Version
from tests.history_rows import samples, save

pytestmark = pytest.mark.usefixtures("engine")


def links(found: Lineage) -> set[tuple[str, str, str]]:
    return {(link.parent, link.child, link.kind) for link in found.links}


def test_lineage_follows_shards_and_not_what_they_did_not_come_from() -> None:
    for name in "abc":
        save(samples(name, range(5)), dataset="source", mode="overwrite_shards")
        DatasetQuery("source", shards=[name]).filter(C.x > 0).save("kept", mode="overwrite_shards")
    found = lineage(DatasetQuery("kept", shards=["c"]).save("one_shard"))
    assert ("kept.v3", "one_shard.v1", "made of") in links(found)
    assert found.versions.keys() == {"one_shard.v1", "kept.v3", "source.v3"}  # a and b are no part of it
    whole = lineage(DatasetQuery("kept").order_by("x").save("ordered"))
    assert links(whole) == {
        ("kept.v3", "ordered.v1", "made of"),
        ("kept.v1", "kept.v3", "carried over"),
        ("kept.v2", "kept.v3", "carried over"),
        ("source.v1", "kept.v1", "made of"),
        ("source.v2", "kept.v2", "made of"),
        ("source.v3", "kept.v3", "made of"),
    }


def test_lineage_reaches_sources_and_survives_dropped_versions(tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=20, shards=2)
    DatasetQuery.from_source(str(folder.path)).save("laion")
    DatasetQuery("laion").mutate(n=C.caption.length()).save("laion")
    DatasetQuery("laion.v2").filter(C.n > 0).save("laion")
    drop_versions(warehouse(), [e for e in expired(warehouse(), KeepPolicy(1, days=0)) if e.version == "laion.v2"])
    assert [v.name for v in version_summaries(warehouse(), "laion")] == ["laion.v1", "laion.v2", "laion.v3"]
    # an ancestor of the latest: the policy keeps it; the user drops it nevertheless
    for uuid in [v.uuid for v in version_summaries(warehouse(), "laion") if v.number == 2]:
        warehouse().execute(f"INSERT INTO factory.dropped SELECT '{uuid}', 'laion.v2', now64(3)")
    warehouse().execute("DROP TABLE laion.v2 SYNC")
    found = lineage(Version("laion", 3, version_summaries(warehouse(), "laion")[-1].uuid, warehouse()))
    assert [(a.name, a.is_there) for a in found.versions.values()] == [
        ("laion.v3", True),
        ("laion.v2", False),
        ("laion.v1", True),
    ]
    assert (str(folder.path), "laion.v1", "read from") in links(found)
    assert "laion.v2" in mermaid(found)


def test_many_versions_of_a_dataset_become_one_box() -> None:
    for i in range(6):
        save(samples(f"s{i}", range(3)), mode="overwrite_shards")
    top = boxes(lineage(DatasetQuery("d").filter(C.x > 0).save("kept")))
    (parent,) = top.parents
    assert parent.names == ("d.v6",)
    (carried,) = parent.parents
    assert carried.names == tuple(f"d.v{i}" for i in range(1, 6))
    assert label(carried.names) == "d.v1 … v5 (5 versions)"
    text = mermaid(lineage(DatasetQuery("kept").save("end")))
    assert text.startswith("flowchart LR\n")
    assert text.count("-. carried over .->") == 1
    assert text.count("-->") == 2


def test_a_long_line_of_descent(monkeypatch: pytest.MonkeyPatch) -> None:
    from factory_lib.history import drawing

    save(samples("a", range(3)))
    for i in range(9):
        last = DatasetQuery("d").mutate(**{f"c{i % 2}": C.x + i}).save("d")
    whole = links(lineage(last))
    assert whole == {(f"d.v{i}", f"d.v{i + 1}", "made of") for i in range(1, 10)}
    monkeypatch.setattr(drawing, "_DEPTH", 5)
    box, depth = boxes(lineage(last)), 0
    while box.parents:
        box, depth = box.parents[0], depth + 1
    assert (box.names, box.is_cut, depth) == (("d.v5",), True, 5)


def test_the_life_of_a_sample() -> None:
    save(samples("a", range(10)) + samples("b", range(10, 20)), dataset="source")
    measured = DatasetQuery("source").mutate(y=C.x * 10).save("measured")
    DatasetQuery(measured).filter((C.x > 1) & (C.y < 150).fill_null(False), "text != 't7'").save("kept")
    ids = {row["key"]: row["sample_id"] for row in DatasetQuery("kept").to_arrow().to_pylist()}
    twins = pa.table(
        {"sample_id": pa.array([ids["k5"]], pa.uint64()), "duplicate_of": pa.array([ids["k3"]], pa.uint64())}
    )
    DatasetQuery.from_arrow(twins).save("twins")
    DatasetQuery("kept").join(DatasetQuery("twins"), on="sample_id", how="anti").save("unique")
    version = DatasetQuery("unique").order_by("-x").limit(8).save("best")

    def dropped_by(key: str) -> tuple[str | None, list[str]]:
        found = trace(version, key)
        failures = [f.condition for step in found.steps for f in step.failures]
        return found.dropped_by, failures

    assert dropped_by("k1") == ("kept.v1", ["(C.x > 1)"])
    assert dropped_by("k0") == ("kept.v1", ["(C.x > 1)"])
    assert dropped_by("k18") == ("kept.v1", ["(C.y < 150)"])
    assert dropped_by("k7") == ("kept.v1", ["sql_text(\"text != 't7'\")"])
    assert dropped_by("k2") == ("best.v1", [])  # the limit
    assert dropped_by("k14") == (None, [])
    twin = trace(version, str(ids["k5"]))
    assert (twin.key, twin.dropped_by, twin.is_kept) == ("k5", "unique.v1", False)
    dropped = next(step for step in twin.steps if step.version == "unique.v1")
    (mention,) = dropped.mentions
    assert mention.version == "twins.v1"
    assert mention.values == {"duplicate_of": ids["k3"]}
    assert mention.duplicate_of is not None
    assert mention.duplicate_of["key"] == "k3"
    steps = trace(version, "k14").steps
    assert [step.version for step in steps] == ["source.v1", "measured.v1", "kept.v1", "unique.v1", "best.v1"]
    assert [{v.column: v.value for v in step.values} for step in steps][:3] == [
        {"x": 14, "text": "t14"},
        {"y": 140},
        {},
    ]
    assert [f.values for step in trace(version, "k18").steps for f in step.failures] == [{"y": 180}]
    with pytest.raises(NotFound, match="'k99'.*Keys look like 'k"):
        trace(version, "k99")


def test_the_life_of_a_sample_over_versions() -> None:
    save(samples("a", range(5)) + samples("b", range(5, 9)))
    save(samples("b", range(5, 9)), mode="overwrite_shards")  # made anew, the same
    save(samples("c", range(9, 12)), mode="overwrite_shards")
    save(samples("b", range(5, 9), text="new"), mode="overwrite_shards")
    save(samples("b", range(5, 8)), mode="overwrite_shards")
    spans = [
        (s.first, s.last, s.is_there, s.changed)
        for s in trace(save(samples("a", range(2)), mode="overwrite_shards"), "k8").spans
    ]
    assert spans == [("d.v1", "d.v3", True, ()), ("d.v4", "d.v4", True, ("text",)), ("d.v5", "d.v6", False, ())]


def test_a_key_that_several_samples_have() -> None:
    version = save(samples("a", range(3)) + samples("b", range(3)))
    with pytest.raises(QueryError, match=r"2 samples of d\.v1 have the key 'k1'.*shard a.*Give the id"):
        trace(version, "k1")
    ids = {r["shard"]: r["sample_id"] for r in DatasetQuery(version).filter(C.key == "k1").to_arrow().to_pylist()}
    assert trace(version, str(ids["b"])).steps[0].shard == "b"


def test_trace_names_signals_and_bytes(tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=20, shards=2)

    @signal
    def length(caption: str) -> int:
        return len(caption)

    DatasetQuery.from_source(str(folder.path)).save("laion")
    version = DatasetQuery("laion").add_signals(length).filter(C.length > 10_000).save("long")
    row = DatasetQuery("laion").limit(1).to_arrow().to_pylist()[0]
    found = trace(version, row["key"])
    assert found.pointers["image"] == row["image"]
    assert found.dropped_by == "long.v1"
    assert found.steps[-1].reason.endswith("values that were not kept: (C.length > 10000)")
    kept = DatasetQuery("laion").add_signals(length).save("measured")
    value = next(v for v in trace(kept, row["key"]).steps[-1].values if v.column == "length")
    assert (value.value, value.signal) == (len(row["caption"]), length.fingerprint)


def test_what_a_limit_or_a_join_drops_is_told_what_beat_or_lacked_it() -> None:
    one = save(samples("a", range(10)) + samples("b", range(10, 20)))
    query = DatasetQuery(one)
    labels = DatasetQuery.from_arrow(pa.table({"name": [f"k{i}" for i in range(15)], "label": range(15)})).save(
        "labels"
    )
    places = {row["key"]: row for row in query.to_arrow().to_pylist()}

    def why(dropping: DatasetQuery, key: str) -> str:
        step = trace(dropping.save("fewer"), key).steps[-1]
        assert step.is_there is False
        return step.reason

    best = why(query.order_by("-x").limit(5), "k3")
    assert best == "5 rows are kept by C.x.desc(), it is number 17; the last one kept is 'k15' (C.x is 3, there 15)"
    assert why(query.limit(12), "k15").startswith("12 rows are kept, it is number 16; the last one kept is 'k11'")
    assert why(query.order_by("x").offset(4), "k1") == "the first 4 by C.x are left out, it is number 2"
    each = why(query.mutate(half=C.x % 2).order_by("-x").distinct("half"), "k4")
    assert each == "one row is kept of those with fn.positiveModulo(C.x, 2) 0, the first by C.x.desc(): 'k18'"
    joined = query.join(DatasetQuery(labels), on={"key": "name"})
    assert why(joined, "k17") == f"{labels} has no row with name 'k17'"
    label = {row["name"]: row["sample_id"] for row in DatasetQuery(labels).to_arrow().to_pylist()}
    assert why(joined, str(label["k4"])) == (f"its columns stand beside {one}, sample {places['k4']['sample_id']}")
    few = query.filter(C.x < 3).join(DatasetQuery(labels), on={"key": "name"})
    assert why(few, str(label["k14"])) == f"{one} has no row with key 'k14'"
    nested = joined.order_by("-label").limit(3)
    assert why(nested, "k17") == f"{labels} has no row with name 'k17'"
    assert why(nested, "k2").startswith(
        "3 rows are kept by C.label.desc(), it is number 13; the last one kept is 'k12'"
    )
    assert why(DatasetQuery(one, shards=["a"]), "k12") in {
        "only the shards a were read, it is in b",
        "fewer.v10 has no shard 'b'",
    }
    assert places["k12"]["shard"] == "b"


def test_a_sample_is_followed_and_not_a_key_that_also_stands_elsewhere() -> None:
    one = save(samples("a", range(10)))
    kept = DatasetQuery(one).filter(C.x > 4).save("kept")
    table = pa.table({"key": [f"k{i}" for i in range(10)], "good": [i % 2 == 0 for i in range(10)]})
    labels = DatasetQuery.from_arrow(table).save("labels")
    joined = DatasetQuery(kept).join(DatasetQuery(labels), on="key").filter("good").save("joined")
    id_of = {row["key"]: row["sample_id"] for row in DatasetQuery(one).to_arrow().to_pylist()}
    for key, dropped_by in (("k3", str(kept)), ("k7", str(joined)), ("k8", None)):
        found = trace(joined, key)
        assert found.sample_id == id_of[key], key
        assert found.dropped_by == dropped_by, key
