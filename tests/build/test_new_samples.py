"""New samples, from tars to tars: what is written, what is taken over, what is refused, and what survives a kill."""

from __future__ import annotations

import json
import os
import signal as signals_of_the_system
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from factory_lib import C, DatasetQuery, fn, reproduce, sql_text
from factory_lib.augmentation import BlurFaces, CenterCrop, HorizontalFlip, Recaption, Resize, StripExif
from factory_lib.build.made_tars import MadeTars
from factory_lib.curation.new_samples import make_samples, superset
from factory_lib.errors import ColumnNotFound, QueryError
from factory_lib.orchestration.checks.datasets import check_made
from factory_lib.signals.hashes import phash
from factory_lib.signals.text import caption_stats
from factory_lib.sources import open_source
from factory_lib.storage.store import store
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.losses import read_losses
from factory_lib.warehouse.versions import Version
from tests.command_line import data, run
from tests.samples import rows, write_tar

pytestmark = pytest.mark.usefixtures("engine")


def png(seed: int) -> bytes:
    into = BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (20, 30, 3), np.uint8)).save(into, "PNG")
    return into.getvalue()


def shard(folder: Path, name: str, seeds: Sequence[int], **fields: Any) -> Path:
    members: list[Any] = []
    for seed in seeds:
        key = f"{name}{seed:03d}"
        about = {"label": f"label {seed}", "width": 30, "height": 20, "similarity": 0.3, **fields}
        members += [(f"{key}.png", png(seed)), (f"{key}.txt", f"caption {seed}"), (f"{key}.json", about)]
    return write_tar(folder / f"{name}.tar", members)


@pytest.fixture
def pool(tmp_path: Path) -> Version:
    """Two shards of four samples."""
    for name in ("a", "b"):
        shard(tmp_path / "source", name, range(4))
    return ingest(tmp_path)


def ingest(tmp_path: Path) -> Version:
    return DatasetQuery.from_source(str(tmp_path / "source")).refresh("pool")


def mirrored(tmp_path: Path, **more: Any) -> DatasetQuery:
    return make_samples(DatasetQuery("pool"), HorizontalFlip(), into=str(tmp_path / "made"), **more)


def counts(version: Version) -> tuple[int, int]:
    record = version.provenance
    assert record is not None
    return record.computed, record.reused


def members(version: Version) -> dict[str, bytes]:
    """The members of all tars that a version points into, as the `tarfile` module reads them."""
    found: dict[str, bytes] = {}
    for uri in sorted({row["uri"] for row in DatasetQuery(version).to_arrow()["image"].to_pylist()}):
        with tarfile.open(uri) as archive:
            for one in archive:
                content = archive.extractfile(one)
                assert content is not None
                assert (one.mtime, one.uid, one.gid) == (0, 0, 0)
                found[one.name] = content.read()
    return found


def test_new_samples_are_samples(pool: Version, tmp_path: Path) -> None:
    version = mirrored(tmp_path).save("mirrored")
    parents = {row["key"]: row for row in DatasetQuery(pool).to_arrow().to_pylist()}
    table = DatasetQuery(version).to_arrow().to_pylist()
    assert [row["key"] for row in table] == [f"{key}-horizontal_flip" for key in sorted(parents)]
    found = members(version)
    for row in table:
        parent = parents[row["key"].removesuffix("-horizontal_flip")]
        assert (row["shard"], row["position"]) == (parent["shard"], parent["position"])
        assert (row["parent_sample_id"], row["operation"]) == (parent["sample_id"], "HorizontalFlip()")
        assert (row["caption"], row["label"], row["width"], row["height"]) == (
            parent["caption"],
            parent["label"],
            30,
            20,
        )
        data = Path(row["image"]["uri"]).read_bytes()[row["image"]["offset"] :][: row["image"]["size"]]
        expected = np.asarray(Image.open(BytesIO(png(int(parent["key"][1:])))))[:, ::-1]
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(data))), expected)
        assert found[f"{row['key']}.png"] == data
        assert found[f"{row['key']}.txt"].decode() == row["caption"]
        about = json.loads(found[f"{row['key']}.json"])
        assert about == {
            "operation": "HorizontalFlip()", "parent_key": parent["key"], "parent_sample_id": str(parent["sample_id"])
        }  # fmt: skip
    assert len({row["sample_id"] for row in table} | {row["sample_id"] for row in parents.values()}) == 16
    assert "similarity" not in DatasetQuery(version).columns
    assert counts(version) == (8, 0)
    again = DatasetQuery(version).add_signals(phash).to_arrow()
    assert again["phash_error"].null_count == 8


