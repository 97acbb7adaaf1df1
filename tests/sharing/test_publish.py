"""Versions are published below an address and opened there, by engines that know nothing of the one they were made in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest

from factory_lib import C, DatasetQuery, lineage, publish, published, pull, tag, tags, untag, version
from factory_lib.errors import DatasetNotFound, EngineError, PublicationError, TagExists, VersionNotFound
from factory_lib.history.verifying import verify
from factory_lib.sharing.manifest import FORMAT, LONGEST, Manifest
from factory_lib.sharing.place import SharedPlace
from factory_lib.testing import engine_folder
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.remote_disk import Declaration
from factory_lib.warehouse.retention import forget_unpublished

pytestmark = pytest.mark.usefixtures("engine")

DISKS = (
    "SELECT sum(rows) AS rows, groupUniqArray(disk_name = 'default') AS here FROM system.parts"
    " WHERE active AND database = {d:String} AND table = {t:String}"
)


def rows_of(n: int = 60, add: int = 0) -> pa.Table:
    """Rows in shards s0, s1 and s2; sizes in s0 are higher by `add`."""
    shards = [f"s{i % 3}" for i in range(n)]
    return pa.table(
        {
            "shard": shards,
            "key": [f"k{i:04}" for i in range(n)],
            "caption": [None if i % 7 == 0 else f"a photo, {i}" for i in range(n)],
            "size": pa.array([i + (add if shard == "s0" else 0) for i, shard in enumerate(shards)], pa.uint32()),
            "clip": pa.array([[i / 8, 1.0] for i in range(n)], pa.list_(pa.float32())),
        }
    )


def saved(name: str = "laion", add: int = 0) -> None:
    """The next version of a dataset."""
    DatasetQuery.from_arrow(rows_of(add=add), shard="shard").save(name)


@pytest.fixture
def place(tmp_path: Path) -> str:
    """An empty place."""
    return str(tmp_path / "empty" / "datasets")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place where somebody else published laion.v1, once for all tests."""
    folder = tmp_path_factory.mktemp("made")
    with engine_folder(folder / "home"):
        saved()
        publish("laion", str(folder / "team"))
    return folder / "team"


@pytest.fixture
def team(made: Path, tmp_path: Path) -> str:
    """A copy of that place."""
    return str(shutil.copytree(made, tmp_path / "team"))


def files(place: str) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(place).rglob("*") if path.is_file()}


def forget(dataset: str) -> None:
    """Make this data folder one that has never heard of a dataset."""
    warehouse().execute(f"DROP DATABASE {dataset} SYNC")
    for name in ("versions", "shards", "seals", "recipes", "pulled"):
        warehouse().execute(f"TRUNCATE TABLE factory.{name}")


def test_a_version_is_the_same_in_another_engine_that_copies_nothing(place: str, tmp_path: Path) -> None:
    saved("pool")
    made = DatasetQuery("pool").filter(C.size > 9).save("laion")
    rows, fingerprints, links = DatasetQuery("laion").to_arrow(), made.fingerprints(), lineage(made).links
    publication = publish(made, place, tag="icml")
    assert (publication.address, publication.made) == (f"{place}/laion.v1", True)
    before = files(place)

    with engine_folder(tmp_path / "elsewhere"):
        found = pull(f"{place}/laion.v1")
        assert (str(found), found.uuid, found.rows, found.columns) == ("laion.v1", made.uuid, 50, made.columns)
        assert found.fingerprints() == fingerprints
        assert DatasetQuery(f"{place}/laion@icml").to_arrow() == rows
        assert lineage(found).links == links
        assert found.provenance == made.provenance
        assert verify(warehouse()).findings == []
        # what the mask hides did not come along, and all parts are elsewhere
        assert warehouse().rows(DISKS, {"d": "laion", "t": "v1"}) == [{"rows": 50, "here": [0]}]
        forget_unpublished(warehouse())
        assert lineage(found).links == links
    assert files(place) == before


def test_what_is_published_already_is_not_written_again(place: str) -> None:
    saved()
    publish("laion", place)
    before = files(place)
    again = publish("laion", place)
    assert not again.made
    assert files(place) == before
    assert str(pull(again.address)) == "laion.v1"  # it is here
    assert published(place).column("address").to_pylist() == [f"{place}/laion.v1"]


def test_a_number_that_another_version_has_is_not_taken(team: str) -> None:
    saved(add=5)
    assert publish("laion", team).address == f"{team}/laion.v2"
    assert published(f"{team}/laion").column("name").to_pylist() == ["laion.v1", "laion.v2"]


