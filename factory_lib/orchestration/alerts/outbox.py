"""Alerts on their way: each once while it recurs, kept until the receiver has taken it."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

import dagster as dg

from factory_lib.settings import alert_url

QUIET_SECONDS = 3600.0
"""The same alert is sent again when it was not heard of for so long."""
SEND_SECONDS = 10.0
MOST_WAITING = 100
_PLACE = "factory/alerts"


@dataclass(frozen=True)
class Alert:
    """What somebody should hear of.

    Attributes:
        kind: "run failed" or "check red".
        line: what happened, in one line.
        url: where the UI shows it; may be empty.
    """

    kind: str
    line: str
    url: str

    def payload(self) -> dict[str, str]:
        """What the receiver gets: `text` for those that show a text, the rest for those that sort."""
        return {"text": f"{self.line}\n{self.url}".strip(), "source": "dataset-factory", **asdict(self)}


class Outbox:
    """Alerts of an instance, kept in its storage: the processes that send them come and go.

    Args:
        instance: Dagster's instance.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._storage = instance.daemon_cursor_storage
        assert self._storage is not None

    def put(self, alert: Alert) -> None:
        """Have an alert sent, unless the same was heard of within the last hour."""
        state, now = self._read(), time.time()
        seen = {key: at for key, at in state["seen"].items() if now - at < QUIET_SECONDS}
        key = hashlib.sha256(f"{alert.kind} {alert.line}".encode()).hexdigest()[:16]
        if key not in seen:
            state["waiting"] = [*state["waiting"], asdict(alert)][-MOST_WAITING:]
        state["seen"] = {**seen, key: now}
        self._write(state)

    def send(self, say: Callable[[str], None]) -> int:
        """Send what waits. A receiver that cannot be reached, or refuses, is told of, and tried again the next time.

        Args:
            say: told what went wrong.

        Returns:
            How many still wait.
        """
        url, state = alert_url(), self._read()
        while url and state["waiting"]:
            try:
                post(url, Alert(**state["waiting"][0]).payload())
            except (OSError, ValueError, http.client.HTTPException) as error:
                say(f"{_host(url)} takes no alerts: {_reason(error)}.")
                break
            state["waiting"] = state["waiting"][1:]
            self._write(state)
        return len(state["waiting"])

    def _read(self) -> dict[str, Any]:
        text = self._storage.get_cursor_values({_PLACE}).get(_PLACE)
        found: dict[str, Any] = json.loads(text) if text else {}
        return {"waiting": [], "seen": {}, **found}

    def _write(self, state: dict[str, Any]) -> None:
        self._storage.set_cursor_values({_PLACE: json.dumps(state)})


def post(url: str, payload: dict[str, str]) -> None:
    """Send JSON to a URL.

    Raises:
        OSError, ValueError, http.client.HTTPException: it could not be sent, or was not taken.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "dataset-factory"}
    request = urllib.request.Request(url, json.dumps(payload).encode(), headers)
    if request.type not in {"http", "https"}:
        raise ValueError("it is no http address")
    with urllib.request.urlopen(request, timeout=SEND_SECONDS) as answer:
        answer.read(1)


def _host(url: str) -> str:
    """All of a URL that may be shown: its path is a secret at many receivers."""
    try:
        return urlsplit(url).hostname or "The address in FACTORY_ALERT_URL"
    except ValueError:
        return "The address in FACTORY_ALERT_URL"


def _reason(error: Exception) -> str:
    """Why an alert was not taken: never in the words of an error, which may hold the address and its secret."""
    if isinstance(error, urllib.error.HTTPError):
        return f"it answered {error.code}"
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return type(error.reason).__name__
    return type(error).__name__
