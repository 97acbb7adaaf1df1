"""Which failures are worth another try, how long to wait, and what of an error may be shown."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from factory_lib.storage.files import ChangedError

T = TypeVar("T")

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 10.0
SLOW_SECONDS = 60.0
"""Longest wait for an answer, or for the next chunk of a stream; a stalled connection is then given up."""

_TRANSIENT_CODES = {
    "InternalError", "RequestTimeout", "RequestTimeTooSkewed", "ServiceUnavailable", "SlowDown", "Throttling",
    "ThrottlingException", "TooManyRequests", "XAmzContentSHA256Mismatch",
}  # fmt: skip
_TRANSIENT_NAMES = {
    "ClientConnectionError", "ClientConnectorError", "ClientOSError", "ClientPayloadError", "ConnectionClosedError",
    "ConnectTimeoutError", "ContentLengthError", "EndpointConnectionError", "FSTimeoutError", "HTTPClientError",
    "IncompleteRead", "ReadTimeoutError", "ResponseParserError", "ResponseStreamingError", "ServerDisconnectedError",
}  # fmt: skip
_SECRET = re.compile(
    r"""(?ix) ([\w-]*(?:secret|passw|token|signature|credential|access_?key|authorization)[\w-]*['"]?\s*[=:]\s*)
    ['"]?[^\s,'"&)]+"""
)
_PERMANENT = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError, ChangedError)


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: 5xx, throttling, timeouts, resets and bodies cut short.

    Looks through the chain of causes, because client libraries wrap each other's errors. Errors are told apart by their
    names and HTTP status, so that no client library has to be imported here.
    """
    for link in _causes(error):
        status = http_status(link)
        if status is not None:
            return status >= 500 or status in {408, 429} or error_code(link) in _TRANSIENT_CODES
        if isinstance(link, _PERMANENT):
            return False
        if isinstance(link, ConnectionError | TimeoutError):
            return True
        if any(kind.__name__ in _TRANSIENT_NAMES for kind in type(link).__mro__):
            return True
    return False


def http_status(error: BaseException) -> int | None:
    """The HTTP status that an error carries (botocore: in its response, aiohttp: as its attribute), or None."""
    for link in _causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if isinstance(status, int):
                return status
        status = getattr(link, "status", None)
        if isinstance(status, int):
            return status
    return None


def error_code(error: BaseException) -> str:
    """The S3 error code that an error carries, such as ``NoSuchKey``, or an empty string."""
    for link in _causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", ""))
    return ""


def wait_seconds(attempt: int) -> float:
    """How long to wait after failed attempt number `attempt` (from 0): exponential, with full jitter."""
    return random.uniform(0.0, min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0**attempt))


def with_retries(action: Callable[[], T], sleep: Callable[[float], None] = time.sleep) -> T:
    """Call `action`, again after a transient failure, up to `ATTEMPTS` times in all."""
    for attempt in range(ATTEMPTS - 1):
        try:
            return action()
        except Exception as error:
            if not is_transient(error):
                raise
            sleep(wait_seconds(attempt))
    return action()


def shown(error: BaseException) -> str:
    """One line about an error from a client library, without anything secret."""
    code = error_code(error)
    text = " ".join(str(error).split())
    for link in _causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Message"):
            text = f"{code}: {response['Error']['Message']}"
            break
    return redact(f"{type(error).__name__}: {text}" if not code else text)[:300]


def redact(text: str) -> str:
    """Strip user names and passwords, query strings, and what looks like a key or a signature from a text."""
    text = re.sub(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]*@", r"\1", text)
    text = re.sub(r"(\b[a-z][a-z0-9+.-]*://[^\s?'\"]*)\?[^\s'\"]*", r"\1", text)
    text = re.sub(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b", "***", text)
    return _SECRET.sub(r"\1***", text)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