def test_the_tars_are_a_source_of_their_own(pool: Version, tmp_path: Path) -> None:
    mirrored(tmp_path).save("mirrored")
    source = open_source(str(tmp_path / "made"), format="webdataset")
    found = rows(source, "key", "caption", "operation", "parent_key")
    assert len(found) == 8
    assert {(row["key"], row["caption"]) for row in found} >= {("a002-horizontal_flip", "caption 2")}
    assert {row["operation"] for row in found} == {"HorizontalFlip()"}


def test_the_same_parents_make_the_same_tars(pool: Version, tmp_path: Path) -> None:
    tars = []
    for place in ("one", "two"):
        make_samples(DatasetQuery("pool"), HorizontalFlip(), into=str(tmp_path / place)).save(place)
        tars.append([tar.read_bytes() for tar in sorted((tmp_path / place).rglob("*.tar"))])
    assert len(tars[0]) == 2
    assert tars[0] == tars[1]


def test_what_was_made_is_taken_over(pool: Version, tmp_path: Path) -> None:
    first = mirrored(tmp_path).refresh("mirrored")
    assert mirrored(tmp_path).refresh("mirrored").uuid == first.uuid
    second = mirrored(tmp_path).save("other")
    assert counts(second) == (0, 8)
    assert second.fingerprints() == first.fingerprints()


def test_of_a_shard_that_changed_only_changed_parents_are_made_again(pool: Version, tmp_path: Path) -> None:
    first = mirrored(tmp_path).refresh("mirrored")
    before = {row["key"]: row for row in DatasetQuery(first).to_arrow().to_pylist()}
    shard(tmp_path / "source", "b", (3, 0, 5, 1))  # 2 is gone, 5 is new, the others stand elsewhere
    ingest(tmp_path)
    version = mirrored(tmp_path).refresh("mirrored")
    record = version.provenance
    assert record is not None
    assert (record.computed, record.reused, version.rows) == (1, 3, 8)
    keys = [row["key"] for row in DatasetQuery(version, shards=["b"]).to_arrow().to_pylist()]
    assert keys == [f"b{seed:03d}-horizontal_flip" for seed in (3, 0, 5, 1)]
    after = {row["key"]: row for row in DatasetQuery(version).to_arrow().to_pylist()}
    assert after["a000-horizontal_flip"] == before["a000-horizontal_flip"]
    assert after["b000-horizontal_flip"]["sample_id"] == before["b000-horizontal_flip"]["sample_id"]
    found = members(version)
    for seed in (3, 0, 5, 1):
        expected = np.asarray(Image.open(BytesIO(png(seed))))[:, ::-1]
        pixels = np.asarray(Image.open(BytesIO(found[f"b{seed:03d}-horizontal_flip.png"])))
        np.testing.assert_array_equal(pixels, expected)
    # Made at once, without anything to be copied from, the tar is the same.
    fresh = make_samples(DatasetQuery("pool"), HorizontalFlip(), into=str(tmp_path / "fresh")).save("fresh")
    assert members(fresh) == found
    assert Path(DatasetQuery(first).to_arrow()["image"][7].as_py()["uri"]).exists()


def test_a_caption_that_changed_makes_a_new_sample(pool: Version, tmp_path: Path) -> None:
    mirrored(tmp_path).save("mirrored")
    changed = DatasetQuery("pool").mutate(caption=fn.concat(C.caption.fill_null(""), "!"))
    version = make_samples(changed, HorizontalFlip(), into=str(tmp_path / "made")).save("louder")
    assert counts(version) == (8, 0)
    assert members(version)["a001-horizontal_flip.txt"] == b"caption 1!"


