"""Plain HTTP to the embedded engine, without a client of ClickHouse between."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from factory_lib.warehouse.embedded import engine_status, engine_url

MIB = 1 << 20


class Http:
    """The engine over plain HTTP."""

    def __init__(self, home: Path) -> None:
        self.url = engine_url(home)
        parts = urlsplit(self.url)
        assert parts.password is not None
        assert parts.port is not None
        self.token, self.port = parts.password, parts.port
        self.bare = f"http://127.0.0.1:{self.port}/"
        status = engine_status(home)
        assert status is not None
        self.pid = int(status["pid"])
        self.client = httpx.Client(auth=("default", self.token), timeout=60, trust_env=False)

    def post(self, sql: str | bytes = b"", headers: dict[str, str] | None = None, **params: Any) -> httpx.Response:
        return self.client.post(self.bare, content=sql, params=params, headers=headers)

    def text(self, sql: str | bytes, **params: Any) -> str:
        answer = self.post(sql, **params)
        assert answer.status_code == 200, answer.text
        return answer.text

    def running(self, text: str) -> int:
        sql = (
            f"SELECT count() FROM system.processes WHERE query LIKE '%{text}%' AND query NOT LIKE '%system.processes%'"
        )
        return int(self.text(sql))

    def memory(self) -> int:
        """Highest resident memory since `forget_memory`, bytes."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    def forget_memory(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def http(factory_home: Path) -> Http:
    return Http(factory_home)


@pytest.fixture
def table(http: Http) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex}"
    http.text(f"CREATE TABLE {name} (a Int64, s String) ENGINE = MergeTree ORDER BY a")
    yield name
    http.text(f"DROP TABLE {name} SYNC")
