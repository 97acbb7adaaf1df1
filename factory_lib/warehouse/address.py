"""The address of a ClickHouse server, as `FACTORY_CLICKHOUSE_URL` gives it."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from factory_lib.errors import SettingsError


def client_arguments(url: str) -> dict[str, Any]:
    """clickhouse-connect's arguments for `http(s)://user:password@host:port/database?setting=value`.

    User, password and database may also be given as parameters; every other parameter is a setting for all statements.

    Raises:
        SettingsError: it is no such address. The message does not repeat it: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingsError(
            "FACTORY_CLICKHOUSE_URL is not the address of a ClickHouse server.",
            "It looks like https://user:password@host:8443/database?setting=value",
        )
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    user = given.pop("user", "") or unquote(parts.username or "")
    password = given.pop("password", "") or unquote(parts.password or "")
    database = given.pop("database", "") or unquote(parts.path.strip("/"))
    return {
        "interface": parts.scheme,
        "host": parts.hostname,
        "port": port or (8443 if parts.scheme == "https" else 8123),
        "username": user or "default",
        "password": password,
        "database": database or "__default__",
        "settings": given,
    }


def shown(url: str) -> str:
    """The address without user, password and parameters."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return "the address in FACTORY_CLICKHOUSE_URL"
    return f"{parts.scheme}://{parts.hostname}{port}"
