"""Tars of samples, read back by Python's tarfile, by WebDataset's rules written out, and by our own source."""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_lib.errors import InvalidName, StoreError
from factory_lib.owners import leftovers
from factory_lib.settings import settings
from factory_lib.sources import open_source
from factory_lib.storage.store import store
from factory_lib.storage.tars import TarWriter, check_key, writing_tar
from tests.s3 import Bucket
from tests.samples import rows

SAMPLES = {
    "a": {"jpg": b"\xff\xd8one", "txt": b"a dress", "json": b"{}"},
    "sub/b": {"jpg": b"x" * 512, "txt": "grün".encode()},
    "d" * 120: {"seg.png": b""},
    "größe": {"txt": b"not ASCII"},
}


def broken_off(uri: str) -> None:
    with writing_tar(uri) as tar:
        tar.add("a", {"txt": b"x"})
        raise KeyError


def packed(samples: dict[str, dict[str, bytes]]) -> tuple[bytes, dict[str, dict[str, tuple[int, int]]]]:
    out = io.BytesIO()
    tar = TarWriter(out)
    places = {key: tar.add(key, members) for key, members in samples.items()}
    tar.close()
    assert (tar.samples, tar.size) == (len(samples), len(out.getvalue()))
    return out.getvalue(), places


def webdataset(data: bytes) -> list[tuple[str, dict[str, bytes]]]:
    """Samples as webdataset's `tar_file_iterator`, `base_plus_ext` and `group_by_keys` make them."""
    found: list[tuple[str, dict[str, bytes]]] = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r|*") as archive:
        for about in archive:
            if not about.isreg() or re.match(r"__[^/]*__($|/)", about.name):
                continue
            match = re.match(r"^((?:.*/|)[^.]+)[.]([^/]*)$", about.name)
            content = archive.extractfile(about)
            if match is None or content is None:
                continue
            key, extension = match[1], match[2].lower()
            if not found or found[-1][0] != key:
                found.append((key, {}))
            assert extension not in found[-1][1]
            found[-1][1][extension] = content.read()
    return found


def test_others_read_what_is_written() -> None:
    data, places = packed(SAMPLES)
    assert webdataset(data) == list(SAMPLES.items())
    assert len(data) % tarfile.RECORDSIZE == 0
    for key, members in places.items():
        assert {e: data[at : at + size] for e, (at, size) in members.items()} == SAMPLES[key]
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        about = archive.getmembers()
    assert {(one.mtime, one.uid, one.gid, one.uname, one.gname, one.mode) for one in about} == {
        (0, 0, 0, "", "", 0o644)
    }
    assert [one.name for one in about if one.pax_headers] == [f"{'d' * 120}.seg.png", "größe.txt"]


def test_the_bytes_are_fixed() -> None:
    """A tar of another release, or another machine, has the same hash: values and pointers stay."""
    data, _ = packed(SAMPLES)
    assert hashlib.sha256(data).hexdigest() == "b8a8c81908c270be32a25ac984c13eb9381a050eef2a7594f1f544f5161a680d"


def test_a_plain_tar_is_what_tarfile_writes_as_ustar() -> None:
    plain = {key: SAMPLES[key] for key in ("a", "sub/b")}
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for key, members in plain.items():
            for extension, content in members.items():
                about = tarfile.TarInfo(f"{key}.{extension}")
                about.size = len(content)
                archive.addfile(about, io.BytesIO(content))
    assert packed(plain)[0] == expected.getvalue()


@given(st.text(st.sampled_from("ab/é"), min_size=1, max_size=120), st.integers(0, 3000))
def test_headers_are_those_of_tarfile(name: str, size: int) -> None:
    out = io.BytesIO()
    key = name.replace("/", "x")
    TarWriter(out).add(key, {"bin": bytes(size)})
    about = tarfile.TarInfo(f"{key}.bin")
    about.size = size
    header = about.tobuf(tarfile.PAX_FORMAT, "utf-8")
    assert out.getvalue()[: len(header)] == header


