"""Servers that are no object store: FTP and HTTP, each read as what it is and none as another."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from factory_lib.errors import FileChanged, FileMissing
from factory_lib.storage.store import store
from tests.ftp import serve_ftp
from tests.s3 import Bucket, Relay
from tests.web import Quiet, Ranged, serve_http


def test_two_ftp_servers_give_each_its_own_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name / "pool").mkdir(parents=True)
        (tmp_path / name / "pool" / "a.tar").write_bytes(name.encode() * 1000)
    (tmp_path / "two" / "pool" / "b.tar").write_bytes(b"b")
    with serve_ftp(tmp_path / "one") as one, serve_ftp(tmp_path / "two") as two:
        assert [file.uri for file in store().list(f"{one}/pool")] == [f"{one}/pool/a.tar"]
        assert [file.uri for file in store().list(f"{two}/pool")] == [f"{two}/pool/a.tar", f"{two}/pool/b.tar"]
        for uri, name in ((one, b"one"), (two, b"two")):
            listed = store().list(f"{uri}/pool")[0]
            assert store().info(listed.uri) == listed
            assert store().read(listed.uri, 3, 6, etag=listed.etag) == name * 2
            assert b"".join(store().chunks(listed.uri, 1000)) == name * 1000


def test_a_new_file_on_a_server_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with serve_ftp(tmp_path) as uri:
        assert len(store().list(uri + "/")) == 1
        (tmp_path / "b").write_bytes(b"b")
        assert len(store().list(uri + "/")) == 2


def test_threads_take_turns_on_the_one_connection_of_ftp(tmp_path: Path) -> None:
    contents = {f"{n}.bin": os.urandom(50_000) for n in range(6)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    found: dict[str, bytes] = {}
    with serve_ftp(tmp_path) as uri:
        threads = [
            threading.Thread(target=lambda name=name: found.update({name: store().read(f"{uri}/{name}")}))
            for name in contents
        ]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
    assert found == contents


class Unmeasured(Quiet):
    """Bodies of files without a length, as servers that make them on the way send them; with ranges if asked to."""

    ranges = False

    def do_HEAD(self) -> None:  # noqa: N802
        if Path(self.translate_path(self.path)).is_dir():
            super().do_HEAD()
            return
        self.send_response(200)
        self.end_headers()

    def do_GET(self) -> None:  # noqa: N802
        path, wanted = Path(self.translate_path(self.path)), self.headers.get("Range", "")
        if path.is_dir():
            super().do_GET()
            return
        data = path.read_bytes()
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        if wanted and self.ranges:
            part = data[int(first) : int(last) + 1 if last else None]
            self.send_response(206 if part else 416)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}" if part else f"bytes */{len(data)}")
            data = part
        else:
            self.send_response(200)
        self.end_headers()
        with suppress(ConnectionError):  # who counts the bytes of a range may not want the rest
            self.wfile.write(data)


@pytest.mark.parametrize("ranges", [False, True])
def test_files_of_which_the_server_does_not_say_how_large_they_are(tmp_path: Path, ranges: bool) -> None:
    contents = {"a.bin": os.urandom(200_000), "empty.bin": b"", "one.bin": b"1"}
    for name, data in contents.items():
        (tmp_path / name).write_bytes(data)
    with serve_http(tmp_path, type("Handler", (Unmeasured,), {"ranges": ranges})) as url:
        files = store().list(url)
        assert {file.uri.rsplit("/", 1)[1]: file.size for file in files} == {n: len(d) for n, d in contents.items()}
        for file in files:
            assert store().read(file.uri, etag=file.etag) == contents[file.uri.rsplit("/", 1)[1]]


PAGE = """<html><body>
<a href="?C=N;O=D">Name</a><a href="../">Parent</a><a href="http://[no address">x</a><a href="mailto:a@b.c">m</a>
<a HREF='./0.jpg'>0</a><A href=1.jpg>1</A><a href="/pics/2.jpg">2</a><a href="{url}/pics/3.jpg">3</a>
<a href=" 4.jpg ">4</a><a href="5.jpg#top">5</a><a href="sub/../6.jpg">6</a><a href="7&amp;8.jpg">7</a>
<a href="/other.jpg">no</a><a href="//example.invalid/pics/9.jpg">no</a><a>none</a><a href="">itself</a></body></html>"""


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/xhtml+xml"])
def test_links_of_pages_are_what_browsers_make_of_them(tmp_path: Path, kind: str) -> None:
    class Handler(Quiet):
        def do_GET(self) -> None:  # noqa: N802
            if not self.path.endswith("/"):
                super().do_GET()
                return
            page = PAGE.format(url=f"http://{self.headers['Host']}").encode()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(page)

    (tmp_path / "pics").mkdir()
    names = [*(f"{n}.jpg" for n in range(7)), "7&8.jpg"]
    for name in [*(f"pics/{name}" for name in names), "other.jpg"]:
        (tmp_path / name).write_bytes(name.encode())
    with serve_http(tmp_path, Handler) as url:
        found = {store().read(file.uri) for file in store().list(f"{url}/pics")}
    assert found == {f"pics/{name}".encode() for name in names}


@pytest.mark.parametrize("handler", [Quiet, Ranged], ids=["whole files", "ranges"])
def test_index_pages_are_folders(tmp_path: Path, handler: Any) -> None:
    data = os.urandom(300_000)
    (tmp_path / "pool" / "sub folder").mkdir(parents=True)
    (tmp_path / "pool" / "a.tar").write_bytes(data)
    (tmp_path / "pool" / "sub folder" / "b c.tar").write_bytes(b"b")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "no.tar").write_bytes(b"not below")
    with serve_http(tmp_path, handler) as url:
        a, b = store().list(f"{url}/pool")
        assert (a.uri, b.uri) == (f"{url}/pool/a.tar", f"{url}/pool/sub%20folder/b%20c.tar")
        assert (a.size, b.size) == (300_000, 1)
        assert store().list(a.uri) == [store().info(a.uri)] == [a]
        assert store().read(a.uri, 100, 50, etag=a.etag) == data[100:150]
        ranges = [(0, 5), (299_990, 10), (150_000, 3)]
        assert [bytes(view) for view in store().read_ranges(a.uri, ranges, etag=a.etag)] == [
            data[offset : offset + size] for offset, size in ranges
        ]
        assert b"".join(store().chunks(a.uri, 70_000, offset=10, etag=a.etag)) == data[10:]
        assert store().read(b.uri) == b"b"
        with pytest.raises(FileMissing, match=r"Did you mean 'a.tar'"):
            store().info(f"{url}/pool/b.tar")
        os.utime(tmp_path / "pool" / "a.tar", (1, 1))
        with pytest.raises(FileChanged):
            store().read(a.uri, 0, 10, etag=a.etag)


def test_streams_that_are_given_up_end_in_silence(s3: Bucket, relay: Relay) -> None:
    uri = s3.put("a.tar", os.urandom(8 * 2**20))
    next(store().chunks(uri, 2**18))
    heard: list[Any] = []
    from fsspec.asyn import get_loop

    loop: asyncio.AbstractEventLoop = get_loop()
    loop.set_exception_handler(lambda _, about: heard.append(about))
    try:
        for taken in (1, 2, 3, 1, 2, 3):
            stream = store().chunks(uri, 2**18)
            for _ in range(taken):
                next(stream)
            stream.close()  # type: ignore[attr-defined]
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), loop).result()
        gc.collect()
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
    finally:
        loop.set_exception_handler(None)
    assert heard == []
