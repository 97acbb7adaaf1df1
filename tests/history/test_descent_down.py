"""What became of versions, signals and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory_lib import C, DatasetQuery, signal
from factory_lib.errors import NotFound
from factory_lib.history.descent import descent, uses
from factory_lib.history.drawing import boxes, mermaid
from factory_lib.history.lineage import Lineage, lineage
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version, datasets, resolve
from tests.history_rows import samples, save

pytestmark = pytest.mark.usefixtures("engine")


def links(found: Lineage) -> set[tuple[str, str, str, int]]:
    return {(link.parent, link.child, link.kind, link.shards) for link in found.links}


def test_what_was_made_of_a_version_is_followed_shard_by_shard() -> None:
    first = save(samples("a", range(5)) + samples("b", range(5)), dataset="source")
    DatasetQuery("source").filter(C.x > 0).save("kept")
    second = save(samples("b", range(6)), dataset="source", mode="overwrite_shards")
    DatasetQuery("source", shards=["b"]).filter(C.x > 0).save("kept", mode="overwrite_shards")
    DatasetQuery("kept", shards=["a"]).save("of_a")
    DatasetQuery("kept", shards=["b"]).save("of_b")
    DatasetQuery("kept").order_by("x").save("ordered")
    assert links(descent(first)) == {
        ("source.v1", "source.v2", "carried over", 1),
        ("source.v1", "kept.v1", "made of", 2),
        ("kept.v1", "kept.v2", "carried over", 1),
        ("kept.v2", "of_a.v1", "made of", 1),
        ("kept.v2", "ordered.v1", "made of", 1),
    }
    assert links(descent(second)) == {
        ("source.v2", "kept.v2", "made of", 1),
        ("kept.v2", "of_b.v1", "made of", 1),
        ("kept.v2", "ordered.v1", "made of", 1),
    }
    assert links(descent(resolve(warehouse(), "ordered"))) == set()


def test_what_comes_from_a_version_is_what_has_it_in_its_lineage() -> None:
    for i, name in enumerate("abab"):
        save(samples(name, range(4 + i)), dataset="source", mode="overwrite_shards")
        measured = DatasetQuery("source", shards=[name]).mutate(y=C.x * i).save("measured", mode="overwrite_shards")
        DatasetQuery(measured).filter(C.y > 1).save("kept", mode="overwrite_shards")
        DatasetQuery("kept").join(DatasetQuery("source").select("key", z="x"), on="key").order_by("x").save("joined")
    every = [version for made in datasets(warehouse()).values() for version in made]
    above = {str(version): set(lineage(version).versions) for version in every}
    for version in every:
        below = set(descent(version).versions)
        assert below == {name for name, ancestors in above.items() if str(version) in ancestors}, version


def test_it_is_drawn_with_the_version_at_the_top() -> None:
    first = save(samples("a", range(5)))
    kept = DatasetQuery("d").filter(C.x > 0).save("kept")
    DatasetQuery(kept).filter(C.x > 1).save("fewer")
    top = boxes(descent(first))
    assert (top.names, top.parents[0].names, top.parents[0].parents[0].names) == (
        ("d.v1",),
        ("kept.v1",),
        ("fewer.v1",),
    )
    text = mermaid(descent(first)).splitlines()
    assert [line.strip() for line in text if "-->" in line] == ["n1 --> n2", "n0 --> n1"]
    assert text[1].strip().startswith('n0["d.v1')


@signal
def doubled(x: int) -> int:
    return 2 * x


def shards_by_version(thing: str) -> dict[str, int]:
    found = uses(warehouse(), thing)
    assert all(use.is_there for use in found)
    return {use.version: use.shards for use in found}


def test_who_computed_values_of_a_signal_or_carries_them_over() -> None:
    save(samples("a", range(3)) + samples("b", range(3)))
    measured = DatasetQuery("d").add_signals(doubled).save("measured")
    DatasetQuery(measured).filter(C.x > 0).save("kept")  # made of it: `descent(measured)` has it
    DatasetQuery("d", shards=["b"]).add_signals(doubled).save("measured", mode="overwrite_shards")
    assert shards_by_version("doubled") == {"measured.v1": 2, "measured.v2": 2}
    assert shards_by_version(doubled.fingerprint) == shards_by_version("doubled")
    with pytest.raises(NotFound, match=r"'doubles'.*Did you mean 'doubled'"):
        uses(warehouse(), "doubles")


def test_who_points_into_a_file(tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=20, shards=2)
    made: Version = DatasetQuery.from_source(str(folder.path)).save("laion")
    first = next(iter(made.shards))
    DatasetQuery("laion", shards=[first]).save("one")
    DatasetQuery("laion").filter(C.key != "").save("both")
    files = sorted(path for path in folder.path.iterdir() if path.suffix == ".tar")
    assert shards_by_version(str(files[0])) == {"laion.v1": 1, "one.v1": 1, "both.v1": 1}
    assert shards_by_version(str(files[1])) == {"laion.v1": 1, "both.v1": 1}
    per_file = {(u.version, u.what) for u in uses(warehouse(), str(folder.path)) if u.what.endswith(".tar")}
    assert per_file == {(v, str(f)) for v in ("laion.v1", "both.v1") for f in files} | {("one.v1", str(files[0]))}
    with pytest.raises(NotFound):
        uses(warehouse(), str(folder.path) + "-other/x.tar")
