"""Connections that wait for the next statement, in a pool that garbage may be collected in the middle of.

A result that nobody reads on lies in a cycle now and then (an error holds what it interrupted). Collecting it, which
happens at any moment, gives its connection back: also while the same thread takes one and holds the pool's lock, and
with an ordinary lock it would then wait for itself.
"""

from __future__ import annotations

import queue
import threading
from typing import Any

from clickhouse_connect.driver.httputil import check_env_proxy, get_pool_manager
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager

_WAITING = 32


class ConnectionStack(queue.LifoQueue[Any]):
    """A stack whose lock a thread may take twice; to push in the middle of a pop, or of a push, only adds to it."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.mutex = threading.RLock()  # type: ignore[assignment]
        self.not_empty = threading.Condition(self.mutex)
        self.not_full = threading.Condition(self.mutex)
        self.all_tasks_done = threading.Condition(self.mutex)


class _Http(HTTPConnectionPool):
    QueueCls = ConnectionStack


class _Https(HTTPSConnectionPool):
    QueueCls = ConnectionStack


def pool_of(interface: str, host: str, port: int, *, proxies: bool) -> PoolManager:
    """Connections to a server.

    Args:
        interface: `http` or `https`.
        proxies: whether `http_proxy` and its like in the environment count.
    """
    options: dict[str, Any] = {"maxsize": _WAITING}
    if proxies and (proxy := check_env_proxy(interface, host, port)):
        options[f"{interface}_proxy"] = proxy
    manager: PoolManager = get_pool_manager(**options)
    manager.pool_classes_by_scheme = {"http": _Http, "https": _Https}
    return manager