def test_another_operation_has_tars_of_its_own(pool: Version, tmp_path: Path) -> None:
    into = str(tmp_path / "made")
    folders = set()
    for operation in (CenterCrop(10, 10), CenterCrop(10, 11), Resize(10)):
        version = make_samples(DatasetQuery("pool"), operation, into=into).save("parts")
        assert counts(version) == (8, 0)
        folders |= {Path(row["uri"]).parents[1] for row in DatasetQuery(version).to_arrow()["image"].to_pylist()}
    assert len(folders) == 3


def test_operations_one_after_the_other(pool: Version, tmp_path: Path) -> None:
    def shout(caption: str, label: str) -> str:
        return f"{caption}, {label}".upper()

    done = make_samples(
        DatasetQuery("pool"), Resize(15), HorizontalFlip(), Recaption(shout), into=str(tmp_path / "made"), suffix="-x"
    )
    version = done.save("changed")
    first = DatasetQuery(version).limit(1).to_arrow().to_pylist()[0]
    assert (first["key"], first["caption"], first["width"], first["height"]) == ("a000-x", "CAPTION 0, LABEL 0", 15, 10)
    assert first["operation"].startswith(
        "Resize(size=15, mode='keep_ratio_largest', only_if_bigger=False) | Horizontal"
    )
    twice = make_samples(DatasetQuery(version), StripExif(), into=str(tmp_path / "made")).save("twice")
    assert (
        DatasetQuery(twice).to_arrow()["parent_sample_id"].to_pylist()
        == DatasetQuery(version).to_arrow()["sample_id"].to_pylist()
    )
    assert (DatasetQuery(twice).to_arrow()["label"][3].as_py()) == "label 3"


def test_parents_of_which_none_can_be_made_are_counted(tmp_path: Path) -> None:
    shard(tmp_path / "source", "a", range(3), face_bboxes=[[0.2, 0.2, 0.6, 0.6]])
    members_of_b: list[Any] = [("b0.png", b"no picture"), ("b0.txt", "x"), ("b1.png", png(1)), ("b1.txt", "y")]
    members_of_b += [("b2.png", png(2)), ("b2.txt", "z")]
    write_tar(tmp_path / "source" / "b.tar", members_of_b)
    ingest(tmp_path)
    samples = DatasetQuery("pool").mutate(
        face_bboxes=_boxes({"a001": "[[0.1, 0.1, nan, 0.2]]", "b1": "[[3, 3, 20, 20]]"}, "[[0.2, 0.2, 0.6, 0.6]]")
    )
    version = make_samples(samples, BlurFaces(), into=str(tmp_path / "made")).save("private")
    assert [row["key"] for row in DatasetQuery(version).to_arrow().to_pylist()] == [
        f"{key}-blur_faces" for key in ("a000", "a002", "b2")
    ]
    losses = {loss.shard: loss for loss in read_losses(warehouse(), version.uuid)}
    assert {name: (loss.samples, dict(loss.lost)) for name, loss in losses.items()} == {
        "a": (2, {"samples_not_made": 1}), "b": (1, {"samples_not_made": 2})
    }  # fmt: skip
    assert "a001: ValueError: face_bboxes has a box with numbers that are not finite" in losses["a"].problems
    assert losses["b"].problems[0].startswith("b0: UnidentifiedImageError")
    assert losses["b"].problems[1].startswith("b1: ValueError: face_bboxes has a box outside of the picture")
    assert "NOT MADE: 3 new samples, in 2 shards:" in run("show", "private").stdout
    assert [one["lost"] for one in data("show", "private")["not_made"]] == [
        {"samples_not_made": 1}, {"samples_not_made": 2}
    ]  # fmt: skip
    check = check_made("private")
    assert (check.passed, check.metadata["not_made"].value) == (False, 3)
    assert check_made("pool").passed


def test_a_parent_without_a_picture_is_answered_once(tmp_path: Path) -> None:
    shard(tmp_path / "source", "a", range(3))
    write_tar(tmp_path / "source" / "b.tar", [("b0.txt", "no picture"), ("b1.png", png(1)), ("b2.png", png(2))])
    ingest(tmp_path)
    tars: set[Path] = set()
    for expected in ((6, 0), (0, 6), (0, 6)):
        version = mirrored(tmp_path).save("mirrored")
        assert counts(version) == expected
        assert read_losses(warehouse(), version.uuid)[0].problems == ("b0: no image",)
        tars = tars or set((tmp_path / "made").rglob("*.tar"))
        assert set((tmp_path / "made").rglob("*.tar")) == tars
    assert len(tars) == 2