def test_twenty_who_publish_at_once_make_twenty_versions(team: str) -> None:
    there = SharedPlace.at(team)
    first = there.manifest("laion", 1)
    wanted = [replace(first, number=1, uuid=str(UUID(int=i))) for i in range(20)]
    with ThreadPoolExecutor(20) as pool:
        made = list(pool.map(there.add, wanted))
    assert sorted(one.number for one in made) == list(range(2, 22))
    assert {one.uuid for one in there.manifests("laion")} == {one.uuid for one in [first, *wanted]}
    assert there.resolve(SharedPlace.of(f"{team}/laion")[1]).number == 21


def test_a_tag_is_on_one_version_and_moves_when_it_is_told_to(team: str) -> None:
    there = SharedPlace.at(team)
    there.add(replace(there.manifest("laion", 1), number=2, uuid=str(UUID(int=2))))
    one, two = f"{team}/laion.v1", f"{team}/laion.v2"
    assert tag(one, "icml")
    assert not tag(one, "icml")
    with pytest.raises(TagExists, match="laion@icml is laion.v1 already"):
        tag(two, "icml")
    assert tag(two, "icml", force=True)
    assert [(str(t), t.version) for t in [untag(f"{team}/laion@icml")]] == [("laion@icml", "laion.v2")]
    assert tags(f"{team}/laion").num_rows == 0
    with pytest.raises(VersionNotFound, match="no tag 'icml'"):
        pull(f"{team}/laion@icml")

    def take(address: str) -> bool:
        try:
            return tag(address, "best")
        except TagExists:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(take, [one, two] * 4)) >= 1
    assert len({t["version"] for t in tags(f"{team}/laion").to_pylist()}) == 1


def test_a_pulled_version_cannot_be_changed_and_what_is_published_stays(team: str) -> None:
    before = files(team)
    found = pull(f"{team}/laion")
    for change in ("DELETE WHERE size = 3", "DROP PARTITION 's0'", "UPDATE size = 0 WHERE 1", "DROP COLUMN caption"):
        with pytest.raises(EngineError):
            warehouse().execute(f"ALTER TABLE {found.table} {change}", settings={"mutations_sync": 2})
    warehouse().execute(f"DROP TABLE {found.table} SYNC")
    assert files(team) == before
    assert pull(f"{team}/laion").rows == 60


def test_what_is_derived_copies_the_shards_that_changed(place: str, tmp_path: Path) -> None:
    saved()
    publish("laion", place)
    changed = DatasetQuery.from_arrow(rows_of(add=1_000), shard="shard").filter(C.shard == "s0")
    publish(changed.save("laion", mode="overwrite_shards"), place)
    with engine_folder(tmp_path / "elsewhere"):
        mine = DatasetQuery(f"{place}/laion.v1").filter(C.size > 9).refresh("mine")
        # what is filtered away did not come along
        assert warehouse().rows(DISKS, {"d": "mine", "t": "v1"}) == [{"rows": 50, "here": [1]}]
        again = DatasetQuery(f"{place}/laion.v2").filter(C.size > 9).refresh("mine")
        made = {shard: record.origin == again.uuid for shard, record in again.shards.items()}
        assert made == {"s0": True, "s1": False, "s2": False}
        assert again.fingerprints()["s1"] == mine.fingerprints()["s1"]
        assert [(link.parent, link.child) for link in lineage(mine).links] == [("laion.v1", "mine.v1")]
        publish("mine", place)
    found = pull(f"{place}/mine")  # back where what it was made of is known
    assert ("laion.v2", "mine.v2") in {(link.parent, link.child) for link in lineage(found).links}


def test_an_engine_starts_and_works_while_a_place_is_away(team: str, tmp_path: Path) -> None:
    with engine_folder(tmp_path / "elsewhere") as home:
        saved("own")
        pull(f"{team}/laion")
        stop_engine(home)
        Path(team).rename(tmp_path / "away")
        assert version("own").rows == 60
        with pytest.raises(PublicationError, match=rf"laion.v1, published as {team}/laion.v1, cannot be opened"):
            version("laion")
        Path(team).mkdir(parents=True, exist_ok=True)
        shutil.copytree(tmp_path / "away", team, dirs_exist_ok=True)
        assert DatasetQuery("laion").count() == 60
        stop_engine(home)
        assert verify(warehouse()).findings == []


def test_a_dataset_that_was_made_here_does_not_become_another(team: str) -> None:
    saved(add=3)
    with pytest.raises(PublicationError, match="laion.v1 is here already, and is another version") as caught:
        pull(f"{team}/laion.v1")
    assert "--as laion_shared" in caught.value.hint
    assert str(pull(f"{team}/laion.v1", "theirs")) == "theirs.v1"
    assert DatasetQuery(f"{team}/laion.v1").count() == 60  # found under the name that it has here
    publish("laion", team)
    forget("laion")
    warehouse().execute("DROP DATABASE theirs SYNC")
    saved(add=3)
    with pytest.raises(PublicationError, match="laion.v1 was made here, and laion.v2 there does not come of it"):
        pull(f"{team}/laion.v2")


