"""S3 through s3fs's client: streamed bodies, several ranges at once, and every read pinned to an etag by `If-Match`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from factory_lib.storage import retry
from factory_lib.storage.fast import FastReads, Unserved, fast_reads
from factory_lib.storage.files import ChangedError
from factory_lib.storage.remote import RemoteFiles
from factory_lib.storage.retry import Patience, error_code, http_status, is_expired, patience_seconds, with_retries

T = TypeVar("T")

AT_ONCE = 8
"""Range requests in flight for one call."""
PART_BYTES = 8 * 2**20
"""A longer range is fetched as several parts at once."""


def s3_options(configured: dict[str, Any]) -> dict[str, Any]:
    """Options for `S3FileSystem` that leave retries to us: otherwise three layers of them multiply.

    Args:
        configured: what the user's fsspec configuration says for ``s3``; its other settings are kept.
    """
    config = dict(configured.get("config_kwargs") or {})
    config.setdefault("retries", {"total_max_attempts": 1})
    config.setdefault("max_pool_connections", 4 * AT_ONCE)
    return {"config_kwargs": config}


class S3Files(RemoteFiles):
    """Storage backend for ``s3://bucket/key``; endpoint and credentials from AWS_* variables or fsspec's config."""

    def __init__(self, filesystem: Any) -> None:
        super().__init__(filesystem)
        filesystem.retries = 1
        self._fast: dict[str, FastReads | None] = {}

    def stream(self, uri: str, offset: int, chunk_size: int, etag: str | None) -> Iterator[bytes]:
        """One GET whose body is read chunk by chunk; the next chunk loads while the caller works on this one.

        Memory is bounded by two chunks. A body that breaks is taken up again where it broke, pinned to the etag of the
        first answer, so that two objects are never spliced together.
        """
        body: Any = None
        patience = Patience()
        pending: Any = None
        try:
            while True:
                try:
                    if body is None:
                        body, etag = self._run(self._open(uri, offset, etag))
                        pending = self._run(_begun(_fill(body, chunk_size)))
                    chunk: bytes = self._run(_awaited(pending))
                except Exception as error:
                    wait = patience.after(error)
                    self._start(_ended(pending, body))
                    body = pending = None
                    time.sleep(wait)
                    self._renew(error)
                    continue
                if not chunk:
                    return
                pending = self._run(_begun(_fill(body, chunk_size)))
                offset += len(chunk)
                patience = Patience()
                yield chunk
        finally:
            self._start(_ended(pending, body))

    def spans(self, uri: str, spans: Sequence[tuple[int, int | None]], etag: str | None) -> list[bytes | memoryview]:
        """Fetch each (start, end) by range requests, `AT_ONCE` at a time."""
        parts = [list(_parts(start, end)) for start, end in spans]
        every = [part for pieces in parts for part in pieces]
        done = self._fetch_fast(uri, every, etag)
        if done is None:
            done = self._run(self._fetch_all(uri, every, etag))
        left = iter(done)
        return [next(left) if len(pieces) == 1 else b"".join(next(left) for _ in pieces) for pieces in parts]

    def _fetch_fast(
        self, uri: str, parts: Sequence[tuple[int, int | None]], etag: str | None
    ) -> Sequence[bytes | memoryview] | None:
        """The bytes by obstore; None where it is not there or cannot serve this bucket."""
        bucket, key, version = self.filesystem.split_path(uri)
        fast = None if version else self._fast_reads(bucket)
        if fast is None:
            return None

        seconds = patience_seconds()  # of this task: threads of a pool know nothing of it

        def read(start: int, end: int | None) -> memoryview | None:
            now = self._fast_reads(bucket)  # another one after its credentials were renewed
            if now is None:
                raise Unserved
            return now.read(key, start, end, etag)

        def fetch(part: tuple[int, int | None]) -> memoryview:
            data = with_retries(lambda: read(*part), seconds=seconds, failed=self._renew)
            if data is None:
                raise ChangedError(uri)
            return data

        try:
            if len(parts) == 1:
                return [fetch(parts[0])]
            with ThreadPoolExecutor(AT_ONCE) as pool:
                return list(pool.map(fetch, parts))
        except Unserved:
            self._fast[bucket] = None
            return None

    def _fast_reads(self, bucket: str) -> FastReads | None:
        if bucket not in self._fast:
            self._run(self.filesystem.set_session())
            self._fast[bucket] = fast_reads(self.filesystem, bucket)
        return self._fast[bucket]

    async def _fetch_all(
        self, uri: str, parts: Sequence[tuple[int, int | None]], etag: str | None
    ) -> Sequence[bytes | memoryview]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def fetch(start: int, end: int | None) -> bytes:
            async with gate:
                return await self._fetch(uri, start, end, etag)

        tasks = [asyncio.ensure_future(fetch(start, end)) for start, end in parts]
        try:
            return await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)  # or their errors are reported when nobody can help
            raise

    async def _fetch(self, uri: str, start: int, end: int | None, etag: str | None) -> bytes:
        patience = Patience()
        while True:
            body: Any = None
            try:
                body, _ = await self._open(uri, start, etag, end)
                data: bytes = await asyncio.wait_for(body.read(), retry.SLOW_SECONDS)
                return data
            except Exception as error:
                wait, expired = patience.after(error), is_expired(error)
            finally:
                _close(body)
            await asyncio.sleep(wait)
            if expired:
                await self._renewed()

    async def _open(self, uri: str, start: int, etag: str | None, end: int | None = None) -> tuple[Any, str]:
        """Send one GET; returns its body and the etag of what it reads."""
        bucket, key, version = self.filesystem.split_path(uri)
        request: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if version:
            request["VersionId"] = version
        if etag:
            request["IfMatch"] = f'"{etag}"'
        if start or end is not None:
            request["Range"] = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
        try:
            answer = await self.filesystem._call_s3("get_object", **request)
        except Exception as error:
            if http_status(error) == 412 or error_code(error) in {"412", "PreconditionFailed"}:
                raise ChangedError(uri) from error
            if http_status(error) == 416:  # starts at or after the end
                return _Nothing(), etag or ""
            raise
        found = str(answer.get("ETag", "")).strip('"')
        if etag and found and found != etag:  # a store that ignores If-Match
            _close(answer["Body"])
            raise ChangedError(uri)
        return answer["Body"], found

    def create(self, uri: str, data: bytes) -> bool:
        """Put one object with ``If-None-Match: *``; a store that ignores it may tell two writers that they wrote."""
        return self._put(uri, data, IfNoneMatch="*")

    def replace(self, uri: str, data: bytes, etag: str) -> bool:
        """Put one object with ``If-Match``."""
        return self._put(uri, data, IfMatch=f'"{etag}"')

    def _put(self, uri: str, data: bytes, **condition: str) -> bool:
        """Put one object on a condition; whether it holds."""
        bucket, key, _ = self.filesystem.split_path(uri)
        request = {"Bucket": bucket, "Key": key, "Body": data, **condition}
        try:
            self._retried(lambda: self._run(self.filesystem._call_s3("put_object", **request)))
        except Exception as error:
            if http_status(error) in {409, 412} or error_code(error) in {"412", "PreconditionFailed", "NoSuchKey"}:
                return False
            raise
        return True

    def address(self) -> tuple[str, str]:
        """The server's URL, and the region that requests are signed for."""
        self._run(self.filesystem.set_session())
        client = self.filesystem._s3
        return str(client.meta.endpoint_url), str(client.meta.region_name or "us-east-1")

    def _make_folder(self, path: str) -> None:
        """Keys need no folders, and a bucket that is not there is a mistake: none is made."""

    def _renew(self, error: Exception) -> None:
        """After an error that says that the credentials expired, take them from where they come from again."""
        if is_expired(error):
            self._run(self._renewed())

    async def _renewed(self) -> None:
        self._fast.clear()
        session = self.filesystem.session
        if session is not None:
            session._credentials = None  # a session keeps the first ones it found
        await self.filesystem.set_session(refresh=True)

    def _retried(self, request: Callable[[], T]) -> T:
        return with_retries(request, failed=self._renew)

    def _start(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.filesystem.loop)

    def _run(self, coroutine: Any) -> Any:
        return self._start(coroutine).result()