def _boxes(of_keys: dict[str, str], otherwise: str) -> Any:
    cases = "".join(f"key = '{key}', {boxes}, " for key, boxes in of_keys.items())
    boxes = f"multiIf({cases}{otherwise})" if cases else otherwise
    return sql_text(f"CAST({boxes}, 'Array(Array(Float64))')")


def test_nothing_is_written_where_it_would_do_harm(pool: Version, tmp_path: Path) -> None:
    inside = tmp_path / "source" / "made"
    for place in (inside, tmp_path / "source"):
        with pytest.raises(QueryError, match=r"inside of .*source.*FACTORY_DERIVED"):
            make_samples(DatasetQuery("pool"), HorizontalFlip(), into=str(place)).save("x")
    assert not inside.exists()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(QueryError, match=r"something else is there, such as .*a\.txt"):
        make_samples(DatasetQuery("pool"), HorizontalFlip(), into=str(tmp_path / "letters")).save("x")
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["a.txt"]
    with pytest.raises(QueryError, match=r"no place.*FACTORY_DERIVED"):
        make_samples(DatasetQuery("pool"), HorizontalFlip())
    with pytest.raises(ColumnNotFound, match=r"keep=.*labels.*label"):
        mirrored(tmp_path, keep=["labels"])


def test_a_folder_beside_a_source_with_a_dot_in_its_name_may_hold_them(tmp_path: Path) -> None:
    shard(tmp_path / "photos.v2", "a", range(2))
    shard(tmp_path / "one", "b", range(2))
    for name, uri in (("pool", "photos.v2"), ("one", "one/b.tar"), ("some", "photos.v2/a*.tar")):
        DatasetQuery.from_source(str(tmp_path / uri)).save(name)
    assert mirrored(tmp_path).count() == 2
    for name, inside in (("pool", "photos.v2"), ("one", "one"), ("one", "photos.v2")):
        with pytest.raises(QueryError, match=r"lies inside of"):
            make_samples(DatasetQuery(name), HorizontalFlip(), into=str(tmp_path / inside / "made")).count()


