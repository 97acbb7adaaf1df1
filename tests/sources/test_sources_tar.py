"""Tar headers, held against Python's tarfile."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_lib.errors import FileChanged, SourceError
from factory_lib.sources import tar as tar_module
from factory_lib.sources.tar import TarReader
from factory_lib.storage.store import store
from tests.s3 import Bucket, Relay

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)


@dataclass
class Pass:
    """What one pass over a tar gave."""

    members: list[tuple[str, int, int]]
    contents: list[bytes | None]
    problems: list[str]
    damaged: bool
    links: int


def scan(path: Path | str) -> Pass:
    """Read a tar with our reader."""
    problems: list[str] = []
    reader = TarReader(store(), store().info(str(path)), problems.append)
    members: list[tuple[str, int, int]] = []
    contents: list[bytes | None] = []
    for block in reader.blocks():
        rows = range(len(block.names))
        members += zip(block.names.to_pylist(), block.offsets.tolist(), block.sizes.tolist(), strict=True)
        contents += block.payloads(tar_module.np.array(rows, dtype="int64"))
    return Pass(members, contents, problems, reader.damaged, reader.links)


def reference(path: Path) -> list[tuple[str, int, int]]:
    """Regular members as tarfile sees them."""
    with tarfile.open(path, "r:") as archive:
        return [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]


def write(
    path: Path, entries: Sequence[tuple[str, bytes]], format: int = tarfile.USTAR_FORMAT, **fields: object
) -> Path:
    """Write a tar with tarfile."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, data in entries:
            add(archive, name, data, **fields)
    return path


def add(archive: tarfile.TarFile, name: str, data: bytes = b"", **fields: object) -> None:
    about = tarfile.TarInfo(name)
    about.size = len(data)
    for field, value in fields.items():
        setattr(about, field, value)
    archive.addfile(about, io.BytesIO(data))


SEGMENT = st.text("abcdefgh.-_ 0123456789", min_size=1, max_size=60).filter(
    lambda text: text.strip(".") and text.strip()
)
UNICODE = st.text("aé中🙂 .-\u0301ß", min_size=1, max_size=60).filter(lambda text: text.strip(". "))
CONTENT = st.one_of(st.just(b""), st.binary(max_size=700), st.sampled_from([b"x" * 511, b"x" * 512, b"y" * 513]))


@FILES
@given(
    st.lists(st.tuples(st.lists(SEGMENT, min_size=1, max_size=2), CONTENT), max_size=12),
    st.sampled_from(sorted(FORMATS)),
)
def test_members_are_those_of_tarfile(tmp_path: Path, entries: list[tuple[list[str], bytes]], format: str) -> None:
    path = write(tmp_path / "a.tar", [("/".join(parts), data) for parts, data in entries], FORMATS[format])
    found = scan(path)
    assert found.members == reference(path)
    assert found.contents == [data for _, data in entries]
    assert (found.problems, found.damaged) == ([], False)


@FILES
@given(
    st.lists(st.tuples(UNICODE, CONTENT), min_size=1, max_size=6), st.integers(1, 4), st.sampled_from(["gnu", "pax"])
)
def test_long_and_unicode_names(tmp_path: Path, entries: list[tuple[str, bytes]], repeat: int, format: str) -> None:
    # A time with a fraction makes PAX write an extended header for every member.
    path = tmp_path / "a.tar"
    write(path, [("/".join([name] * repeat), data) for name, data in entries], FORMATS[format], mtime=1.25)
    assert scan(path).members == reference(path)


@FILES
@given(
    st.lists(st.binary(max_size=3_000), min_size=1, max_size=8), st.sampled_from([512, 1_024, 1_536, 4_096]), st.data()
)
def test_windows_of_any_size_give_the_same(
    tmp_path: Path, payloads: list[bytes], window: int, data: st.DataObject
) -> None:
    format = data.draw(st.sampled_from(sorted(FORMATS)))
    path = write(tmp_path / "a.tar", [(f"{n}.txt", payload) for n, payload in enumerate(payloads)], FORMATS[format])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tar_module, "LOCAL_WINDOW_BYTES", window)
        patch.setattr(tar_module, "SKIP_BYTES", data.draw(st.sampled_from([0, 600, 10_000])))
        found = scan(path)
    assert found.members == reference(path)
    assert found.contents == payloads


