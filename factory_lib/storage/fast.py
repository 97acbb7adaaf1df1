"""Range requests by obstore, where it is installed: a fifth of the processor time of s3fs's client (0.5 instead of 3 ms
a request).

Everything else (listing, writing, streams) and every bucket that obstore does not serve stays with s3fs.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import re
from typing import Any
from urllib.parse import urlsplit

from factory_lib.storage import retry

_used_in: int | None = None


class Unserved(Exception):
    """Raised when obstore cannot serve a bucket that another client may."""


class AnswerError(Exception):
    """An error that the server answered, with `response` as botocore's errors have it."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        parts = {name: found[1] for name in ("Code", "Message") if (found := re.search(f"<{name}>([^<]*)<", text))}
        self.response = {"Error": parts, "ResponseMetadata": {"HTTPStatusCode": status}}


class RefusedError(AnswerError, PermissionError):
    """The server refused the request for lack of rights."""


class FastReads:
    """Reads ranges of objects of one bucket.

    Args:
        filesystem: a connected `S3FileSystem`, whose endpoint, region and credentials are used.
    """

    def __init__(self, filesystem: Any, bucket: str) -> None:
        from obstore.store import S3Store

        global _used_in
        _used_in = os.getpid()
        client, session = filesystem._s3, filesystem.session
        endpoint = str(client.meta.endpoint_url)
        options: dict[str, Any] = {"region": client.meta.region_name or "us-east-1"}
        if not str(urlsplit(endpoint).hostname).endswith("amazonaws.com"):
            options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
        if filesystem.anon:
            options["skip_signature"] = True
        else:
            options["credential_provider"] = _Credentials(filesystem, session)
        self._store = S3Store(
            bucket,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "timeout": datetime.timedelta(seconds=retry.SLOW_SECONDS),
            },
            retry_config={"max_retries": 0},
            **options,
        )

    def read(self, key: str, start: int, stop: int | None, etag: str | None) -> memoryview | None:
        """The bytes ``[start, stop)`` of an object, to its end where `stop` is None or beyond it; None when it is not
        the one of `etag`. Other threads go on meanwhile.

        Raises:
            FileNotFoundError: there is no such object.
            AnswerError, RefusedError: the server's answer was an error.
            ConnectionError: of the connection; another try may succeed.
            Unserved: it does not work this way.
        """
        import obstore

        options: Any = {"range": {"offset": start} if stop is None else (start, stop)}
        if etag:
            options["if_match"] = f'"{etag}"'
        try:
            answer = obstore.get(self._store, key, options=options)
            found = str(answer.meta.get("e_tag") or "").strip('"')
            if etag and found and found != etag:
                return None
            return memoryview(answer.bytes())
        except FileNotFoundError:
            raise
        except Exception as error:
            text = str(error).partition("Debug source:")[0].strip()
            said = re.search(r"status code: (\d{3})", text)
            status = int(said[1]) if said else 0
            if status == 412:
                return None
            if status == 416:  # starts at or after the end
                return memoryview(b"")
            if status == 400 and any(code in text for code in retry.EXPIRED_CODES):
                raise AnswerError(status, text) from None
            if status in {401, 403}:
                raise RefusedError(status, text) from None
            if status in {408, 429} or status >= 500:
                raise AnswerError(status, text) from None
            if status == 0 and type(error).__name__ == "GenericError":
                raise ConnectionError(text) from None
            raise Unserved(text) from None


class _Credentials:
    """The credentials of the s3fs session, asked for again every ten minutes: they may be temporary ones."""

    def __init__(self, filesystem: Any, session: Any) -> None:
        self._filesystem, self._session = filesystem, session

    def __call__(self) -> dict[str, Any]:
        expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=10)
        given = self._filesystem
        if given.key:
            return {
                "access_key_id": given.key,
                "secret_access_key": given.secret,
                "token": given.token,
                "expires_at": expires,
            }
        found = asyncio.run_coroutine_threadsafe(self._found(), given.loop).result()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": expires,
        }

    async def _found(self) -> Any:
        return await (await self._session.get_credentials()).get_frozen_credentials()


def fast_reads(filesystem: Any, bucket: str) -> FastReads | None:
    """A fast reader of a bucket, or None where obstore is not installed or cannot be used.

    A process forked after its parent used obstore must not use it: its threads did not come along, and calls never
    return.
    """
    if _used_in not in {None, os.getpid()} or filesystem.req_kw:
        return None
    try:
        return FastReads(filesystem, bucket)
    except Exception:  # not installed, or a configuration that it does not take: s3fs reads then
        return None