def test_the_place_may_be_a_setting(pool: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_DERIVED", str(tmp_path / "derived"))
    version = make_samples(DatasetQuery("pool"), StripExif()).save("stripped")
    assert DatasetQuery(version).to_arrow()["image"][0].as_py()["uri"].startswith(f"{tmp_path}/derived/strip_exif-")


def test_columns_that_stay(pool: Version, tmp_path: Path) -> None:
    """What was computed of a parent says nothing of its new sample, whatever it is called by then."""
    DatasetQuery("pool").add_signals(phash, caption_stats).save("measured")
    samples = DatasetQuery(DatasetQuery("measured").mutate(score=C.position * 2).save("scored"))
    into = str(tmp_path / "made")
    assert {"label", "caption", "width"} == set(make_samples(samples, HorizontalFlip(), into=into).columns) & {
        "label", "caption", "width", "score", "phash", "phash_error", "caption_stats", "similarity"
    }  # fmt: skip
    assert "score" in make_samples(samples, HorizontalFlip(), into=into, keep=["score"]).columns
    boxed = DatasetQuery("pool").mutate(face_bboxes=_boxes({}, "[[0.2, 0.2, 0.6, 0.6]]"))
    DatasetQuery.from_arrow(boxed.to_arrow(), shard="shard").save("boxed")
    for operation, stays in (
        (BlurFaces(), True),
        (Resize(10), True),
        (HorizontalFlip(), False),
        (CenterCrop(9, 9), False),
    ):
        assert ("face_bboxes" in make_samples(DatasetQuery("boxed"), operation, into=into).columns) is stays


def shorter(caption: str) -> str:
    return caption[:3]


def test_what_a_source_says_of_its_samples_is_not_said_of_new_ones(tmp_path: Path) -> None:
    """Names as DataComp, LAION and COYO have them."""
    of_the_sample = {"uid": "f" * 32, "nsfw": "UNLIKELY", "aesthetic": 5.0, "image_phash": "ff", "watermark_score": 0.5}
    of_the_caption = {"language": "de", "word_count": 2}
    shard(tmp_path / "source", "a", range(2), url="http://x", **of_the_sample, **of_the_caption)
    assert {*of_the_sample, *of_the_caption, "url", "label"} <= ingest(tmp_path).columns.keys()
    mirrored_columns = set(mirrored(tmp_path).columns)
    assert not mirrored_columns & of_the_sample.keys()
    assert {*of_the_caption, "url", "label"} <= mirrored_columns
    told_anew = make_samples(DatasetQuery("pool"), StripExif(), Recaption(shorter), into=str(tmp_path / "made"))
    assert set(told_anew.columns) == mirrored_columns - of_the_caption.keys()
    assert DatasetQuery(told_anew.save("told_anew")).to_arrow()["caption"].to_pylist() == ["cap", "cap"]


def test_originals_and_new_samples_are_one_dataset(pool: Version, tmp_path: Path) -> None:
    mirrored(tmp_path).save("mirrored")
    both = superset(DatasetQuery("pool"), DatasetQuery("mirrored"))
    everything = both.to_arrow().to_pylist()
    in_order = sorted(everything, key=lambda row: (row["shard"], row["position"], row["sample_id"]))
    assert both.select("key").to_arrow()["key"].to_pylist() == [row["key"] for row in in_order]
    version = both.add_signals(phash).save("both")
    table = DatasetQuery(version).to_arrow()
    assert (table.num_rows, table["parent_sample_id"].null_count, table["phash_error"].null_count) == (16, 8, 16)
    assert (
        len(set(table["sample_id"].to_pylist())) == len({(r["shard"], r["position"]) for r in table.to_pylist()}) == 16
    )
    some = superset(DatasetQuery("pool", shards=["b"]), DatasetQuery("mirrored", shards=["b"]))
    assert some.restricted_to() == ("b",)
    assert some.save("both", mode="overwrite_shards", schema_evolution=True).rows == 16
    with pytest.raises(QueryError, match="make_samples"):
        superset(DatasetQuery("pool"), DatasetQuery("pool"))


def test_a_version_is_reproduced_and_told_of(pool: Version, tmp_path: Path) -> None:
    version = mirrored(tmp_path).save("mirrored")
    assert reproduce(version).is_equal
    assert version.provenance is not None
    assert version.provenance.python.startswith("make_samples(DatasetQuery('pool.v1'), HorizontalFlip(), into=")
    assert "makes: new samples by HorizontalFlip()" in mirrored(tmp_path).explain()


def test_many_samples_are_made_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_WORKERS", "2")
    shard(tmp_path / "source", "a", range(150))
    ingest(tmp_path)

    def numbered(caption: str) -> str:
        if caption.endswith("77"):
            os._exit(3)
        return f"{caption} of process {os.getpid() != PARENT}"

    version = make_samples(DatasetQuery("pool"), Recaption(numbered), into=str(tmp_path / "made")).save("numbered")
    captions = DatasetQuery(version).to_arrow()["caption"].to_pylist()
    assert captions == [f"caption {i} of process True" for i in range(150) if i != 77]
    (loss,) = read_losses(warehouse(), version.uuid)
    assert "WorkerDied" in loss.problems[0]


PARENT = os.getpid()

KILLED = """
import sys
from factory_lib import DatasetQuery
from factory_lib.augmentation import HorizontalFlip
from factory_lib.build import made_parts, made_tars
from factory_lib.curation.new_samples import make_samples

made_parts.PART_BYTES = 4_000
write = made_tars.ShardFolder.write_record
left = [int(sys.argv[2])]

def slowly(self, number, rows):
    if not left[0]:
        print("now", flush=True)
        import time
        time.sleep(600)
    left[0] -= 1
    return write(self, number, rows)

made_tars.ShardFolder.write_record = slowly
make_samples(DatasetQuery("pool"), HorizontalFlip(), into=sys.argv[1]).save("mirrored")
"""


def test_a_killed_run_goes_on_where_it_was(pool: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after five of eight tars: the sixth is written, and not recorded."""
    into = tmp_path / "made"
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(into), "5"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "now\n"
    run.send_signal(signals_of_the_system.SIGKILL)
    run.wait()
    left = {path.relative_to(into): path.stat().st_mtime_ns for path in into.rglob("*.arrow")}
    assert len(left) == 5
    monkeypatch.setattr("factory_lib.build.made_parts.PART_BYTES", 4_000)
    version = mirrored(tmp_path).save("mirrored")
    computed, reused = counts(version)
    assert (computed + reused, reused) == (8, 5)
    assert left.items() <= {path.relative_to(into): path.stat().st_mtime_ns for path in into.rglob("*.arrow")}.items()
    untouched = make_samples(DatasetQuery("pool"), HorizontalFlip(), into=str(tmp_path / "once")).save("once")
    assert members(version) == members(untouched)
    tars = [sorted(path.read_bytes() for path in place.rglob("*.tar")) for place in (into, tmp_path / "once")]
    assert tars[0] == tars[1]


def test_small_shards_are_made_in_one_computation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty shards of ten: too few each for processes to be worth it, and enough together."""
    monkeypatch.setenv("FACTORY_WORKERS", "2")
    for number in range(20):
        shard(tmp_path / "source", f"s{number:02d}", range(10))
    ingest(tmp_path)

    def where(caption: str) -> str:
        return f"{caption} {os.getpid() != PARENT}"

    into = str(tmp_path / "made")
    first = make_samples(DatasetQuery("pool", shards=["s03", "s04"]), Recaption(where), into=into).save("first")
    assert DatasetQuery(first).to_arrow()["caption"].to_pylist() == [
        f"caption {i} False" for _ in range(2) for i in range(10)
    ]
    version = make_samples(DatasetQuery("pool"), Recaption(where), into=into).save("all")
    assert counts(version) == (180, 20)
    table = DatasetQuery(version).to_arrow()
    assert table["key"].to_pylist() == [f"s{n:02d}{i:03d}-recaption" for n in range(20) for i in range(10)]
    assert {row["shard"] for row in table.to_pylist() if row["caption"].endswith("False")} == {"s03", "s04"}
    assert members(version).keys() >= {f"s{n:02d}009-recaption.png" for n in range(20)}


def test_a_tar_that_is_not_as_it_was_recorded_is_made_again(pool: Version, tmp_path: Path) -> None:
    mirrored(tmp_path).save("mirrored")
    (tar,) = (tmp_path / "made").rglob("a-*/*.tar")
    tar.write_bytes(tar.read_bytes()[:-512])
    version = mirrored(tmp_path).save("mirrored")
    assert counts(version) == (4, 4)
    assert len(members(version)) == 24


def test_a_bucket_is_a_store_as_well(pool: Version, s3: Any) -> None:
    into = f"{s3.uri}/made"
    version = make_samples(DatasetQuery("pool"), HorizontalFlip(), into=into).save("mirrored")
    pointer = DatasetQuery(version).to_arrow()["image"][5].as_py()
    assert pointer["uri"].startswith(f"{into}/horizontal_flip-")
    found = Image.open(BytesIO(store().read(pointer["uri"], pointer["offset"], pointer["size"])))
    np.testing.assert_array_equal(np.asarray(found), np.asarray(Image.open(BytesIO(png(1))))[:, ::-1])
    again = make_samples(DatasetQuery("pool"), HorizontalFlip(), into=into).save("again")
    assert counts(again) == (0, 8)
    assert data("gc")["tars"] == []


def test_shards_whose_names_look_alike_are_kept_apart(tmp_path: Path) -> None:
    tars = MadeTars(str(tmp_path), "x", "f" * 32)
    states = {"a/b": "1" * 64, "a b": "2" * 64, "…": "3" * 64}
    folders = {tars.taken_up(name, state)[0].uri for name, state in states.items()}
    assert len(folders) == 3
    assert all(folder.startswith(f"{tmp_path}/x-ffff") and "…" not in folder for folder in folders)
