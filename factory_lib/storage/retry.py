"""Which failures are worth another try, how long to wait, and what of an error may be shown.

An outage of minutes ends no training: what fails for the time being is tried again for `FACTORY_RETRY_SECONDS`, with
growing waits of random length, so that many machines don't come back at once. The log says so once an outage.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from factory_lib.redaction import redact
from factory_lib.settings import retry_seconds
from factory_lib.storage.files import ChangedError

T = TypeVar("T")

log = logging.getLogger(__name__)

ATTEMPTS = 5
"""Tries at least, however short the time for them is."""
FIRST_WAIT_SECONDS = 0.1
LONGEST_WAIT_SECONDS = 10.0
QUIET_SECONDS = 60.0
"""Without a failure, after which the next one begins another outage, which is told of again."""
SLOW_SECONDS = 60.0
"""Longest wait for an answer, or for the next chunk of a stream; a stalled connection is then given up."""

EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
"""S3's errors that other credentials mend."""
_TRANSIENT_CODES = {
    "InternalError", "RequestTimeout", "RequestTimeTooSkewed", "ServiceUnavailable", "SlowDown", "Throttling",
    "ThrottlingException", "TooManyRequests", "XAmzContentSHA256Mismatch", *EXPIRED_CODES,
}  # fmt: skip
_TRANSIENT_NAMES = {
    "ClientConnectionError", "ClientConnectorError", "ClientOSError", "ClientPayloadError", "ConnectionClosedError",
    "ConnectTimeoutError", "ContentLengthError", "EndpointConnectionError", "FSTimeoutError", "HTTPClientError",
    "IncompleteRead", "ReadTimeoutError", "ResponseParserError", "ResponseStreamingError", "ServerDisconnectedError",
}  # fmt: skip
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


class Patience:
    """How long one request is tried again.

    Args:
        seconds: in all; by default `FACTORY_RETRY_SECONDS`, or what `impatient` leaves of them.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = patience_seconds() if seconds is None else seconds
        self._began = time.monotonic()
        self._waited = 0.0
        self._failures = 0

    def after(self, error: Exception) -> float:
        """Seconds to wait after a failure, before the next try.

        Raises:
            Exception: the failure itself, where no other try is worth it, or time is up.
        """
        if not is_transient(error):
            raise error
        self._failures += 1
        wait = wait_seconds(self._failures - 1)
        spent = max(self._waited, time.monotonic() - self._began)
        if self._failures >= ATTEMPTS and spent + wait > self._seconds:
            raise error
        self._waited += wait
        _tell(error, wait, self._seconds)
        return wait


def with_retries(
    action: Callable[[], T],
    sleep: Callable[[float], None] = time.sleep,
    *,
    seconds: float | None = None,
    failed: Callable[[Exception], None] | None = None,
) -> T:
    """Call `action`, again after transient failures, as long as `Patience` lasts.

    Args:
        seconds: of patience.
        failed: called with each failure before the next try, to mend what it can.
    """
    patience = Patience(seconds)
    while True:
        try:
            return action()
        except Exception as error:
            sleep(patience.after(error))
            if failed is not None:
                failed(error)


def patience_seconds() -> float:
    """How long requests of this task are tried again."""
    limit = _limit.get()
    return retry_seconds() if limit is None else min(limit, retry_seconds())


@contextmanager
def impatient(seconds: float = 0.0) -> Iterator[None]:
    """Give up sooner: for what can be done without."""
    token = _limit.set(seconds)
    try:
        yield
    finally:
        _limit.reset(token)


def is_expired(error: BaseException) -> bool:
    """Whether the server says that the credentials are no longer good."""
    return error_code(error) in EXPIRED_CODES


def take_counters() -> Counter[str]:
    """Retries of this process, and the seconds waited for them, since the last call."""
    global _counters
    with _counting:
        taken, _counters = _counters, Counter()
    return taken


_limit: ContextVar[float | None] = ContextVar("patience", default=None)
_counting = threading.Lock()
_counters: Counter[str] = Counter()
_last_failure = float("-inf")


def _tell(error: Exception, wait: float, seconds: float) -> None:
    global _last_failure
    now = time.monotonic()
    with _counting:
        news = now - _last_failure > QUIET_SECONDS
        _last_failure = now + wait
        _counters["retries"] += 1
        _counters["retry_seconds"] += wait  # type: ignore[assignment]
    if news:
        log.warning(
            "Storage fails for now: %s. Trying again for up to %g s (FACTORY_RETRY_SECONDS).", shown(error), seconds
        )


def shown(error: BaseException) -> str:
    """One line about an error from a client library, without anything secret."""
    code = error_code(error)
    text = " ".join(str(error).split())
    for link in _causes(error):
        response = getattr(link, "response", None)
        if isinstance(response, dict) and response.get("Error", {}).get("Message"):
            text = f"{code}: {response['Error']['Message']}"
            break
    # The name of an error is no secret: after `NoCredentialsError:` comes what is wrong.
    return (redact(text) if code else f"{type(error).__name__}: {redact(text)}")[:300]


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    link: BaseException | None = error
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        yield link
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
