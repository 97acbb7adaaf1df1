"""Make the buckets named on the command line, once the store answers: `python make_buckets.py shards dagster-logs`.

Endpoint and credentials come from the AWS_* variables. A bucket that is there already is left alone.
"""

from __future__ import annotations

import sys
import time
from typing import Any

WAIT_SECONDS = 180.0
PAUSE_SECONDS = 2.0


def main(names: list[str], wait_seconds: float = WAIT_SECONDS) -> None:
    """Make buckets, and wait at most `wait_seconds` for a store that does not answer yet.

    Raises:
        SystemExit: the store never answered, or refused.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client("s3")
    end = time.monotonic() + wait_seconds
    for name in names:
        while True:
            try:
                print(f"{name}: {'made' if made(client, name) else 'is there'}", flush=True)
                break
            except (ClientError, BotoCoreError) as error:
                if not _may_pass(error) or time.monotonic() > end:
                    sys.exit(f"Bucket {name!r} at {client.meta.endpoint_url} cannot be made: {error}")
                print(f"{name}: waiting for the store ({type(error).__name__})", flush=True)
                time.sleep(PAUSE_SECONDS)


def made(client: Any, name: str) -> bool:
    """Make a bucket if there is none; whether there was none."""
    from botocore.exceptions import ClientError

    try:
        client.head_bucket(Bucket=name)
        return False
    except ClientError as error:
        if _status(error) != 404:
            raise
    region = client.meta.region_name
    # the region that has no name here is the only one that must not be named
    where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    client.create_bucket(Bucket=name, **where)
    return True


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_pass(error: Exception) -> bool:
    """Whether the store is only not up yet: no connection, or an error of its own."""
    from botocore.exceptions import ClientError, HTTPClientError

    if isinstance(error, ClientError):
        return _status(error) >= 500
    return isinstance(error, HTTPClientError)


if __name__ == "__main__":
    main(sys.argv[1:])
