"""Search by a text, a picture, a sample or a vector: beside brute force, with the encoder that provenance names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from factory_assets.demo.rendered.folder import write_folder
from factory_lib import C, DatasetQuery, Vector, clip, signal
from factory_lib.build.column_signals import signal_behind
from factory_lib.errors import FactoryError, NotFound, QueryError, SignalError

OFFSET = 1


@signal(output=Vector(3, dtype="float32"), batch=True)
class Colours:
    """Mean colour of a picture: an encoder that knows no texts."""

    def __call__(self, image: list[bytes]) -> Any:
        return np.array([[len(one), OFFSET + one[-1], OFFSET + sum(one[:64])] for one in image], np.float32)


@pytest.fixture(scope="module")
def pictures(engine_for_all: None, tmp_path_factory: pytest.TempPathFactory) -> DatasetQuery:
    folder = write_folder(tmp_path_factory.mktemp("searched") / "shards", samples=40, shards=2)
    raw = DatasetQuery.from_source(str(folder.path)).add_signals(clip.encode_image, clip.encode_text)
    return DatasetQuery(raw.save("searched"))


def brute_force(rows: pa.Table, column: str, wanted: Any) -> list[tuple[str, float]]:
    """Key and 1 - cosine of all rows, the nearest first, in double precision."""
    wanted = np.asarray(wanted, np.float64)
    found = []
    for key, vector in zip(rows["key"].to_pylist(), rows[column].to_pylist(), strict=True):
        if vector:
            mine = np.asarray(vector, np.float64)
            found.append((key, 1 - mine @ wanted / np.linalg.norm(mine) / np.linalg.norm(wanted)))
    return sorted(found, key=lambda pair: pair[1])


def check(found: DatasetQuery, rows: pa.Table, column: str, wanted: Any, k: int) -> None:
    """The k smallest distances; vectors as BFloat16 and the target as such keep three digits."""
    table = found.to_arrow()
    exact = brute_force(rows, column, wanted)
    assert table.num_rows == k
    np.testing.assert_allclose(table["distance"].to_numpy(), [d for _, d in exact[:k]], atol=0.01)
    distances = dict(exact)
    assert all(distances[key] <= exact[k - 1][1] + 0.02 for key in table["key"].to_pylist())
    assert table["distance"].to_pylist() == sorted(table["distance"].to_pylist())


def test_texts_and_pictures_are_encoded_by_the_model_that_made_the_column(pictures: DatasetQuery) -> None:
    rows = pictures.to_arrow()
    text = rows["caption"][3].as_py()
    check(pictures.search(text=text, k=5), rows, "clip", clip.encode_text.one(text), 5)
    check(pictures.search("clip_text", text=text, k=5), rows, "clip_text", clip.encode_text.one(text), 5)
    assert pictures.search("clip_text", text=text, k=1).to_arrow()["caption"][0].as_py() == text
    pointer = rows["image"][7].as_py()
    with open(pointer["uri"], "rb") as tar:
        tar.seek(pointer["offset"])
        picture = tar.read(pointer["size"])
    check(pictures.search(image=picture, k=7), rows, "clip", clip.encode_image.one(picture), 7)
    check(pictures.search("clip_text", image=picture, k=3), rows, "clip_text", clip.encode_image.one(picture), 3)


def test_a_sample_is_its_own_nearest(pictures: DatasetQuery) -> None:
    rows = pictures.to_arrow()
    key, number, vector = (rows[name][11].as_py() for name in ("key", "sample_id", "clip"))
    for one in (key, number, str(number)):
        found = pictures.search(sample=one, k=4)
        check(found, rows, "clip", vector, 4)
        assert found.to_arrow()["distance"][0].as_py() == pytest.approx(0, abs=0.01)
        assert key in found.to_arrow()["key"].to_pylist()


def test_it_is_one_flat_select_with_the_vector_as_a_parameter(pictures: DatasetQuery) -> None:
    query = pictures.filter(C.key != "x").search(vector=np.ones(64), k=3).select("key", "distance")
    assert query.sql().count("SELECT") == 1
    assert "dotProduct" in query.sql()
    version = query.save("nearest")
    assert DatasetQuery(version).to_arrow()["key"].to_pylist() == query.to_arrow()["key"].to_pylist()


def test_the_encoder_is_found_through_versions_renamed_columns_and_joins(pictures: DatasetQuery) -> None:
    DatasetQuery(pictures.filter(C.position < 10).rename(seen="clip").save("few")).limit(8).save("fewer")
    fewer = DatasetQuery("fewer")
    for query, column in ((fewer, "seen"), (fewer.join(pictures.select("key", "clip"), on="key"), "clip")):
        assert signal_behind(query.plan, column).fingerprint == clip.encode_image.fingerprint
        assert query.search(column, text="a red star", k=2).count() == 2
    assert fewer.union(fewer).search("seen", text="a red star", k=2).count() == 2
    unsaved = pictures.select("image").add_signals(clip.encode_image)
    assert unsaved.search(text="a red star", k=1).count() == 1


def test_rows_without_a_vector_are_none_of_the_nearest(engine_for_all: None) -> None:
    table = pa.table({"key": ["a", "b", "c"], "emb": pa.array([[1.0, 0.0], [], [0.0, 1.0]], pa.list_(pa.float32()))})
    found = DatasetQuery.from_arrow(table).search("emb", vector=[0, 2], k=3).to_arrow()
    assert found["key"].to_pylist() == ["c", "a"]
    np.testing.assert_allclose(found["distance"].to_numpy(), [0, 1], atol=1e-6)


def test_an_encoder_of_pictures_alone_refuses_texts(pictures: DatasetQuery) -> None:
    seen = DatasetQuery(pictures.add_signals(Colours).save("seen"))
    assert seen.search("colours", image=b"\1" * 99, k=2).count() == 2
    with pytest.raises(SignalError, match="'colours' encodes pictures alone.*image=, sample= or vector="):
        seen.search("colours", text="red")


def test_what_is_asked_wrongly(pictures: DatasetQuery) -> None:
    def refused(message: str, *args: Any, kind: type[FactoryError] = QueryError, **given: Any) -> None:
        with pytest.raises(kind, match=message):
            pictures.search(*args, **given)

    refused("no column 'photo'.*clip, clip_text", "photo", text="x")
    refused("'key' is String", "key", text="x")
    refused("nothing to look for")
    refused("text= and sample=", text="x", sample="y")
    refused("64", vector=[1.0, 2.0])
    refused("not finite", vector=[float("nan")] * 64)
    refused("all zeros", vector=[0.0] * 64)
    refused("no vector of numbers", vector="words")
    refused("shape", vector=[[1.0]])
    refused("no sample.*Keys look like|no sample.*Did you mean", sample="nobody", kind=NotFound)
    with pytest.raises(QueryError, match="limit"):
        pictures.search(text="x", k=-1)
    table = pa.table({"key": ["a", "a"], "emb": [[1.0, 0.0], [0.0, 1.0]]})
    loose = DatasetQuery.from_arrow(table)
    with pytest.raises(QueryError, match="2 samples have that key"):
        loose.search("emb", sample="a")
    with pytest.raises(QueryError, match="not recorded which signal made.*encoder="):
        loose.search("emb", text="red")


def test_another_model_than_the_one_of_the_column_is_told(
    pictures: DatasetQuery, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = DatasetQuery(pictures.add_signals(Colours).save("seen_before"))
    monkeypatch.setitem(globals(), "OFFSET", 2)
    with pytest.raises(SignalError, match="'colours'.* when its fingerprint was .*encoder="):
        seen.search("colours", image=b"x")
    assert seen.search("colours", image=b"x", encoder=Colours, k=2).count() == 2
    assert pictures.search(text="a red star", encoder=clip.Clip("tinyclip", name="other"), k=2).count() == 2


class Lengths:
    """An encoder of texts."""

    def __call__(self, caption: list[str]) -> Any:
        return np.array([[1.0, len(one)] for one in caption], np.float32)


class Negated:
    """Another one, whose vectors mean something else."""

    def __call__(self, caption: list[str]) -> Any:
        return np.array([[-1.0, len(one)] for one in caption], np.float32)


lengths = signal(Lengths(), name="emb", output=Vector(2), batch=8)
negated = signal(Negated(), name="emb", output=Vector(2), batch=8)


def test_shards_of_several_encoders_are_not_compared(engine_for_all: None) -> None:
    for part, encoder in (("s0", lengths), ("s1", negated)):
        table = pa.table({"part": [part] * 3, "key": ["a", "b", "c"], "caption": ["x", "yy", "zzz"]})
        plain = DatasetQuery(DatasetQuery.from_arrow(table, shard="part").save(f"plain_{part}"))
        plain.add_signals(encoder).save("mixed", mode="overwrite_shards")
    mixed = DatasetQuery("mixed")
    fewer = DatasetQuery(mixed.filter(C.position < 2).save("fewer_mixed"))
    both = rf"(?s)(?=.*{lengths.fingerprint[:16]})(?=.*{negated.fingerprint[:16]}).*encoder="
    for query in (mixed, fewer, mixed.join(fewer.select("shard", "position"), on=["shard", "position"])):
        with pytest.raises(SignalError, match=both):
            query.search("emb", text="x")
    assert mixed.search("emb", text="x", encoder=lengths, k=6).count() == 6
    for query in (DatasetQuery("mixed", shards=["s1"]), DatasetQuery("fewer_mixed", shards=["s1"])):
        assert signal_behind(query.plan, "emb").fingerprint == negated.fingerprint
    with pytest.raises(SignalError, match=both):
        DatasetQuery("mixed", shards=["s0"]).union(DatasetQuery("fewer_mixed", shards=["s1"])).search("emb", text="x")
    vectors = pa.table({"key": ["a"], "emb": pa.array([[1.0, 0.0]], pa.list_(pa.float32()))})
    with pytest.raises(QueryError, match=r"not recorded which signal made the column 'emb' of some rows.*encoder="):
        DatasetQuery("mixed", shards=["s0"]).union(DatasetQuery.from_arrow(vectors)).search("emb", text="x")


def test_shards_that_were_given_other_columns_keep_their_encoder(engine_for_all: None) -> None:
    table = pa.table({"part": ["s0", "s1"], "key": ["a", "b"], "caption": ["x", "yy"]})
    plain = DatasetQuery(DatasetQuery.from_arrow(table, shard="part").save("plain_captions"))
    plain.add_signals(lengths).save("widened")
    more = DatasetQuery("plain_captions", shards=["s1"]).mutate(more=C.position)
    for encoder in (lengths, negated):
        added = more.add_signals(encoder).mutate(**{f"by_{encoder.fingerprint[:4]}": C.position})
        added.save("widened", mode="overwrite_shards", schema_evolution=True)
        if encoder is lengths:
            assert signal_behind(DatasetQuery("widened").plan, "emb").fingerprint == lengths.fingerprint
    with pytest.raises(SignalError, match="several signals"):
        signal_behind(DatasetQuery("widened").plan, "emb")


def test_rows_whose_vectors_have_no_direction_are_none_of_the_nearest(engine_for_all: None) -> None:
    vectors = [[3.0, 4.0], [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], [], [0.0, -2.0], [1e30, 1e30]]
    table = pa.table({"key": list("abcdefg"), "emb": pa.array(vectors, pa.list_(pa.float32()))})
    found = DatasetQuery.from_arrow(table).search("emb", vector=[0, 2], k=7).to_arrow()
    assert found["key"].to_pylist() == ["a", "f"]
    np.testing.assert_allclose(found["distance"].to_numpy(), [0.2, 2], atol=1e-6)
