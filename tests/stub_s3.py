"""A small S3 with the faults and the slowness of a real one: latency, bandwidth, 503s, connections reset in the middle
and answers that never end.

`StubS3` runs it in a process of its own and serves a folder as the bucket ``stub``: GET with Range and If-Match, HEAD,
PUT with If-None-Match, DELETE of one object and of many, and lists of keys.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import httpx

PIECE = 256 << 10


class StubS3:
    """The server as a context manager.

    Args:
        folder: that is served.
        latency: seconds before each answer.
        bandwidth: bytes per second of all answers together.
        faults: shares of GETs that are `unavailable` (503), or of whose answer half is sent, before a `reset` or a
            `stall`: then nothing more comes; `expired=1` refuses everybody's credentials.
    """

    def __init__(self, folder: Path, *, latency: float = 0.0, bandwidth: float = 1e12, **faults: float) -> None:
        numbers = {"latency": latency, "bandwidth": bandwidth, **faults}
        options = [f"--{name}={value}" for name, value in numbers.items()]
        self._command = [sys.executable, "-m", "tests.stub_s3", str(folder), *options]

    def __enter__(self) -> StubS3:
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).resolve().parents[1]
        )
        assert self._process.stdout is not None
        self.endpoint = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make ``s3://stub/…`` reach it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing-secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def counters(self) -> dict[str, float]:
        """Since the last call: requests, bytes sent, 503s, resets, and the clock when the first one came."""
        return dict(httpx.get(f"{self.endpoint}/-/counters", trust_env=False).json())


class _Server:
    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.folder = Path(options.folder)
        self.counters: Counter[str] = Counter()
        self.free_at = 0.0
        self.random = random.Random(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                method, target, _ = head[0].split(" ", 2)
                fields = dict(line.split(": ", 1) for line in head[1:] if line)
                headers = {name.lower(): value for name, value in fields.items()}
                if headers.get("expect"):
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                split = urlsplit(target)
                asked = {name: values[0] for name, values in parse_qs(split.query, keep_blank_values=True).items()}
                await self.answer(writer, method, unquote(split.path), asked, headers, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(
        self,
        writer: asyncio.StreamWriter,
        method: str,
        target: str,
        asked: dict[str, str],
        headers: dict[str, str],
        body: bytes,
    ) -> None:
        if target == "/-/counters":
            text = str(dict(self.counters)).replace("'", '"').encode()
            self.counters.clear()
            return self.send(writer, 200, {}, text)
        self.counters["requests"] += 1
        self.counters.setdefault("began", time.monotonic())
        await asyncio.sleep(self.options.latency)
        if self.options.expired and method != "HEAD":
            return self.send(writer, 400, {}, _error("ExpiredToken"))
        if "list-type" in asked or "prefix" in asked:
            return self.send(writer, 200, {}, self.listed(asked).encode())
        if method == "POST" and "delete" in asked:
            for key in re.findall(r"<Key>([^<]*)</Key>", body.decode()):
                (self.folder / unescape(key)).unlink(missing_ok=True)
            return self.send(writer, 200, {}, b"<DeleteResult></DeleteResult>")
        path = self.folder / target.removeprefix("/stub/")
        if method == "PUT":
            return self.put(writer, path, headers, body)
        if method == "DELETE":
            path.unlink(missing_ok=True)
            return self.send(writer, 204, {}, b"")
        if not path.is_file():
            return self.send(writer, 404, {}, _error("NoSuchKey") if method == "GET" else b"")
        status = path.stat()
        etag = f'"{hashlib.md5(f"{status.st_mtime_ns}{status.st_size}".encode()).hexdigest()}"'
        about = {"ETag": etag, "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", "Accept-Ranges": "bytes"}
        if method == "HEAD":
            return self.send(writer, 200, {**about, "Content-Length": str(status.st_size)}, b"")
        if headers.get("if-match", etag) != etag:
            return self.send(writer, 412, {}, _error("PreconditionFailed"))
        return await self.get(writer, path, status.st_size, about, headers.get("range"))

    async def get(
        self, writer: asyncio.StreamWriter, path: Path, size: int, about: dict[str, str], wanted: str | None
    ) -> None:
        luck = self.random.random()
        if luck < self.options.unavailable:
            self.counters["unavailable"] += 1
            return self.send(writer, 503, {}, _error("SlowDown"))
        start, stop, code = 0, size, 200
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, stop, code = int(first), min(int(last) + 1, size) if last else size, 206
            if start >= size:
                return self.send(writer, 416, {}, _error("InvalidRange"))
            about["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        with path.open("rb") as file:
            data = os.pread(file.fileno(), stop - start, start)
        reset = luck < self.options.unavailable + self.options.reset
        stall = not reset and luck < self.options.unavailable + self.options.reset + self.options.stall
        writer.write(_head(code, {**about, "Content-Length": str(len(data))}))
        for at in range(0, len(data) // 2 if reset or stall else len(data), PIECE):
            piece = data[at : at + PIECE]
            now = asyncio.get_running_loop().time()
            self.free_at = max(self.free_at, now) + len(piece) / self.options.bandwidth
            await asyncio.sleep(self.free_at - now)
            writer.write(piece)
            self.counters["bytes"] += len(piece)
            await writer.drain()
        if stall:
            self.counters["stalls"] += 1
            await asyncio.sleep(3600)
        if reset:
            self.counters["resets"] += 1
            writer.transport.abort()
            raise ConnectionResetError
        return None

    def listed(self, asked: dict[str, str]) -> str:
        """Keys with a prefix, and what they have in common up to a delimiter, all on one page."""
        prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
        keys: list[tuple[str, str]] = []
        common: list[str] = []
        for folder, folders, names in os.walk(self.folder / prefix.rpartition("/")[0]):
            inside = f"{folder}/".removeprefix(f"{self.folder}/")
            keys += [(f"{inside}{name}", os.path.join(folder, name)) for name in names]
            if delimiter:
                common = sorted(key for name in folders if (key := f"{inside}{name}/").startswith(prefix))
                folders.clear()
        found = [(key, os.path.getsize(path)) for key, path in sorted(keys) if key.startswith(prefix)]
        contents = "".join(
            f'<Contents><Key>{escape(key)}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>"x"</ETag>'
            f"<Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key, size in found
        )
        prefixes = "".join(f"<CommonPrefixes><Prefix>{escape(one)}</Prefix></CommonPrefixes>" for one in common)
        return (
            "<?xml version='1.0'?><ListBucketResult xmlns='http://s3.amazonaws.com/doc/2006-03-01/'><Name>stub</Name>"
            f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{len(found)}</KeyCount><MaxKeys>1000000</MaxKeys>"
            f"<IsTruncated>false</IsTruncated>{contents}{prefixes}</ListBucketResult>"
        )

    def put(self, writer: asyncio.StreamWriter, path: Path, headers: dict[str, str], body: bytes) -> None:
        if headers.get("if-none-match") == "*" and path.exists():
            return self.send(writer, 412, {}, _error("PreconditionFailed"))
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".new")
        beside.write_bytes(body)
        beside.replace(path)
        return self.send(writer, 200, {"ETag": '"new"'}, b"")

    def send(self, writer: asyncio.StreamWriter, code: int, headers: dict[str, str], body: bytes) -> None:
        writer.write(_head(code, {"Content-Length": str(len(body)), **headers}) + body)


def _head(code: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {code} -", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


def _error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


async def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    for name in ("latency", "bandwidth", "unavailable", "reset", "stall", "expired"):
        parser.add_argument(f"--{name}", type=float, default=0.0)
    server = _Server(parser.parse_args())
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=1 << 20)
    print(listening.sockets[0].getsockname()[1], flush=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main())
