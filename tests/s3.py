"""A real S3 API for tests: moto's server on a free loopback port, reached as users reach theirs (AWS_* variables)."""

from __future__ import annotations

import http.client
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Any:
    """boto3's client for that server."""
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        region_name=VARIABLES["AWS_DEFAULT_REGION"],
        aws_access_key_id=VARIABLES["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=VARIABLES["AWS_SECRET_ACCESS_KEY"],
    )


@pytest.fixture
def s3(s3_endpoint: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """An empty bucket, with the environment set so that `s3://` URIs reach it."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    connect_store(s3_endpoint, monkeypatch)
    request = urllib.request.Request(f"{s3_endpoint}/moto-api/reset", method="POST")
    urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request).close()
    s3_client.create_bucket(Bucket="shards")
    return Bucket("s3://shards", s3_endpoint, s3_client)


def connect_store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Point the store at a server; its client for that server is kept, because making one takes a second."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setattr("factory_lib.storage.store._clients", _clients.setdefault(endpoint, {}))


_clients: dict[str, dict[Any, Any]] = {}


@dataclass
class Relay:
    """A server in front of the S3 server that counts what passes, and does what real ones do on bad days.

    Attributes:
        url: to be used as the endpoint.
        gets: the `Range` header of each GET of an object, empty where there was none.
        faults: what happens to the next GETs of objects, in order: `ok`, a status such as `503`, or `cut`, which closes
            the connection after half of the body.
        refused: methods that are refused (`PUT POST DELETE`), and the error that says why (`AccessDenied`).
    """

    url: str
    gets: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    refused: tuple[str, str] | None = None


@pytest.fixture
def relay(s3: Bucket, relay_server: Relay, monkeypatch: pytest.MonkeyPatch) -> Relay:
    """A relay that all requests of the store go through."""
    relay_server.gets.clear()
    relay_server.faults.clear()
    relay_server.refused = None
    connect_store(relay_server.url, monkeypatch)
    return relay_server


@pytest.fixture(scope="session")
def relay_server(s3_endpoint: str) -> Iterator[Relay]:
    """One relay for the test process."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            fault = "ok"
            if self.path.count("/") > 1 and "?" not in self.path:
                with lock:
                    found.gets.append(self.headers.get("Range", ""))
                    fault = found.faults.pop(0) if found.faults else "ok"
            self.forward(fault)

        def do_HEAD(self) -> None:
            self.forward("ok")

        do_PUT = do_POST = do_DELETE = do_HEAD  # noqa: N815

        def forward(self, fault: str) -> None:
            if found.refused and self.command in found.refused[0].split():
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = 403 if found.refused[1] == "AccessDenied" else 400
                said = {"AccessDenied": "Access Denied", "ExpiredToken": "The provided token has expired."}
                code = found.refused[1]
                text = f"<Error><Code>{code}</Code><Message>{said[code]}</Message></Error>".encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/xml")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(b"" if self.command == "HEAD" else text)
                return
            if fault.isdigit():
                code = {"403": "AccessDenied", "500": "InternalError"}.get(fault, "SlowDown")
                body = f"<Error><Code>{code}</Code><Message>As asked for.</Message></Error>".encode()
                self.send_response(int(fault))
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            connection = http.client.HTTPConnection(s3_endpoint.removeprefix("http://"))
            sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            connection.request(self.command, self.path, sent, dict(self.headers))
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"transfer-encoding", "connection", "date", "server", "content-length"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", answer.getheader("Content-Length") or str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault == "cut" else body)
            self.close_connection = fault == "cut"
            connection.close()

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that hang up are part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    found = Relay(f"http://127.0.0.1:{server.server_address[1]}")
    yield found
    server.shutdown()
    server.server_close()
