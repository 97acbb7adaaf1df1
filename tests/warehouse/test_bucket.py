"""Versions whose parts lie in a bucket: what they cost there, whose they are, and what is left when the folder is lost."""

from __future__ import annotations

import gzip
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from click.testing import CliRunner

from factory_lib import C, DatasetQuery
from factory_lib.cli import factory
from factory_lib.errors import EngineError, FactoryError, SettingsError
from factory_lib.history.backups import BackupError, backup, restore_from_bucket
from factory_lib.storage.store import Store
from factory_lib.warehouse.bucket.blobs import all_files, blob_keys
from factory_lib.warehouse.bucket.head import Bound, BucketError, read_head
from factory_lib.warehouse.bucket.keeping import keep
from factory_lib.warehouse.bucket.unnamed import find_unnamed
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.embedded import stop_engine
from factory_lib.warehouse.policy import KeepPolicy, drop_versions, expired
from factory_lib.warehouse.tags import set_tag, tags_of
from factory_lib.warehouse.versions import datasets, resolve
from tests.s3 import Bucket, Relay
from tests.warehouse.bucket_folder import URI, KilledError, fingerprints, home, named, objects, part_files, parts, save

__all__ = ["home"]


def test_a_lost_folder_is_made_anew_of_its_bucket(home: Path, s3: Bucket) -> None:
    save()
    save()
    DatasetQuery("laion").filter(C.n < 100).save("few")
    DatasetQuery("few").mutate(z=C.x * 2).save("wide")
    set_tag(warehouse(), "laion", "laion.v1", resolve(warehouse(), "laion.v1").uuid, "icml")
    before, provenance = fingerprints(), resolve(warehouse(), "wide").provenance
    assert set(before) == {"laion.v1", "laion.v2", "few.v1", "wide.v1"}
    warehouse().close()
    stop_engine(home)
    shutil.rmtree(home)

    made = restore_from_bucket(URI, home)
    assert (made.versions, made.findings) == (4, [])
    assert fingerprints() == before
    assert tags_of(warehouse(), "laion")["icml"].version == "laion.v1"
    assert resolve(warehouse(), "wide").provenance == provenance
    assert named(home) == set(parts(s3))

    # What was shared is still: the parents can go, and what was made of them stays whole.
    save("laion", rows=10)
    warehouse().execute("DROP TABLE few.v1 SYNC")
    warehouse().execute("DROP TABLE laion.v1 SYNC")
    assert fingerprints()["wide.v1"] == before["wide.v1"]
    assert named(home) == set(parts(s3))


