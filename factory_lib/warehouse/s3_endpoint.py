"""How the engine reaches a bucket: the address of its requests, and how often each is made."""

from __future__ import annotations

from urllib.parse import urlsplit

_FIRST_WAIT, _LONGEST_WAIT = 0.025, 5.0
"""Seconds between tries: the engine's own."""


def s3_endpoint(uri: str, server: str) -> str:
    """The URL below which the engine reads and writes objects; ends with a slash.

    Args:
        uri: `s3://bucket/prefix`.
        server: URL of the S3 API.
    """
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    split = urlsplit(server)
    # Amazon serves each bucket under a name of its own, others below their address; a dot fits no certificate.
    own_name = str(split.hostname).endswith("amazonaws.com") and "." not in bucket
    root = f"{split.scheme}://{bucket}.{split.netloc}" if own_name else f"{server.rstrip('/')}/{bucket}"
    return f"{root}/{prefix}/"


def request_tries(seconds: float) -> int:
    """Tries of a request in about so many seconds. So many are made so many times, by the client and by who writes."""
    tries = 3
    while (tries + 1) * sum(min(_FIRST_WAIT * 2**i, _LONGEST_WAIT) for i in range(tries + 1)) <= seconds:
        tries += 1
    return tries
