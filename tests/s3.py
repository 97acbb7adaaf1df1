"""A real S3 API for tests: moto's server on a free loopback port, reached as users reach theirs (AWS_* variables)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

VARIABLES = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-secret",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}


@dataclass(frozen=True)
class Bucket:
    """An empty bucket.

    Attributes:
        uri: `s3://…`, without a trailing slash.
        endpoint: the server's URL.
        client: boto3's client, an implementation of the API that is not ours.
    """

    uri: str
    endpoint: str
    client: Any

    @property
    def name(self) -> str:
        return self.uri.removeprefix("s3://")

    def put(self, key: str, data: bytes) -> str:
        """Put one object; returns its URI."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)
        return f"{self.uri}/{key}"

    def put_folder(self, folder: Path, prefix: str) -> str:
        """Put every file below a folder; returns the URI of the prefix."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"{self.uri}/{prefix}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of an S3 server that lives as long as the test process."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """An empty bucket, with the environment set so that `s3://` URIs reach it."""
    import boto3
    import httpx

    from factory_lib.storage import store as store_module

    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    httpx.post(f"{s3_endpoint}/moto-api/reset", trust_env=False).raise_for_status()
    store_module._clients.clear()
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    client.create_bucket(Bucket="shards")
    yield Bucket("s3://shards", s3_endpoint, client)
    store_module._clients.clear()