def test_a_bucket_belongs_to_one_folder(
    home: Path, s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save()
    save()
    # A second folder on the same prefix.
    second = tmp_path / "second"
    monkeypatch.setenv("FACTORY_HOME", str(second))
    with pytest.raises(BucketError, match=f"holds the versions of another data folder, .*{home}"):
        save()
    assert not (second / "bucket.json").exists()
    # The first is taken for lost, and is not.
    second = tmp_path / "made anew"
    monkeypatch.delenv("FACTORY_VERSIONS")
    restore_from_bucket(URI, second)
    monkeypatch.setenv("FACTORY_HOME", str(home))
    before, held = resolve(warehouse(), "laion").uuid, parts(s3)
    with pytest.raises(BucketError, match=f"another data folder, .*{second}.*factory restore {URI}"):
        DatasetQuery("laion").filter(C.n < 10).save("laion", mode="overwrite_shards")
    assert resolve(warehouse(), "laion").uuid == before  # nothing is published
    with pytest.raises(BucketError, match="another data folder"):
        drop_versions(warehouse(), expired(warehouse(), KeepPolicy(days=0)), KeepPolicy(days=0))
    assert held.keys() <= parts(s3).keys()
    stop_engine(home)
    warehouse().close()
    with pytest.raises(BucketError, match="another data folder"):
        fingerprints()
    stop_engine(second)


def test_where_versions_lie_is_not_changed_by_a_setting(
    home: Path, s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save()
    before = fingerprints()
    for uri in (f"{URI}/other", URI):
        monkeypatch.setenv("FACTORY_VERSIONS", uri)
        warehouse().close()
        if uri == URI:
            assert fingerprints() == before
        else:
            with pytest.raises(BucketError, match=f"lie in {URI}, and FACTORY_VERSIONS names {uri}"):
                save()
    monkeypatch.delenv("FACTORY_VERSIONS")
    warehouse().close()
    assert fingerprints() == before
    with pytest.raises(BackupError, match=f"lie in {URI}.*factory restore {URI}"):
        backup(warehouse(), tmp_path / "backups")
    stop_engine(home)

    local = tmp_path / "local"
    monkeypatch.setenv("FACTORY_HOME", str(local))
    save()
    monkeypatch.setenv("FACTORY_VERSIONS", f"{URI}-of-local")
    warehouse().close()
    with pytest.raises(BucketError, match="keeps versions on its disk.*factory down"):
        save()
    stop_engine(local)
    with pytest.raises(BucketError, match=f"lie on its disk.*factory move {URI}-of-local"):
        save()
    assert not any(key.startswith("versions-of-local") for key in objects(s3))


def test_a_folder_without_versions_keeps_its_bucket(home: Path, s3: Bucket) -> None:
    assert warehouse().scalar("SELECT 1") == 1
    stop_engine(home)
    # It was killed before it had claimed the prefix.
    s3.client.delete_object(Bucket=s3.name, Key="versions/head.json.gz")
    warehouse().close()
    save()
    assert whole_versions(s3) == {"laion.v1"}


def test_what_others_wrote_into_a_bucket_stays_out_of_the_rest_of_the_disk(home: Path, s3: Bucket) -> None:
    save()
    stop_engine(home)
    warehouse().close()
    uuid = resolve(warehouse(), "laion").uuid
    key = f"versions/versions/{uuid}.json.gz"
    said = json.loads(gzip.decompress(s3.client.get_object(Bucket=s3.name, Key=key)["Body"].read()))
    said["files"]["../../../../../../outside"] = said["files"]["format_version.txt"]
    s3.client.put_object(Bucket=s3.name, Key=key, Body=gzip.compress(json.dumps(said).encode()))
    with pytest.raises(BucketError, match="laion.v1.*outside"):
        restore_from_bucket(URI, home.parent / "anew")
    assert not list(home.parent.rglob("outside"))
    assert not (home.parent / "anew").exists()


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("gs://bucket/prefix", " Google's S3 API knows no If-Match .*"),
        ("az://container/prefix", " Azure has no S3 API; a ClickHouse server .*"),
        ("s3://bucket", ""),
        ("/mnt/versions", ""),
        ("s3://BUCKET/prefix", ""),
    ],
)
def test_a_place_that_is_none_is_refused(uri: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_VERSIONS", uri)
    with pytest.raises(SettingsError, match=f"{uri}' is no place for versions\\.{reason} It is s3://bucket/prefix"):
        warehouse()


def test_a_server_keeps_versions_where_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_VERSIONS", URI)
    monkeypatch.setenv("FACTORY_CLICKHOUSE_URL", "http://localhost:1/")
    with pytest.raises(SettingsError, match="for the embedded engine"):
        warehouse()


def test_a_derived_version_costs_there_what_it_costs_on_a_disk(
    home: Path, s3: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def derive() -> None:
        DatasetQuery("laion").filter(C.n % 3 > 0).save("most")
        DatasetQuery("most").mutate(z=C.x + C.y).save("wide")

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "a-secret-that-is-looked-for")
    save(rows=200_000)
    before = parts(s3)
    derive()
    # No credentials are written down.
    shown = warehouse().scalar("SHOW CREATE TABLE laion.v1")
    assert "storage_policy = 'versions'" in shown
    texts = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert not any(b"a-secret-that-is-looked-for" in text for text in [*texts, shown.encode()])
    there = {key: size for key, size in parts(s3).items() if key not in before}
    shared = sum(size for key, size in parts(s3).items() if key in before)
    local = tmp_path / "local"
    monkeypatch.setenv("FACTORY_HOME", str(local))
    monkeypatch.delenv("FACTORY_VERSIONS")
    save(rows=200_000)
    known = {path.stat().st_ino for path in part_files(local)}
    derive()
    # Tables of the datasets alone: those of the catalog lie on the disk in both cases.
    new = {path.stat().st_ino: path.stat().st_size for path in part_files(local) if path.stat().st_ino not in known}
    stop_engine(local)
    assert shared > 3e6
    assert sum(there.values()) == pytest.approx(sum(new.values()), rel=0.02)
    # What makes a lost folder anew comes on top.
    assert sum(objects(s3).values()) - sum(parts(s3).values()) < 0.1 * sum(new.values())


def test_the_cache_is_bounded(home: Path, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_VERSIONS_CACHE_BYTES", "2e6")
    save(rows=300_000, shards=3)
    warehouse().query("SELECT * FROM laion.v1")
    assert sum(parts(s3).values()) > 4e6
    cached = sum(path.stat().st_size for path in (home / "data" / "cache").rglob("*") if path.is_file())
    assert 1e5 < cached <= 2e6


def test_what_is_dropped_is_removed_from_the_bucket(home: Path, s3: Bucket) -> None:
    for rows in (1000, 2000, 3000):
        save(rows=rows)
    DatasetQuery("laion.v2").filter(C.n < 1500).save("part")
    kept = fingerprints()
    del kept["laion.v1"]
    gone = drop_versions(warehouse(), expired(warehouse(), KeepPolicy(days=0)), KeepPolicy(days=0))
    assert [one.version for one in gone] == ["laion.v1"]
    assert fingerprints() == kept
    assert named(home) == set(parts(s3))
    head = read_head(URI)
    assert head is not None
    assert set(head[0].versions.values()) == kept.keys()
    recorded = {key.split("/")[-1].partition(".")[0] for key in objects(s3) if key.startswith("versions/versions/")}
    assert recorded == set(head[0].versions)


def test_a_bucket_that_cannot_be_written_can_be_read(home: Path, relay: Relay, s3: Bucket) -> None:
    save()
    before = fingerprints()
    stop_engine(home)
    relay.refused = ("PUT POST DELETE", "AccessDenied")
    warehouse().close()
    assert fingerprints() == before
    with pytest.raises(EngineError, match=f"AccessDenied.*{URI}.*factory down"):
        save(rows=500)
    # Credentials that expire publish nothing, either.
    relay.refused = ("GET HEAD PUT POST DELETE", "ExpiredToken")
    with pytest.raises(FactoryError, match=f"expired.*{URI}.*factory down"):
        save(rows=500)
    relay.refused = None
    save(rows=500)
    assert fingerprints().keys() == {"laion.v1", "laion.v2"}
    assert Bound.of(home) is not None


def test_a_bucket_that_is_gone_is_named(home: Path, s3: Bucket) -> None:
    save()
    for key in objects(s3):
        s3.client.delete_object(Bucket=s3.name, Key=key)
    s3.client.delete_bucket(Bucket=s3.name)
    with pytest.raises(FactoryError, match=f"NoSuchBucket.*{URI}"):
        save(rows=500)
    stop_engine(home)
    warehouse().close()
    with pytest.raises(BucketError, match=f"{URI} does not hold the versions .* any more.*Was the bucket removed"):
        fingerprints()


def whole_versions(s3: Bucket) -> set[str]:
    """The versions that the head names, of which all is there."""
    there = objects(s3)
    found = read_head(URI)
    assert found is not None
    for pack in found[0].catalog.values():
        assert f"versions/catalog/{pack}.tar.gz" in there
    for uuid in found[0].versions:
        packed = s3.client.get_object(Bucket=s3.name, Key=f"versions/versions/{uuid}.json.gz")["Body"].read()
        files = json.loads(gzip.decompress(packed))["files"]
        assert {key for text in files.values() for key in blob_keys(text)} <= there.keys()
    return set(found[0].versions.values())


def killed_after(calls: int, patched: pytest.MonkeyPatch) -> None:
    """Have the store do so many calls that write, and then no more."""
    left = [calls]

    def counted(done: Any) -> Any:
        def call(self: Store, *arguments: Any) -> Any:
            if not left[0]:
                raise KilledError
            left[0] -= 1
            return done(self, *arguments)

        return call

    for name in ("write", "replace", "remove"):
        patched.setattr(Store, name, counted(getattr(Store, name)))


def test_wherever_a_commit_is_killed_the_bucket_holds_whole_versions(
    home: Path, s3: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(rows=10)
    known, finished, calls = {"laion.v1"}, False, 0
    while not finished:
        with monkeypatch.context() as patched:
            killed_after(calls, patched)
            try:
                save(rows=10 + calls)
                finished = True
            except KilledError:
                calls += 1
        found = whole_versions(s3)
        assert known <= found
        known |= found
        keep(warehouse())  # of what was published and not in the head yet the next one would write more
    assert calls > 2
    assert whole_versions(s3) == {str(one) for made in datasets(warehouse()).values() for one in made}
    assert known == {f"laion.v{number + 1}" for number in range(len(known))}

    finished, calls = False, 0
    while not finished:
        with monkeypatch.context() as patched:
            killed_after(calls, patched)
            try:
                drop_versions(warehouse(), expired(warehouse(), KeepPolicy(days=0)), KeepPolicy(days=0))
                finished = True
            except KilledError:
                calls += 1
        whole_versions(s3)
    keep(warehouse())  # what was killed last is hours old before it is swept
    assert len(whole_versions(s3)) == 1


def test_many_commit_at_once(home: Path, s3: Bucket) -> None:
    save(rows=10)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: save(f"data_{number % 2}", rows=10 + number), range(4)))
    made = {f"data_{dataset}.v{number}" for dataset in range(2) for number in (1, 2)} | {"laion.v1"}
    assert whole_versions(s3) == made


def test_objects_that_nothing_names_go_a_day_later(home: Path, s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    def gc(*options: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(factory, ["gc", "--json", *options], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found: list[dict[str, Any]] = json.loads(done.stdout)["objects"]
        return found

    save()
    before = fingerprints()
    keep(warehouse())
    left = {s3.put(f"versions/{name}", b"left") for name in ("parts/zzz/zzz", "versions/zzz.json.gz", "catalog/zzz")}
    assert [(set(one["objects"]), one["go"], one["bytes"]) for one in gc()] == [(left, False, 12)]
    assert gc("--yes") == []
    # A file that the engine has made and is writing is waited for; one that stays empty may need any of them.
    path = next(all_files(home / "data"))
    text = path.read_text()
    path.write_text("")
    Timer(0.1, path.write_text, [text]).start()
    assert gc()[0]["go"] is False
    path.write_text("")
    monkeypatch.setattr("factory_lib.warehouse.bucket.unnamed._LOOKS", 2)
    with pytest.raises(BucketError, match=f"{path} is empty.*Nothing was deleted.*factory restore"):
        find_unnamed(warehouse())
    path.write_text(text)
    monkeypatch.setattr("factory_lib.warehouse.bucket.unnamed.UNNAMED_HOURS", 0.0)
    assert [(set(one["objects"]), one["go"]) for one in gc("--yes")] == [(left, True)]
    assert gc() == []
    assert named(home) == set(parts(s3))
    assert fingerprints() == before