class _Nothing:
    """The body of a read that starts at or after the end of the object."""

    async def read(self, size: int | None = None) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing to close."""


async def _fill(body: Any, size: int) -> bytes:
    """Read until `size` bytes are there or the body ends: one read returns whatever has arrived."""
    parts: list[bytes] = []
    missing = size
    while missing > 0 and (data := await asyncio.wait_for(body.read(missing), retry.SLOW_SECONDS)):
        parts.append(data)
        missing -= len(data)
    return b"".join(parts)


async def _begun(work: Coroutine[Any, Any, bytes]) -> asyncio.Task[bytes]:
    """Start something in the loop of whoever awaits this."""
    return asyncio.ensure_future(work)


async def _awaited(task: asyncio.Task[bytes]) -> bytes:
    return await task


async def _ended(task: asyncio.Task[bytes] | None, body: Any) -> None:
    """Stop a read that nobody waits for any more, then close what it reads: in the other order it fails unheard."""
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    _close(body)


def _parts(start: int, end: int | None) -> Iterator[tuple[int, int | None]]:
    if end is None or end - start <= PART_BYTES:
        yield start, end
        return
    for first in range(start, end, PART_BYTES):
        yield first, min(first + PART_BYTES, end)


def _close(body: Any) -> None:
    if body is not None:
        body.close()
