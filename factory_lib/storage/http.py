"""HTTP servers: index pages as folders, streamed bodies, and ranges also from servers that don't know them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urldefrag, urljoin, urlsplit

from factory_lib.storage import retry
from factory_lib.storage.files import ChangedError, FileInfo
from factory_lib.storage.remote import RemoteFiles, identity_of
from factory_lib.storage.retry import Patience

AT_ONCE = 8
"""Requests in flight for one call."""
MAX_FOLDERS = 100_000
"""Index pages that are followed at most: pages of an application may link to each other for ever."""
_PIECE = 2**16
_PAGES = ("text/html", "application/xhtml+xml")


class HttpFiles(RemoteFiles):
    """Storage backend for ``http://`` and ``https://``.

    A folder is a page of links, as nginx, Apache and Python's `http.server` write them; what it links to below itself
    is in it.
    """

    def info(self, uri: str) -> FileInfo:
        """Describe one file."""
        return self._run(self._again(lambda: self._head(uri)))  # type: ignore[no-any-return]

    def find(self, uri: str, odd: dict[str, str] | None = None) -> list[FileInfo]:
        """All files that the page at `uri`, and pages below it, link to; or the file itself."""
        return self._run(self._find(uri, odd))  # type: ignore[no-any-return]

    def stream(self, uri: str, offset: int, chunk_size: int, etag: str | None) -> Iterator[bytes]:
        """One GET whose body is read chunk by chunk, taken up again where it breaks."""
        body: _AnswerBody | None = None
        patience = Patience()
        try:
            while True:
                try:
                    if body is None:
                        body = self._run(self._open(uri, offset, None, etag))
                        etag = etag or body.identity or None
                    chunk = self._run(body.read(chunk_size))
                except Exception as error:
                    wait = patience.after(error)
                    self._close(body)
                    body = None
                    time.sleep(wait)
                    continue
                if not chunk:
                    return
                offset += len(chunk)
                patience = Patience()
                yield chunk
        finally:
            self._close(body)

    def spans(self, uri: str, spans: Sequence[tuple[int, int | None]], etag: str | None) -> list[bytes | memoryview]:
        """Read each (start, end), `AT_ONCE` at a time."""

        async def fetch_all() -> list[bytes | memoryview]:
            gate = asyncio.Semaphore(AT_ONCE)

            async def fetch(start: int, end: int | None) -> bytes:
                async with gate:
                    return await self._again(lambda: self._fetch(uri, start, end, etag))  # type: ignore[no-any-return]

            return list(await _all(fetch(start, end) for start, end in spans))

        return self._run(fetch_all())  # type: ignore[no-any-return]

    def siblings(self, uri: str) -> list[str]:
        """Names that the page of the folder of `uri` links to."""
        links = self._run(self._links(uri.rsplit("/", 1)[0] + "/"))
        return [link.rstrip("/").rsplit("/", 1)[-1] for link in links or ()]

    async def _find(self, uri: str, odd: dict[str, str] | None) -> list[FileInfo]:
        root = uri.rstrip("/") + "/"
        links = None if urlsplit(uri).query else await self._again(lambda: self._links(root))
        if links is None:
            return [await self._again(lambda: self._head(uri))]
        folders, seen, files = [root], {root}, dict[str, None]()
        while folders:
            folder = folders.pop()
            found = links if folder == root else await self._again(lambda: self._links(folder))  # noqa: B023
            for link in found or ():
                if not link.endswith("/"):
                    files[link] = None
                elif link not in seen:
                    seen.add(link)
                    folders.append(link)
            if len(seen) > MAX_FOLDERS:
                raise OSError(f"its pages link to more than {MAX_FOLDERS} folders")
        gate = asyncio.Semaphore(AT_ONCE)

        async def describe(link: str) -> FileInfo | None:
            async with gate:
                try:
                    return await self._again(lambda: self._head(link))  # type: ignore[no-any-return]
                except (FileNotFoundError, PermissionError) as error:  # of one link that a page has
                    if odd is not None:
                        odd[link] = "a broken link" if isinstance(error, FileNotFoundError) else str(error)
                    return None

        return [found for found in await _all(describe(link) for link in files) if found is not None]

    async def _links(self, folder: str) -> list[str] | None:
        """What an index page links to below itself; None where there is no such page."""
        try:
            body = await self._open(folder, 0, None, None)
        except FileNotFoundError:
            return None
        try:
            if body.kind not in _PAGES or not urldefrag(body.url)[0].endswith("/"):
                return None
            page = await body.read(None)
        finally:
            body.close()
        parser = _Anchors()
        parser.feed(page.decode("utf-8", "replace"))
        # Index pages also link to themselves in another order (?C=M) and to the folder above.
        links = (_target(body.url, link) for link in parser.links if not link.startswith("?"))
        below = (folder + link.removeprefix(body.url) for link in links if link.startswith(body.url))
        return [link for link in dict.fromkeys(below) if link != folder and "?" not in link]

    async def _head(self, uri: str) -> FileInfo:
        session = await self.filesystem.set_session()
        answer = await session.head(uri, allow_redirects=True, headers={"Accept-Encoding": "identity"})
        async with answer:
            status, headers = answer.status, answer.headers
        if status in {403, 405, 501} or (status < 400 and "Content-Length" not in headers):
            body = await self._open(uri, 0, None, None)  # signed URLs are often good for GET alone
            body.close()
            headers = body.answer.headers
        else:
            _raise_for(status, uri, answer)
        size = int(headers["Content-Length"]) if "Content-Length" in headers else await self._measured(uri)
        return FileInfo(uri, size, identity_of(headers) or f"size-{size}")

    async def _measured(self, uri: str) -> int:
        """How large a file is of which the server does not say it: what an answer to a range says, or its bytes."""
        body = await self._open(uri, 0, 1, None)
        try:
            if body.answer.status != 200:
                total = body.answer.headers.get("Content-Range", "").rpartition("/")[2]
                if not total.isdecimal():
                    raise OSError(f"the server does not say how large {uri} is")
                return int(total)
            size = 0
            while part := await body.read(_PIECE):
                size += len(part)
            return size
        finally:
            body.close()

    async def _fetch(self, uri: str, start: int, end: int | None, etag: str | None) -> bytes:
        body = await self._open(uri, start, end, etag)
        try:
            return await body.read(None if end is None else end - start)
        finally:
            body.close()

    async def _open(self, uri: str, start: int, end: int | None, etag: str | None) -> _AnswerBody:
        """Send one GET; its body starts at `start` whatever the server makes of ranges."""
        import aiohttp

        headers = {"Accept-Encoding": "identity"}
        if start or end is not None:
            headers["Range"] = f"bytes={start}-" if end is None else f"bytes={start}-{end - 1}"
        waits = aiohttp.ClientTimeout(total=None, sock_connect=retry.SLOW_SECONDS, sock_read=retry.SLOW_SECONDS)
        session = await self.filesystem.set_session()
        answer = await session.get(uri, headers=headers, timeout=waits)
        body = _AnswerBody(answer)
        if answer.status == 416:  # starts at or behind the end
            body.ended = True
            return body
        _raise_for(answer.status, uri, answer)
        whole = answer.headers.get("Content-Length") if answer.status == 200 else None
        found = body.identity or (f"size-{whole}" if whole else "")
        if etag and found and found != etag and not (etag.startswith("size-") and answer.status == 206):
            body.close()
            raise ChangedError(uri)
        if answer.status == 200 and start:  # the server sent everything: pass over what was not asked for
            await body.skip(start)
        return body

    async def _again(self, request: Any) -> Any:
        patience = Patience()
        while True:
            try:
                return await request()
            except Exception as error:
                wait = patience.after(error)
            await asyncio.sleep(wait)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.filesystem.loop).result()

    def _close(self, body: _AnswerBody | None) -> None:
        if body is not None:
            self.filesystem.loop.call_soon_threadsafe(body.close)


class _AnswerBody:
    """The body of an answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.ended = False
        self.url = str(answer.url)
        self.kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self.identity = identity_of(answer.headers)

    async def read(self, size: int | None) -> bytes:
        """`size` bytes, or all that is left; less only at the end."""
        parts: list[bytes] = []
        missing = size
        while not self.ended and missing != 0:
            part = await self.answer.content.read(_PIECE if missing is None else min(missing, 2**20))
            self.ended = not part
            parts.append(part)
            missing = None if missing is None else missing - len(part)
        return b"".join(parts)

    async def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        while size > 0 and (part := await self.read(min(size, 2**20))):
            size -= len(part)

    def close(self) -> None:
        """End the request."""
        self.answer.close()


class _Anchors(HTMLParser):
    """Collects where the links of a page lead."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]


def _target(page: str, link: str) -> str:
    """Where a link of a page leads; nowhere for what is no address."""
    try:
        return urldefrag(urljoin(page, link.strip()))[0]
    except ValueError:
        return ""


async def _all(coroutines: Any) -> list[Any]:
    """Results of all; when one fails, the others are cancelled and awaited before its error is raised."""
    tasks = [asyncio.ensure_future(one) for one in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _raise_for(status: int, uri: str, answer: Any) -> None:
    if status in {404, 410}:
        answer.close()
        raise FileNotFoundError(uri)
    if status in {401, 403}:
        answer.close()
        raise PermissionError(f"the server answered {status}")
    answer.raise_for_status()