NAMES = st.text(st.sampled_from("ab._/- ~é\0\n"), max_size=8)


@given(NAMES)
def test_a_key_is_given_back_or_refused(key: str) -> None:
    try:
        check_key(key)
    except InvalidName:
        return
    data, _ = packed({key: {"a.jpg": b"1", "txt": b"2"}, "other": {"txt": b"3"}} if key != "other" else {})
    assert webdataset(data) == [(key, {"a.jpg": b"1", "txt": b"2"}), ("other", {"txt": b"3"})]


@pytest.mark.parametrize(
    "key", ["", "a.b", "/a", "../a", "a/../b", ".a", "x/.a", "__meta__", "__meta__/a", "a/", "a\0b"]
)
def test_keys_that_readers_would_take_for_others_are_refused(key: str) -> None:
    with pytest.raises(InvalidName, match="no key of a sample"):
        TarWriter(io.BytesIO()).add(key, {"txt": b""})


@pytest.mark.parametrize("extension", ["", "JPG", ".jpg", "jpg.", "a/b", "a..b", "j\n"])
def test_extensions_that_readers_would_take_for_others_are_refused(extension: str) -> None:
    tar = TarWriter(io.BytesIO())
    with pytest.raises(InvalidName, match="no extension of a member"):
        tar.add("a", {"jpg": b"", extension: b""})
    assert tar.size == tar.samples == 0


def test_a_key_comes_once() -> None:
    tar = TarWriter(io.BytesIO())
    tar.add("a", {"txt": b""})
    with pytest.raises(InvalidName, match="'a' comes twice"):
        tar.add("a", {"jpg": b""})


def test_pointers_lead_to_the_bytes(tmp_path: Path) -> None:
    uri = str(tmp_path / "made" / "00000.tar")
    with writing_tar(uri) as tar:
        places = tar.add("0001", {"jpg": b"picture", "txt": b"words"})
        assert not Path(uri).exists()
    assert store().read(uri, *places["jpg"]) == b"picture"
    (row,) = rows(open_source(str(tmp_path / "made")))
    assert (row["key"], row["caption"], row["image"]) == ("0001", "words", {"uri": uri, "offset": 512, "size": 7})


def test_an_error_leaves_nothing_and_what_was_there(tmp_path: Path) -> None:
    uri = tmp_path / "a.tar"
    uri.write_bytes(b"before")
    with pytest.raises(KeyError):
        broken_off(str(uri))
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]
    assert uri.read_bytes() == b"before"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="file/a.tar"), writing_tar(str(tmp_path / "file" / "a.tar")):
        pass


@pytest.mark.parametrize("size", [100, 11 * 2**20])
def test_on_s3_it_is_one_object_at_the_end(s3: Bucket, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3fs import core

    monkeypatch.setattr(core, "calculate_chunksize", lambda *_, **__: 5 * 2**20)
    with writing_tar(f"{s3.uri}/made/00000.tar") as tar:
        at, _ = tar.add("a", {"jpg": b"y" * size})["jpg"]
        assert "Contents" not in s3.client.list_objects_v2(Bucket=s3.name)
    found = s3.client.get_object(Bucket=s3.name, Key="made/00000.tar")
    assert found["Body"].read()[at : at + size] == b"y" * size
    assert ("-" in found["ETag"]) == (size > 10 * 2**20)  # of several parts
    assert list((settings().cache / "uploads").iterdir()) == leftovers(settings().cache / "uploads") == []


def test_on_s3_nothing_is_there_after_an_error(s3: Bucket) -> None:
    with pytest.raises(KeyError):
        broken_off(f"{s3.uri}/made/00000.tar")
    assert "Contents" not in s3.client.list_objects_v2(Bucket=s3.name)
    with pytest.raises(StoreError, match="s3://nowhere"), writing_tar("s3://nowhere/a.tar"):
        pass
    assert [bucket["Name"] for bucket in s3.client.list_buckets()["Buckets"]] == ["shards"]