@FILES
@given(st.lists(st.binary(max_size=1_500), min_size=1, max_size=5), st.data())
def test_truncated_anywhere_keeps_what_is_whole(tmp_path: Path, payloads: list[bytes], data: st.DataObject) -> None:
    path = write(tmp_path / "a.tar", [(f"{n}.txt", p) for n, p in enumerate(payloads)], tarfile.PAX_FORMAT, mtime=1.5)
    members = reference(path)
    end = members[-1][1] + -(-members[-1][2] // 512) * 512  # of the last member, before the end marker
    cut = data.draw(st.integers(1, end))
    path.write_bytes(path.read_bytes()[:cut])
    whole = [member for member in members if member[1] + member[2] <= cut]
    if not whole and cut < 512:
        assert scan(path).problems == [f"truncated at offset {cut}: in the middle of the header at 0"]
        return
    found = scan(path)
    assert found.members == whole
    at_a_boundary = any(cut in range(m[1] + m[2], m[1] + -(-m[2] // 512) * 512 + 1) for m in whole)
    if at_a_boundary:
        assert found.problems == [f"no end marker at offset {cut}: the writer may have been interrupted"]
        assert not found.damaged
    elif found.damaged:
        assert found.problems[0].startswith(f"truncated at offset {cut}: ")
    else:  # cut between an extended header and what it extends
        assert found.problems == [f"no end marker at offset {cut}: the writer may have been interrupted"]


@FILES
@given(st.lists(st.binary(max_size=1_200), min_size=2, max_size=5), st.data())
def test_corrupt_header_ends_the_pass(tmp_path: Path, payloads: list[bytes], data: st.DataObject) -> None:
    path = write(tmp_path / "a.tar", [(f"{n}.txt", payload) for n, payload in enumerate(payloads)])
    members = reference(path)
    number = data.draw(st.integers(1, len(members) - 1))
    header = members[number][1] - 512
    # the first digit of a checksum is 0, and what stands behind its digits says nothing: no header is wrong by them
    position = header + data.draw(st.integers(0, 511).filter(lambda at: at not in (148, 154, 155)))
    broken = bytearray(path.read_bytes())
    broken[position] = (broken[position] + data.draw(st.integers(1, 255))) % 256
    path.write_bytes(broken)
    found = scan(path)
    assert found.members == members[:number]
    assert found.damaged
    assert found.problems[0].startswith((f"corrupt header at offset {header}: ", "truncated at offset "))


def test_corrupt_first_header_is_no_tar(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"<html>Not found</html>".ljust(2_048, b" "))
    with pytest.raises(SourceError, match=r"a.tar is not a tar: the checksum of its first header is wrong"):
        scan(path)


def test_directories_links_and_devices_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        add(archive, "folder", type=tarfile.DIRTYPE)
        add(archive, "folder/a.txt", b"one")
        add(archive, "b.txt", type=tarfile.LNKTYPE, linkname="folder/a.txt")
        add(archive, "c.txt", type=tarfile.SYMTYPE, linkname="l" * 300)
        add(archive, "pipe", type=tarfile.FIFOTYPE)
        add(archive, "contiguous.txt", b"two", type=tarfile.CONTTYPE)
        add(archive, "old.txt", b"three", type=tarfile.AREGTYPE)
        add(archive, "olddirectory/", type=tarfile.AREGTYPE)
        add(archive, "last.txt", b"four")
    found = scan(path)
    assert [name for name, _, _ in found.members] == ["folder/a.txt", "contiguous.txt", "old.txt", "last.txt"]
    assert found.contents == [b"one", b"two", b"three", b"four"]
    assert found.links == 2


def test_unknown_types_are_left_out_with_their_payload(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        add(archive, "volume", b"z" * 700, type=b"V")
        add(archive, "a.txt", b"one")
    assert scan(path).contents == [b"one"]


def test_base_256_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [("a.bin", b"x" * 1_000), ("b.bin", b"y")])
    raw = bytearray(path.read_bytes())
    raw[124:136] = b"\x80" + (1_000).to_bytes(11, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    path.write_bytes(raw)
    assert scan(path).members == reference(path) == [("a.bin", 512, 1_000), ("b.bin", 2_048, 1)]


@pytest.mark.parametrize("terminator", [b"\0", b" ", b"7"])
def test_size_fields_as_writers_write_them(tmp_path: Path, terminator: bytes) -> None:
    path = write(tmp_path / "a.tar", [("a.bin", b"x" * 0o17)])
    raw = bytearray(path.read_bytes())
    raw[124:136] = b"00000000017" + terminator if terminator != b"7" else b"000000000017"
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    path.write_bytes(raw)
    assert scan(path).members == [("a.bin", 512, 0o17)]


def test_checksum_of_signed_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [("é.txt", b"x")], tarfile.GNU_FORMAT)
    raw = bytearray(path.read_bytes())
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(byte - 256 if byte > 127 else byte for byte in raw[:512])
    path.write_bytes(raw)
    assert scan(path).members == reference(path) == [("é.txt", 512, 1)]


def test_name_that_is_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as archive:
        add(archive, "caf\xe9.txt", b"x")
    assert scan(path).members == [("caf\\xe9.txt", 512, 1)]


def test_pax_size_and_global_header(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "size= path="}) as archive:
        add(archive, "a.txt", b"one", pax_headers={"size": "3"})
        add(archive, "b.txt", b"two", pax_headers={"path": "renamed/b.txt"})
    assert scan(path).members == reference(path)
    assert [name for name, _, _ in scan(path).members] == ["a.txt", "renamed/b.txt"]


def test_pax_size_replaces_that_of_the_header(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    record = b"12 size=600\n"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        add(archive, "x", record, type=tarfile.XHDTYPE)
        add(archive, "a.bin", b"x" * 600)
        add(archive, "b.bin", b"y")
    raw = bytearray(path.read_bytes())
    raw[1_024 + 124 : 1_024 + 136] = b"00000000000\0"
    raw[1_024 + 148 : 1_024 + 156] = b" " * 8
    raw[1_024 + 148 : 1_024 + 156] = b"%06o\0 " % sum(raw[1_024:1_536])
    path.write_bytes(raw)
    assert scan(path).members == reference(path) == [("a.bin", 1_536, 600), ("b.bin", 3_072, 1)]


@pytest.mark.parametrize(
    "flavour",
    [["--format=gnu"], ["--format=posix", "--sparse-version=1.0"], ["--format=posix", "--sparse-version=0.1"]],
)
def test_sparse_members_are_refused_and_said(tmp_path: Path, flavour: list[str]) -> None:
    sparse = tmp_path / "sparse.bin"
    with sparse.open("wb") as file:
        for place in range(40):
            file.seek(place * 1_000_000)
            file.write(b"data" * 300)
        file.truncate(50_000_000)
    (tmp_path / "z.txt").write_bytes(b"after")
    subprocess.run(
        ["tar", "-C", tmp_path, *flavour, "--sparse", "-cf", tmp_path / "a.tar", "sparse.bin", "z.txt"], check=True
    )
    found = scan(tmp_path / "a.tar")
    assert [name for name, _, _ in found.members] == ["z.txt"]
    assert found.contents == [b"after"]
    assert [problem.split(" at offset")[0] for problem in found.problems] == ["sparse member 'sparse.bin'"]


@pytest.mark.parametrize("format", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_archives_of_gnu_tar(tmp_path: Path, format: str) -> None:
    folder = tmp_path / "in" / ("d" * 60)
    folder.mkdir(parents=True)
    for name in ("a.txt", "b" * 30 + ".json", "c.jpg"):
        (folder / name).write_bytes(name.encode() * 50)
    subprocess.run(["tar", "-C", tmp_path / "in", f"--format={format}", "-cf", tmp_path / "a.tar", "."], check=True)
    assert scan(tmp_path / "a.tar").members == reference(tmp_path / "a.tar")
    assert len(scan(tmp_path / "a.tar").members) == 3


def test_concatenated_archives_are_read_to_the_end(tmp_path: Path) -> None:
    one = write(tmp_path / "1.tar", [("a.txt", b"one")]).read_bytes()
    two = write(tmp_path / "2.tar", [("b.txt", b"two")]).read_bytes()
    path = tmp_path / "a.tar"
    path.write_bytes(one + two)
    found = scan(path)
    assert found.members == [("a.txt", 512, 3), ("b.txt", len(one) + 512, 3)]
    assert found.problems == [f"goes on at offset {len(one)}, behind an end marker: concatenated tars, read to the end"]
    assert not found.damaged


def test_garbage_behind_the_end_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [("a.txt", b"one")])
    length = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"garbage" * 200)
    found = scan(path)
    assert found.members == [("a.txt", 512, 3)]
    assert found.problems == [f"1400 bytes at offset {length}, behind the end of the tar, are no tar"]


def test_missing_end_marker_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [("a.txt", b"one")])
    path.write_bytes(path.read_bytes()[:1_024])
    assert scan(path).problems == ["no end marker at offset 1024: the writer may have been interrupted"]


def test_tar_in_a_tar_is_one_member(tmp_path: Path) -> None:
    inner = write(tmp_path / "inner.tar", [(f"{n}.jpg", b"picture" * 100) for n in range(20)]).read_bytes()
    path = write(tmp_path / "a.tar", [("a.jpg", b"one"), ("nested.tar", inner), ("b.jpg", b"two")])
    assert [name for name, _, _ in scan(path).members] == ["a.jpg", "nested.tar", "b.jpg"]


@pytest.mark.parametrize(
    ("compress", "said"),
    [
        (gzip.compress, "gzip.*gzip -d"),
        (bz2.compress, "bzip2.*bzip2 -d"),
        (lzma.compress, "xz.*xz -d"),
        (zstandard.ZstdCompressor().compress, "zstandard.*zstd -d"),
    ],
)
def test_compressed_tars_are_known_by_their_first_bytes(
    tmp_path: Path, compress: Callable[[bytes], bytes], said: str
) -> None:
    path = write(tmp_path / "a.tar", [("a.txt", b"one")])
    path.write_bytes(compress(path.read_bytes()))
    with pytest.raises(SourceError, match=rf"a.tar is compressed with {said}"):
        scan(path)


def test_empty_file_and_empty_archive(tmp_path: Path) -> None:
    (tmp_path / "zero.tar").write_bytes(b"")
    with pytest.raises(SourceError, match=r"zero.tar is empty \(0 bytes\)"):
        scan(tmp_path / "zero.tar")
    found = scan(write(tmp_path / "none.tar", []))
    assert (found.members, found.problems, found.damaged) == ([], [], False)


def test_large_members_are_skipped_by_a_new_request(s3: Bucket, relay: Relay, tmp_path: Path) -> None:
    film = b"f" * (9 * 2**20)
    path = write(tmp_path / "a.tar", [("a.mp4", film), ("a.txt", b"one"), ("b.mp4", film), ("b.txt", b"two")])
    uri = s3.put("a.tar", path.read_bytes())
    expected = reference(path)
    found = scan(uri)
    assert found.members == expected
    assert found.contents == [None, b"one", None, b"two"]
    headers = [expected[1][1] - 512, expected[3][1] - 512]
    assert relay.gets == ["", *(f"bytes={header}-" for header in headers)]


def test_small_members_come_by_one_request(s3: Bucket, relay: Relay, tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [(f"{n}.jpg", bytes([n]) * 60_000) for n in range(100)])
    assert scan(s3.put("a.tar", path.read_bytes())).members == reference(path)
    assert relay.gets == [""]


def test_tar_overwritten_after_it_was_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", [("a.txt", b"one")])
    file = store().info(str(path))
    write(path, [("b.txt", b"three")])
    with pytest.raises(FileChanged, match="overwritten"):
        list(TarReader(store(), file, lambda message: None).blocks())
