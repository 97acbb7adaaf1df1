"""Several sources declared in a file: names of shards, one set of columns, and what cannot be."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash

from factory_lib import DatasetQuery, open_source
from factory_lib.errors import FactoryError, SourceError, StoreError
from factory_lib.sources import UnitedSource
from factory_lib.sources.declared import declared, read_sources
from factory_lib.sources.several import open_several
from factory_lib.sources.shards import ShardReport
from factory_lib.warehouse.client import warehouse
from tests.samples import read_all, write_tar


def photos(folder: Path, *names: str, **fields: Any) -> Path:
    """A folder of webdataset tars with two samples each."""
    folder.mkdir(exist_ok=True)
    for name in names:
        samples = [(f"{n}.{e}", data) for n in ("a", "b") for e, data in (("jpg", b"x"), ("txt", n), ("json", fields))]
        write_tar(folder / f"{name}.tar", samples)
    return folder


def file_of(folder: Path, text: str) -> str:
    path = folder / "sources.toml"
    path.write_text(text)
    return str(path)


@pytest.fixture
def three(tmp_path: Path) -> str:
    """Tars, a table, and tars with other members and a column that is called as the one that is added."""
    photos(tmp_path / "photos", "0", "1", score=1)
    pq.write_table(pa.table({"key": ["k", "l"], "caption": ["x", None], "wide": [1.5, 2.5]}), tmp_path / "t.parquet")
    (tmp_path / "masks").mkdir()
    write_tar(tmp_path / "masks" / "0.tar", [("a.png", b"12"), ("a.mask.png", b"3"), ("a.json", {"source": "flickr"})])
    return file_of(
        tmp_path,
        '[photos]\nuri = "photos"\nlicense = "CC0-1.0"\n[table]\nuri = "t.parquet"\n[masks]\nuri = "./masks"\n',
    )


def test_shards_bear_the_name_of_their_source_and_columns_are_those_of_all(three: str) -> None:
    source = open_source(three)
    assert isinstance(source, UnitedSource)
    assert [shard.name for shard in source.shards()] == ["masks:0", "photos:0", "photos:1", "table:t"]
    assert source.schema.names[:3] == ["key", "source", "image"]
    table, _ = read_all(source)
    rows = {(row["source"], row["key"]): row for row in table.to_pylist()}
    absent = {"uri": "", "offset": 0, "size": 0}
    assert {key: row["image"] == absent for key, row in rows.items()} == {
        ("photos", "a"): False, ("photos", "b"): False, ("table", "k"): True, ("table", "l"): True,
        ("masks", "a"): False,
    }  # fmt: skip
    of_photos, of_table, of_masks = rows["photos", "a"], rows["table", "k"], rows["masks", "a"]
    assert (of_photos["score"], of_table["score"], of_photos["wide"], of_table["wide"]) == (1, None, None, 1.5)
    assert (of_masks["source_"], of_photos["source_"]) == ("flickr", None)
    assert of_masks["mask_png"]["size"] == 1
    assert [row["license"] for row in (of_photos, of_table, of_masks)] == ["CC0-1.0", None, None]


def test_a_column_of_another_type_names_both_sources_and_what_mends_it(tmp_path: Path) -> None:
    photos(tmp_path / "photos", "0", score=1)
    photos(tmp_path / "web", "0", score="high")
    text = '[photos]\nuri = "photos"\n[web]\nuri = "web"\n'
    with pytest.raises(
        SourceError,
        match=r"'score' is int64 in 'photos' and string in 'web'.*\[web\] say rename = { web_score = \"score\" } or drop",
    ):
        DatasetQuery.from_source(file_of(tmp_path, text))
    mended = open_source(file_of(tmp_path, text + 'drop_columns = ["score"]\n'))
    table, _ = read_all(mended)
    assert sorted(table["score"].to_pylist(), key=str) == [1, 1, None, None]
    table, _ = read_all(open_source(file_of(tmp_path, text + 'rename = { web_score = "score" }\n')))
    assert sorted(table["web_score"].to_pylist(), key=str) == [None, None, "high", "high"]


def test_a_narrower_type_becomes_that_of_the_first_source_and_never_the_other_way_round(tmp_path: Path) -> None:
    for name, kind in (("wide", pa.int64()), ("narrow", pa.int8())):
        pq.write_table(pa.table({"key": ["k"], "n": pa.array([7], kind)}), tmp_path / f"{name}.parquet")
    uris = {name: str(tmp_path / f"{name}.parquet") for name in ("wide", "narrow")}
    table, _ = read_all(open_source("both", sources=uris))
    assert (table.schema.field("n").type, table["n"].to_pylist()) == (pa.int64(), [7, 7])
    with pytest.raises(SourceError, match="int8 in 'narrow' and int64 in 'wide'"):
        DatasetQuery.from_source(open_source("both", sources=dict(reversed(uris.items()))))


def test_vectors_of_different_lengths_do_not_become_one_column(tmp_path: Path) -> None:
    for name, length in (("one", 4), ("other", 6)):
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.ones(length, np.float32)), length)
        pq.write_table(pa.table({"key": ["k"], "vector": vectors}), tmp_path / f"{name}.parquet")
    uris = {name: str(tmp_path / f"{name}.parquet") for name in ("one", "other")}
    with pytest.raises(SourceError, match="'vector' is fixed_size_list"):
        DatasetQuery.from_source(open_source("both", sources=uris))


@pytest.mark.usefixtures("engine")
def test_ids_are_hashes_of_place_and_key_whatever_other_sources_there_are(three: str, tmp_path: Path) -> None:
    version = DatasetQuery.from_source(three).save("several")
    rows = DatasetQuery(version).to_arrow().to_pylist()
    assert len(rows) == len({row["sample_id"] for row in rows}) == 7

    def expected(row: dict[str, Any]) -> int:
        place = row["image"]["uri"] or row["shard"]
        return xxhash.xxh64(f"{place}\n{row['key']}".encode()).intdigest()

    assert {row["sample_id"] for row in rows} == {expected(row) for row in rows}
    alone = DatasetQuery.from_source(str(tmp_path / "photos")).save("alone")
    ids = {row["sample_id"] for row in rows if row["source"] == "photos"}
    assert set(DatasetQuery(alone).to_arrow()["sample_id"].to_pylist()) == ids
    record = version.provenance
    assert record is not None
    told = {(one["name"], one["format"], one["samples"]) for one in record.sources}
    assert told == {("photos", "webdataset", 4), ("table", "tables", 2), ("masks", "webdataset", 1)}


@pytest.mark.usefixtures("engine")
def test_a_version_of_several_sources_is_made_again_also_when_one_more_was_declared(three: str, tmp_path: Path) -> None:
    from factory_lib import reproduce

    version = DatasetQuery.from_source(three).save("several")
    photos(tmp_path / "late", "0", other=True)
    with open(three, "a") as file:
        file.write('[late]\nuri = "late"\n')
    assert {one.verdict for one in reproduce(str(version)).shards} == {"equal"}


def test_shards_change_where_something_else_is_said_of_their_source_and_only_they(three: str) -> None:
    def prints(text: str) -> dict[str, str]:
        Path(three).write_text(text)
        return {shard.name: shard.fingerprint for shard in open_source(three).shards()}

    text = Path(three).read_text()
    before = prints(text)
    assert (
        prints(text.replace("CC0-1.0", "CC-BY-4.0") + "weight = 3\n")
        | {
            "photos:0": before["photos:0"],
            "photos:1": before["photos:1"],
        }
        == before
    )
    assert prints(text.replace("CC0-1.0", "CC-BY-4.0"))["photos:0"] != before["photos:0"]
    renamed = prints(text.replace("[photos]", '[pictures]\nshards = "photos"'))
    assert renamed.keys() == before.keys()
    assert {name for name in before if renamed[name] != before[name]} == {"photos:0", "photos:1"}


def test_the_shards_of_the_first_source_may_keep_their_names(three: str, tmp_path: Path) -> None:
    alone = [shard.name for shard in open_source(str(tmp_path / "photos")).shards()]
    Path(three).write_text(Path(three).read_text().replace("[photos]\n", '[photos]\nshards = ""\n'))
    source = open_source(three)
    assert isinstance(source, UnitedSource)
    assert [shard.name for shard in source.shards()] == [*alone, "masks:0", "table:t"]
    listing = source.listing()
    assert [listing.source_of(name) for name in ("0", "masks:7", "table:t")] == ["photos", "masks", "table"]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "declares no source"),
        ({"Photos": "/a"}, r"\[Photos\] cannot name a source.*Try 'photos'"),
        ({"a": {"url": "/a"}}, r"\[a\] says 'url'.*Did you mean 'uri'"),
        ({"a": {"uri": "/a", "licence": "MIT"}}, "Did you mean 'license'"),
        ({"a": {"format": "folder"}}, "has no uri"),
        ({"a": {"uri": "/a", "columns": "b,c"}}, "columns = 'b,c'.*a list of texts"),
        ({"a": {"uri": "/a", "tars_per_shard": 0}}, "a whole number from 1 on"),
        ({"a": {"uri": "/a", "weight": float("nan")}}, "a number above 0"),
        ({"a": {"uri": "/a", "weight": True}}, "a number above 0"),
        ({"a": {"uri": "/a", "shards": "b:c"}}, "shards = 'b:c'"),
        ({"a": "/x", "b": "/x/"}, "'a' and 'b' have the same uri, '/x'"),
        ({"a": "/x", "b": {"uri": "/y", "shards": "a"}}, "the same shards, 'a'"),
        ({"a": "/x/more.toml"}, "itself a file that declares sources"),
        ({"a": 3}, r"\[a\] is 3"),
    ],
)
def test_what_cannot_be_declared_is_said(said: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=f"(?s){message}"):
        declared(said, "/p/sources.toml")


def test_a_file_that_is_no_toml_and_options_for_all_together(three: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="caption='blip.txt' is said of all together"):
        open_source(three, caption="blip.txt")
    with pytest.raises(SourceError, match="is no TOML"):
        read_sources(file_of(tmp_path, "[photos\n"))
    with pytest.raises(StoreError, match="does not exist"):
        open_source(str(tmp_path / "nothing.toml"))


def test_a_source_within_the_folder_of_another_is_an_error(tmp_path: Path) -> None:
    photos(tmp_path / "photos", "0")
    photos(tmp_path / "photos" / "web", "1", "2")
    with pytest.raises(SourceError, match=r"'photos' and 'web' of .* both have .*1\.tar and 1 more files"):
        DatasetQuery.from_source(file_of(tmp_path, '[photos]\nuri = "photos"\n[web]\nuri = "photos/web"\n'))
    apart = open_source(file_of(tmp_path, '[photos]\nuri = "photos/*.tar"\n[web]\nuri = "photos/web"\n'))
    assert [shard.name for shard in apart.shards()] == ["photos:0", "web:1", "web:2"]


def test_a_source_that_is_away_holds_up_no_other(three: str, tmp_path: Path) -> None:
    (tmp_path / "photos").rename(tmp_path / "elsewhere")
    source = open_source(three)
    assert isinstance(source, UnitedSource)
    listing = source.listing()
    assert [shard.name for shard in listing.shards] == ["masks:0", "table:t"]
    assert list(listing.away) == ["photos"]
    assert "does not exist" in listing.away["photos"]
    assert [name for name in ("photos:0", "masks:0", "other:0") if listing.is_away(name)] == ["photos:0"]
    with pytest.raises(FactoryError, match="source 'photos' cannot be read"):
        DatasetQuery.from_source(source)
    asked = source.asking_for(["photos:0", "masks:0", "other:0"])
    shards = {shard.name: shard for shard in asked.shards()}
    assert shards.keys() == {"photos:0", "masks:0", "table:t"}
    with pytest.raises(FactoryError, match="source 'photos' cannot be read"):
        list(asked.read(shards["photos:0"], ShardReport("photos:0")))
    for name in ("masks", "t.parquet"):
        (tmp_path / name).rename(tmp_path / f"_{name}")
    with pytest.raises(StoreError, match="photos does not exist"):
        open_source(three)


def test_a_source_that_is_back_when_its_shard_is_read(three: str, tmp_path: Path) -> None:
    photos(tmp_path / "more", "0", score=1)
    with open(three, "a") as file:
        file.write('[more]\nuri = "more"\n')
    (tmp_path / "more").rename(tmp_path / "elsewhere")
    source = open_source(three).asking_for(["more:0"])
    (tmp_path / "elsewhere").rename(tmp_path / "more")
    shard = next(shard for shard in source.shards() if shard.name == "more:0")
    batches = list(source.read(shard, ShardReport("more:0")))
    assert [key for batch in batches for key in batch["key"].to_pylist()] == ["a", "b"]


def test_a_source_that_does_not_answer_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    photos(tmp_path / "photos", "0")
    found = declared({"photos": str(tmp_path / "photos"), "slow": "/slow"}, "both")

    def opener(one: Any) -> Any:
        if one.name == "slow":
            time.sleep(5)
        return open_source(one.uri)

    source = open_several("both", found, opener, seconds=0.5)
    assert dict(source.listing().away) == {"slow": "It has not answered for 0.5 s."}
    assert [shard.name for shard in source.shards()] == ["photos:0"]


def test_options_that_are_recorded_are_plain_data(three: str) -> None:
    source = open_source(three)
    again = open_source(three, **json.loads(json.dumps(dict(source.options))))
    assert (again.shards(), again.schema) == (source.shards(), source.schema)


@pytest.mark.usefixtures("engine")
def test_what_stands_in_no_batch_of_a_source_is_null_or_empty_in_the_table(three: str) -> None:
    version = DatasetQuery.from_source(three).save("several")
    rows = warehouse().rows(
        f"SELECT source, countIf(isNull(score)) AS none, countIf(isNull(caption)) AS silent FROM {version.table}"
        " GROUP BY source ORDER BY source"
    )
    assert [tuple(row.values()) for row in rows] == [("masks", 1, 1), ("photos", 0, 0), ("table", 2, 1)]


def numbers(folder: Path, name: str, kind: pa.DataType, *values: Any) -> str:
    """A folder of a table of numbers."""
    (folder / name).mkdir(exist_ok=True)
    rows = {"key": [f"{name}{at}" for at in range(len(values))], "n": pa.array(values, kind)}
    pq.write_table(pa.table(rows), folder / name / "0.parquet")
    return str(folder / name)


@pytest.mark.parametrize(
    ("wide", "narrow", "value"),
    [(pa.float64(), pa.int64(), 2**60 + 1), (pa.float64(), pa.uint64(), 7), (pa.int64(), pa.uint64(), 2**63 + 1)],
)
def test_whole_numbers_that_would_be_rounded_are_an_error_of_both_sources(
    tmp_path: Path, wide: pa.DataType, narrow: pa.DataType, value: int
) -> None:
    uris = {"a": numbers(tmp_path, "a", wide, 1), "b": numbers(tmp_path, "b", narrow, value)}
    with pytest.raises(SourceError, match=f"'n' is {wide} in 'a' and {narrow} in 'b'"):
        DatasetQuery.from_source(open_source("both", sources=uris))


def test_whole_numbers_that_a_float_holds_become_floats(tmp_path: Path) -> None:
    uris = {"a": numbers(tmp_path, "a", pa.float64(), 0.5), "b": numbers(tmp_path, "b", pa.int32(), 2**31 - 1)}
    table, _ = read_all(open_source("both", sources=uris))
    assert table["n"].to_pylist() == [0.5, 2.0**31 - 1]


@pytest.mark.parametrize(("first", "second"), [(pa.float32(), pa.float64()), (pa.float64(), pa.float32())])
def test_a_source_that_is_back_with_wider_numbers_is_not_squeezed_into_those_that_are_there(
    tmp_path: Path, first: pa.DataType, second: pa.DataType
) -> None:
    """Of doubles and floats the floats alone are there at first, whichever stands first in the file."""
    uris = {"a": numbers(tmp_path, "a", first, 0.1), "b": numbers(tmp_path, "b", second, 0.1)}
    wide = "a" if first == pa.float64() else "b"
    (tmp_path / wide).rename(tmp_path / "elsewhere")
    source = open_source("both", sources=uris).asking_for([f"{wide}:0"])
    (tmp_path / "elsewhere").rename(tmp_path / wide)
    shard = next(shard for shard in source.shards() if shard.name == f"{wide}:0")
    with pytest.raises(SourceError, match=f"source '{wide}' cannot be read.*'n' is float in.*The next run looks anew"):
        list(source.read(shard, ShardReport(shard.name)))


def test_a_source_that_is_back_with_columns_that_nobody_knew_is_taken_by_the_next_run(tmp_path: Path) -> None:
    photos(tmp_path / "photos", "0")
    uris = {"photos": str(tmp_path / "photos"), "n": numbers(tmp_path, "n", pa.int64(), 1)}
    (tmp_path / "n").rename(tmp_path / "elsewhere")
    source = open_source("both", sources=uris).asking_for(["n:0"])
    (tmp_path / "elsewhere").rename(tmp_path / "n")
    shard = next(shard for shard in source.shards() if shard.name == "n:0")
    with pytest.raises(SourceError, match="It is back.*it has the column 'n', too. The next run looks anew"):
        list(source.read(shard, ShardReport("n:0")))
    table, _ = read_all(open_source("both", sources=uris))
    assert table["n"].to_pylist().count(1) == 1


def test_a_source_that_is_away_is_looked_for_once_not_by_each_of_its_shards(tmp_path: Path) -> None:
    photos(tmp_path / "photos", "0")
    photos(tmp_path / "more", *map(str, range(5)))
    there, opened = {"photos"}, []

    def opener(one: Any) -> Any:
        opened.append(one.name)
        if one.name not in there:
            raise StoreError(f"{one.name} does not answer.")
        return open_source(one.uri)

    def read(source: UnitedSource, name: str) -> list[Any]:
        shard = next(shard for shard in source.shards() if shard.name == name)
        return list(source.read(shard, ShardReport(name)))

    names = [f"more:{n}" for n in range(5)]
    found = declared({name: str(tmp_path / name) for name in ("photos", "more")}, "both")
    source = open_several("both", found, opener).asking_for(names)
    for name in names:
        with pytest.raises(SourceError, match="more does not answer"):
            read(source, name)
    assert opened.count("more") == 2
    there.add("more")
    source, opened[:] = open_several("both", found[:1], opener), []
    source = UnitedSource("both", source.members, {"more": (found[1], StoreError("away"))}, opener, None, tuple(names))
    assert [sum(len(batch) for batch in read(source, name)) for name in names] == [2] * 5
    assert opened == ["more"]


def test_a_source_that_hangs_when_its_shard_is_read_is_waited_for_no_longer_than_said(tmp_path: Path) -> None:
    photos(tmp_path / "photos", "0")
    found, never = declared({"photos": str(tmp_path / "photos"), "slow": "/slow"}, "both"), threading.Event()

    def opener(one: Any) -> Any:
        if one.name == "slow":
            never.wait(60)
        return open_source(one.uri)

    source = open_several("both", found, opener, seconds=0.1).asking_for(["slow:0"])
    with pytest.raises(StoreError, match=r"'slow' cannot be read: It has not answered for 0\.1 s"):
        list(source.read(source.shards()[-1], ShardReport("slow:0")))
    never.set()


@pytest.mark.usefixtures("engine")
def test_what_was_said_of_all_sources_together_is_recorded_for_making_them_again(tmp_path: Path) -> None:
    from factory_lib import reproduce

    for name in ("a", "b"):
        photos(tmp_path / name, "0", "1")
    path = file_of(tmp_path, '[a]\nuri = "a"\n[b]\nuri = "b"\ntars_per_shard = 1\n')
    source = open_source(path, tars_per_shard=2, schema_tars=1)
    version = DatasetQuery.from_source(source).save("several")
    assert list(version.shards) == ["a:0.x2", "b:0", "b:1"]
    assert {one.shard: one.verdict for one in reproduce(str(version)).shards} == dict.fromkeys(version.shards, "equal")