def test_what_a_later_release_published_is_refused(team: str) -> None:
    file, number = Path(team, "laion", "v1.json"), FORMAT + 1
    file.write_text(json.dumps({"format": number, "software": "9.9", "something": "else"}))
    with pytest.raises(
        PublicationError, match=rf"later release of Dataset Factory \(9.9: format {number}; this one knows {FORMAT}"
    ):
        pull(f"{team}/laion.v1")
    file.write_text("[]")
    with pytest.raises(PublicationError, match="not described as a published version is"):
        published(team)


def _of(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda said: said.update(changes)


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "another folder": _of(data="../../../../etc"),
    "another dataset": _of(dataset="other"),
    "another number": _of(number=7),
    "a number that is none": _of(number="1"),
    "no UUID": _of(uuid="'; DROP DATABASE factory; --"),
    "SQL for a type": lambda said: said["declared"]["columns"][0].__setitem__(1, "UInt8 DEFAULT file('/etc/passwd')"),
    "SQL behind a type": lambda said: said["declared"]["columns"][0].__setitem__(
        1, "Enum8('a' = 1)) ENGINE = URL('x')"
    ),
    "SQL in a codec": lambda said: said["declared"]["columns"][0].__setitem__(2, "CODEC(LZ4), x UInt8"),
    "SQL in an index": lambda said: said["declared"].update(indexes=[["i", "sleep(3)", "minmax", 1]]),
    "no columns": lambda said: said["declared"].pop("columns"),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_a_manifest_is_read_as_it_is_written_or_not_at_all(change: Callable[[dict[str, Any]], object]) -> None:
    columns = (("shard", "LowCardinality(String)", "", ""), ("a b`", "Enum8('(' = -1)", "CODEC(Delta(4), LZ4)", "it's"))
    declared = Declaration(columns, (("near", "`a b\\``", "minmax", 1),))
    said = dict.fromkeys(("name", "created", "published", "fingerprint", "files", "software"), "")
    uuid = str(UUID(int=7))
    made = Manifest(
        "laion",
        3,
        uuid,
        **said,
        rows=1,
        size=1,
        shards=1,
        parents=[],
        sources={},
        data=f"{uuid}-0123abcd",
        declared=declared,
    )
    assert Manifest.read(made.to_json(), "/team/laion.v3") == made
    record = json.loads(made.to_json())
    change(record)
    with pytest.raises(PublicationError, match=r"team/laion\.v3 is not described as a published version is"):
        Manifest.read(json.dumps(record).encode(), "/team/laion.v3")


@pytest.mark.parametrize("data", [b" " * (LONGEST + 1), b"[" * 100_000, b'{"format": 1}', b"\xff", b"null"])
def test_what_is_no_manifest_is_none(data: bytes) -> None:
    with pytest.raises(PublicationError, match="not described as a published version is"):
        Manifest.read(data, "/team/laion.v3")


def test_files_that_were_changed_are_noticed(team: str) -> None:
    table = next(Path(team, "laion", "data").iterdir()) / "table"
    part = next(table.glob("*/checksums.txt")).parent.name
    (table / "__meta" / part / "prefix.path").unlink()
    with pytest.raises(PublicationError, match="is not what was published: its files are others"):
        pull(f"{team}/laion.v1")
    assert not warehouse().scalar("SELECT count() FROM system.tables WHERE database = 'laion'")


def test_a_shard_that_is_not_what_was_saved_is_not_published(place: str) -> None:
    saved()
    made = version("laion")
    made.fingerprints()
    warehouse().execute("ALTER TABLE laion.v1 MODIFY SETTING table_readonly = 0")
    warehouse().execute("ALTER TABLE laion.v1 UPDATE size = 1 WHERE shard = 's1'", settings={"mutations_sync": 2})
    with pytest.raises(PublicationError, match=r"Shard 's1' of laion.v1 is not what it was when it was saved"):
        publish("laion", place)
    assert SharedPlace.at(place).datasets() == []


def test_what_is_not_there_is_told_with_what_is(place: str, team: str) -> None:
    saved()
    with pytest.raises(DatasetNotFound, match="Nothing is published in"):
        published(place)
    with pytest.raises(DatasetNotFound, match="Did you mean 'laion'"):
        pull(f"{team}/lion")
    with pytest.raises(VersionNotFound, match="Published are v1"):
        DatasetQuery(f"{team}/laion.v7")
    with pytest.raises(PublicationError, match=r"cannot be published to memory://a.*Name an S3 bucket"):
        publish("laion", "memory://a")
