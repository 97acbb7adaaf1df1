"""History: what differs between versions, and why."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, fn, signal
from factory_lib.history import matching
from factory_lib.history.comparing import Difference, compare
from factory_lib.history.origins import origins_of, shards_behind, signal_shards
from factory_lib.history.reasons import reasons
from factory_lib.history.summaries import dataset_summaries, version_summaries
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import Version
from tests.history_rows import Sample, samples, save

pytestmark = pytest.mark.usefixtures("engine")


def told_apart(rows: list[Sample]) -> list[Sample]:
    """Rows of a shard that have the same key are the first, the second, … sample of that key."""
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for row in rows:
        place = (row["part"], row["key"])
        seen[place] += 1
        found.append({**row, "key": (row["key"], seen[place])})
    return found


def expected(before: list[Sample], after: list[Sample]) -> dict[str, dict[str, Any]]:
    """What differs shard by shard, sample by sample, in plain Python."""
    before, after = told_apart(before), told_apart(after)
    found = {}
    for part in {row["part"] for row in [*before, *after]}:
        old, new = ([{n: repr(v) for n, v in r.items()} for r in rows if r["part"] == part] for rows in (before, after))
        n_old, n_new = (Counter(row["key"] for row in rows) for rows in (old, new))
        columns: Counter[str] = Counter()
        changed = 0
        for key in n_old.keys() & n_new.keys():
            if n_old[key] == n_new[key]:
                values = [[r for r in rows if r["key"] == key] for rows in (old, new)]
                differ = {
                    n for n in values[0][0] if Counter(r[n] for r in values[0]) != Counter(r[n] for r in values[1])
                }
                columns.update(differ)
                changed += bool(differ)
        found[part] = {
            "added": (n_new - n_old).total(),
            "removed": (n_old - n_new).total(),
            "changed": changed,
            "columns": dict(columns),
        }
    return {part: counts for part, counts in found.items() if any(counts.values())}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cells", [60, 8_000_000])
def test_differences_are_those_of_a_comparison_in_plain_python(
    seed: int, cells: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_MATCHED_CELLS", cells)  # small: many groups of shards
    draw = random.Random(seed)
    before = [
        {
            "part": draw.choice("abcde"),
            "key": f"k{draw.randrange(60)}",  # some occur more than once
            "x": draw.choice([None, 0, 1, draw.randrange(9)]),
            "text": draw.choice([None, "", "a", "ä"]),
            "v": draw.choice([[], [0.0], [1.5, 2.0]]),
        }
        for _ in range(150)
    ]
    after = [dict(row) for row in before if row["part"] == "a" or draw.random() < 0.9]
    for row in after:
        if row["part"] in "bc" and draw.random() < 0.2:
            name = draw.choice(["x", "text", "v"])
            row[name] = {"x": draw.choice([None, 0, 7]), "text": draw.choice([None, "", "b"]), "v": [0.0, 0.0]}[name]
    after += [{**draw.choice(before), "part": "d", "key": f"new{i}"} for i in range(5)]
    draw.shuffle(after)
    found = compare(save(before), save(after))
    shown = {
        s.shard: {"added": s.added, "removed": s.removed, "changed": s.changed, "columns": dict(s.columns)}
        for s in found.shards
        if s.added or s.removed or s.changed
    }
    assert shown == expected(before, after)


def totals(found: Difference) -> tuple[int, int, int, int]:
    return found.added, found.removed, found.changed, found.moved


def test_columns_that_come_go_and_change_their_type() -> None:
    one = save(samples("a", range(10)))
    two = DatasetQuery(one).mutate(y=C.x * 2).drop("text").mutate(x=C.x.cast("String")).save("d")
    found = compare(one, two)
    assert dict(found.columns_added) == {"y": "Nullable(Int64)"}
    assert dict(found.columns_dropped) == {"text": "Nullable(String)"}
    assert found.columns_retyped["x"][0] == "Nullable(Int64)"
    assert found.columns_retyped["x"][1].endswith("String") or "String" in found.columns_retyped["x"][1]
    assert totals(found) == (0, 0, 0, 0)
    assert not found.is_empty
    assert compare(one, one).is_empty
    back = compare(two, one)
    assert back.columns_added.keys() == {"text"}


def test_columns_may_have_the_names_that_figures_have() -> None:
    def table(first: int) -> pa.Table:
        names = ("n", "h", "h0", "f0", "s0", "row", "side", "balance", "added")
        return pa.table({"key": ["a", "b"], **{name: [first, 2] for name in names}})

    one, two = (DatasetQuery.from_arrow(table(first)).save("d") for first in (1, 3))
    assert one.fingerprints() != two.fingerprints()
    found = compare(one, two)
    assert found.changed == 1
    assert found.columns == dict.fromkeys(("n", "h", "h0", "f0", "s0", "row", "side", "balance", "added"), 1)


def test_order_alone_is_a_move_and_other_shards_are_no_loss() -> None:
    rows = samples("a", range(10)) + samples("b", range(10, 20))
    one = save(rows)
    turned = save(list(reversed(rows)))
    assert totals(compare(one, turned)) == (0, 0, 0, 20)
    best = DatasetQuery(one).order_by("-x").limit(15).save("best")  # one shard, "all"
    found = compare(one, best)
    assert (found.resharded.samples, found.added, found.removed, found.changed) == (15, 0, 5, 0)
    changed = DatasetQuery(one).mutate(x=(C.x % 2).cast("Nullable(Int64)")).order_by("text").save("best")
    found = compare(one, changed)
    assert (found.resharded.samples, found.resharded.changed, found.changed) == (20, 18, 18)  # 0 and 1 stay


def test_shards_that_were_carried_over_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    one = save(samples("a", range(10)) + samples("b", range(10)))
    two = save(samples("b", range(9)), mode="overwrite_shards")
    asked: list[list[str]] = []
    original = matching.Matching.of
    monkeypatch.setattr(
        matching.Matching, "of", lambda self, shards: asked.append(list(shards)) or original(self, shards)
    )
    found = compare(one, two)
    assert asked == [["b"]]
    assert [s.shard for s in found.shards] == ["b"]
    assert found.shards_alike == 1
    # shards that were made anew with the same content are not read either, once their fingerprints are known
    three = save(samples("a", range(10)), mode="overwrite_shards")
    assert three.fingerprints(["a"]) == one.fingerprints(["a"])
    asked.clear()
    assert compare(one, three).removed == 1
    assert asked == [["b"]]


def test_reasons_name_what_differs(tmp_path: Path) -> None:
    one = save(samples("a", range(10)) + samples("b", range(10)), dataset="source")
    first = DatasetQuery(one).filter(C.x > 3).save("kept")
    second = DatasetQuery(one).filter(C.x > 4).save("kept")
    (reason,) = [r for r in reasons(first, second) if r.kind == "query"]
    assert ("C.x > 3" in reason.before, "C.x > 4" in reason.after, reason.shards) == (True, True, 2)
    vectors = [np.array([*range(9), last], np.float32) for last in (9, 10)]
    wide = save(samples("a", range(3), v=[1.0] * 10), dataset="wide")
    long = [DatasetQuery(wide).mutate(z=fn.dotProduct(C.v, one)).save("long") for one in vectors]
    (reason,) = [r for r in reasons(*long) if r.kind == "query"]
    assert (reason.text, reason.before, reason.after) == (
        "column z fn.dotProduct(C.v, <vector of 10>) differs in 1 of the 10 values of a vector, first in place 10",
        "9.0",
        "10.0",
    )
    later = save(samples("b", range(12)), dataset="source", mode="overwrite_shards")
    third = DatasetQuery(later).filter(C.x > 4).save("kept")
    kinds = {r.kind: r for r in reasons(second, third)}
    assert "query" not in kinds  # the same query, over another version
    assert (kinds["parents"].before, kinds["parents"].after) == ("source.v1", "source.v2")
    added = save(samples("c", range(3)), dataset="source", mode="overwrite_shards")
    (made,) = reasons(later, added)
    assert (made.kind, made.shards, made.text) == ("made", 1, "only in the second, made by source.v3")
    end = DatasetQuery(third).mutate(z=C.x + 1).order_by("z").save("end")
    assert [r.text for r in reasons(later, end)] == ["kept.v3 was made by", "end.v1 was made by"]


def test_reasons_name_signals_and_files(tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=40, shards=2, seed=1)

    @signal
    def length(caption: str) -> int:
        return len(caption)

    @signal(name="length")
    def other_length(caption: str) -> int:
        return len(caption) + 1

    one = DatasetQuery.from_source(str(folder.path)).save("laion")
    first = DatasetQuery(one).add_signals(length).save("measured")
    second = DatasetQuery(one).add_signals(other_length).save("measured")
    changed = next(r for r in reasons(first, second) if r.kind == "signal")
    assert changed.before == length.fingerprint
    assert changed.after == other_length.fingerprint
    found = compare(first, second)
    assert found.columns == {"length": found.changed}
    (shown,) = signal_shards(origins_of(warehouse(), second))
    assert (shown["name"], shown["fingerprint"], shown["shards"]) == ("length", other_length.fingerprint, 2)
    tars = sorted(Path(folder.path).rglob("*.tar"))
    write_folder(tmp_path / "again", samples=40, shards=2, seed=2)
    tars[0].write_bytes(sorted((tmp_path / "again").rglob("*.tar"))[0].read_bytes())
    two = DatasetQuery.from_source(str(folder.path)).save("laion")
    files = [r for r in reasons(one, two) if r.kind == "files"]
    assert [(r.text.startswith("1 source files changed"), tars[0].name in r.text) for r in files] == [(True, True)]


def test_reasons_follow_what_the_versions_were_made_of(tmp_path: Path) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=40, shards=2, seed=1)

    @signal
    def length(caption: str) -> int:
        return len(caption)

    @signal(name="length")
    def other_length(caption: str) -> int:
        return len(caption) + 1

    def chain(measure: Any) -> Version:
        DatasetQuery.from_source(str(folder.path)).save("laion")
        DatasetQuery("laion").add_signals(measure).save("measured")
        DatasetQuery("measured").filter(C.length > 0).save("kept")
        return DatasetQuery("kept").order_by("-length").limit(12).save("best")

    first, second = chain(length), chain(other_length)
    found = [(r.kind, r.version) for r in reasons(first, second)]
    assert found == [("parents", ""), ("signal", "measured.v2")]
    text = next(r.text for r in reasons(first, second) if r.kind == "signal")
    assert "length was computed by other code" in text
    tar = sorted(Path(folder.path).glob("*.tar"))[0]
    write_folder(tmp_path / "again", samples=40, shards=2, seed=2)
    tar.write_bytes((tmp_path / "again" / tar.name).read_bytes())
    third = chain(other_length)
    kinds = {r.kind: r for r in reasons(second, third)}
    assert tar.name in kinds["files"].text
    assert kinds["files"].version in ("kept.v3", "")


def test_shards_that_other_code_made_are_behind() -> None:
    for name in "abc":
        save(samples(name, range(5)), dataset="source", mode="overwrite_shards")
        kept = DatasetQuery("source", shards=[name]).filter(C.x > 0).save("kept", mode="overwrite_shards")
    assert shards_behind(kept) == []  # the same query, over other versions and shards
    changed = DatasetQuery("source", shards=["b"]).filter(C.x > 1).save("kept", mode="overwrite_shards")
    assert shards_behind(changed) == ["a", "c"]
    same_filter = DatasetQuery("source", shards=["a", "c"]).filter(C.x > 1).save("kept", mode="overwrite_shards")
    assert shards_behind(same_filter) == []


def test_summaries() -> None:
    save(samples("a", range(5)))
    save(samples("b", range(4)), mode="overwrite_shards")
    DatasetQuery("d").filter(C.x > 2).save("kept")
    warehouse().execute("CREATE TABLE d.notes (x Int8) ENGINE = Memory")  # not a version
    one, two = version_summaries(warehouse(), "d")
    assert (one.name, one.rows, one.shards, one.parents) == ("d.v1", 5, 1, [])
    assert (two.name, two.rows, two.shards) == ("d.v2", 9, 2)
    (kept,) = version_summaries(warehouse(), "kept")
    assert (kept.storage, kept.parents, kept.rows) == ("mask", ["d.v2"], 3)
    found = {d.dataset: d for d in dataset_summaries(warehouse())}
    assert (found["d"].latest, found["d"].versions, found["d"].rows) == ("d.v2", 2, 9)
    assert found["d"].bytes_added == (one.bytes_added or 0) + (two.bytes_added or 0) > 0
    size = warehouse().scalar(
        "SELECT sum(bytes_on_disk) FROM system.parts WHERE active AND database = 'kept' AND table = 'v1'"
    )
    assert found["kept"].bytes == size
