"""One HTTP request to the engine, read as ClickHouse reads it."""

from __future__ import annotations

import asyncio
import base64
import email.parser
import email.policy
import hmac
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from starlette.types import Message, Receive

from factory_lib.engine.failure import failure

# Parameters of the interface; every other one is a setting of the engine.
_RESERVED = frozenset(
    "query database user password default_format query_id session_id session_timeout session_check compress decompress "
    "wait_end_of_query buffer_size role quota_key stacktrace client_protocol_version close_session "
    "http_headers_progress_interval_ms send_progress_in_http_headers enable_http_compression "
    "http_zlib_compression_level network_compression_method".split()
)
_PIECE = 1 << 18  # each hop between thread and loop costs 0.1 ms, so small pieces are gathered


@dataclass(frozen=True)
class StatementRequest:
    """What a client asks for.

    Attributes:
        query: SQL from the query string; the body follows it.
        settings: settings for this statement.
        params: values of `{name:Type}`, as text in ClickHouse's escaped form.
        format: output format for a statement that names none.
        accept: encoding to answer with, if any.
        content_encoding: encoding of the body.
        content_type: type of the body; multipart carries parameters as form fields.
        wait: answer only when the result is complete (`wait_end_of_query`).
    """

    method: str
    query: str
    settings: Mapping[str, str]
    params: Mapping[str, str]
    database: str
    format: str
    query_id: str
    session_id: str
    session_timeout: float
    session_check: bool
    accept: str
    compress: bool
    content_encoding: str
    content_type: str
    wait: bool


def headers(scope: Mapping[str, Any]) -> dict[str, str]:
    """Request headers with names in small letters."""
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def arguments(scope: Mapping[str, Any]) -> dict[str, str]:
    """Parameters of the query string; the last of equal names wins."""
    text = scope["query_string"].decode("latin-1")
    return dict(parse_qsl(text, keep_blank_values=True, encoding="utf-8", errors="surrogateescape"))


def check_host(found: Mapping[str, str], port: int) -> None:
    """Refuse a Host other than this one: a web page that rebinds its name to 127.0.0.1 carries its own."""
    name = found.get("host", "").lower()
    if name not in {f"{host}:{port}" for host in ("127.0.0.1", "localhost", "[::1]")}:
        raise failure(516, "AUTHENTICATION_FAILED", "This engine answers to 127.0.0.1 only: wrong Host header", 403)


def check_token(found: Mapping[str, str], given: Mapping[str, str], token: str) -> None:
    """The token as password, in any of the places where ClickHouse takes one.

    Raises:
        EngineFailure: 401 without any password, 403 with a wrong one.
    """
    password = found.get("x-clickhouse-key", "") or given.get("password", "")
    scheme, _, credentials = found.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            password = base64.b64decode(credentials, validate=True).decode().partition(":")[2]
        except ValueError:  # no base64, or no text
            raise failure(516, "AUTHENTICATION_FAILED", "The Authorization header is not valid Basic") from None
    if not password:
        raise failure(194, "REQUIRED_PASSWORD", "Authentication failed: password is required")
    if not hmac.compare_digest(password.encode(errors="replace"), token.encode()):
        raise failure(516, "AUTHENTICATION_FAILED", "Authentication failed: password is incorrect")


def read(method: str, found: Mapping[str, str], given: Mapping[str, str]) -> StatementRequest:
    """The request of these headers and parameters.

    Raises:
        EngineFailure: it asks for what the engine does not have.
    """
    for name in ("compress", "decompress"):
        if given.get(name, "0") not in ("0", "false"):
            message = f"{name}=1 (ClickHouse's own block compression) is not supported, use HTTP's Content-Encoding"
            raise failure(48, "NOT_IMPLEMENTED", message)
    return StatementRequest(
        method=method,
        query=given.get("query", ""),
        settings={
            name: value for name, value in given.items() if name not in _RESERVED and not name.startswith("param_")
        },
        params={name[6:]: value for name, value in given.items() if name.startswith("param_")},
        database=given.get("database", "") or found.get("x-clickhouse-database", ""),
        format=given.get("default_format", "") or found.get("x-clickhouse-format", "") or "TabSeparated",
        query_id=given.get("query_id", "") or found.get("x-clickhouse-query-id", "") or str(uuid.uuid4()),
        session_id=given.get("session_id", ""),
        session_timeout=_seconds(given.get("session_timeout", "60")),
        session_check=given.get("session_check", "0") == "1",
        accept=found.get("accept-encoding", ""),
        compress=given.get("enable_http_compression", "0") in ("1", "true"),
        content_encoding=found.get("content-encoding", ""),
        content_type=found.get("content-type", ""),
        wait=given.get("wait_end_of_query", "0") in ("1", "true"),
    )


def _seconds(text: str) -> float:
    try:
        return min(float(text), 3600.0)
    except ValueError:
        raise failure(36, "BAD_ARGUMENTS", f"Invalid session_timeout {text!r}") from None


def form_fields(body: bytes, content_type: str) -> dict[str, str]:
    """Plain fields of a form by name: clients send parameters that are too long for a URL as multipart/form-data.

    Raises:
        EngineFailure: a part is a file (external tables are not supported), or the body is no form.
    """
    head = b"Content-Type: " + content_type.encode("latin-1") + b"\r\n\r\n"
    form = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    if not form.is_multipart():
        raise failure(36, "BAD_ARGUMENTS", "The multipart body has no parts")
    fields: dict[str, str] = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None or not isinstance(name, str):
            message = "External tables (files in a form) are not supported, insert into a Memory table"
            raise failure(48, "NOT_IMPLEMENTED", message)
        payload = part.get_payload(decode=True)
        fields[name] = payload.decode("utf-8", "surrogateescape") if isinstance(payload, bytes) else ""
    return fields


class RequestBody(Iterator[bytes]):
    """The body as it arrives. Asking for the next piece is what lets the client send on.

    Args:
        receive: the request's messages.
        loop: the loop that `receive` belongs to.
    """

    def __init__(self, receive: Receive, loop: asyncio.AbstractEventLoop) -> None:
        self._receive = receive
        self._loop = loop
        self._more = True
        self._finished = asyncio.Event()

    def __next__(self) -> bytes:
        if not self._more:
            raise StopIteration
        data = asyncio.run_coroutine_threadsafe(self._next(), self._loop).result()
        if not data:
            raise StopIteration
        return data

    async def left(self) -> None:
        """Return when the client has left; only its whole body having been read can show that."""
        await self._finished.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        parts: list[bytes] = []
        size = 0
        while self._more and size < _PIECE:
            message: Message = await self._receive()
            if message["type"] == "http.disconnect":
                self._more = False
                raise failure(210, "NETWORK_ERROR", "The client left before the end of its request")
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            self._more = bool(message.get("more_body", False))
        if not self._more:
            self._finished.set()
        return b"".join(parts)
