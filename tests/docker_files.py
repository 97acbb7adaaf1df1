"""The files in docker/ as Compose and the builder read them."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
INSTANCE = "/opt/dagster/"
"""Where the image has `dagster.yaml` and `workspace.yaml`."""
OURS = ("buckets", "code", "webserver", "daemon")


class MissingError(Exception):
    """A required variable is unset or empty."""


def interpolated(text: str, given: dict[str, str], used: dict[str, str] | None = None) -> str:
    """`${A}`, `${A:-default}`, `${A-default}` and `${A:?message}`, nested, as Compose replaces them.

    Args:
        used: gets each variable with its default, or `?` where it is required.
    """
    done = ""
    while (start := text.find("${")) >= 0:
        depth, end = 1, start + 2
        while depth:
            depth += text.startswith("${", end) - (text[end] == "}")
            end += 1
        inner = text[start + 2 : end - 1]
        match = re.fullmatch(r"(\w+)(:?[-?])?(.*)", inner, re.DOTALL)
        assert match, inner
        name, operator, rest = match.groups()
        rest = interpolated(rest, given, used)
        if used is not None:
            used[name] = "?" if operator == ":?" else rest
        value = given.get(name)
        absent = value is None or (value == "" and (operator or "").startswith(":"))
        if absent and operator == ":?":
            raise MissingError(name)
        done += text[:start] + ((rest if absent else value) or "")
        text = text[end:]
    return done + text


def example() -> tuple[dict[str, str], dict[str, str]]:
    """.env.example: what it sets, and what its comments show as defaults."""
    lines = (DOCKER / ".env.example").read_text().splitlines()
    pairs = [line.partition("=") for line in lines if re.match(r"#?[A-Z_0-9]+=", line)]
    return (
        {name: value for name, _, value in pairs if not name.startswith("#")},
        {name[1:]: value for name, _, value in pairs if name.startswith("#")},
    )


SECRETS = [name for name, value in example()[0].items() if not value]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """compose.yaml as Compose sees it with .env.example and secrets filled in."""
    given = example()[0] | {name: f"secret-{name}" for name in SECRETS}
    loaded: dict[str, Any] = yaml.safe_load(interpolated((DOCKER / "compose.yaml").read_text(), given))
    return loaded


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def copied(dockerfile: list[tuple[str, str]]) -> dict[str, str]:
    """What the final image holds of the repository: path in the image -> path in the repository."""
    last = max(i for i, (word, _) in enumerate(dockerfile) if word == "FROM")
    found, folder = {}, ""
    for word, rest in dockerfile[last:]:
        if word == "WORKDIR":
            folder = rest.strip().rstrip("/") + "/"
        if word == "COPY" and "--from=" not in rest:
            *sources, target = [part for part in rest.split() if not part.startswith("--")]
            for source in sources:
                into = (target.removeprefix("./") + Path(source).name) if target.endswith("/") else target
                found[into if into.startswith("/") else folder + into] = source
    return found


def commands(compose: dict[str, Any], dockerfile: list[tuple[str, str]]) -> Iterator[list[str]]:
    """Everything that is run in our image."""
    for name in OURS:
        service = compose["services"][name]
        yield service["command"]
        if "test" in service["healthcheck"]:
            yield service["healthcheck"]["test"][1:]
    for word, rest in dockerfile:
        if word in {"CMD", "HEALTHCHECK"}:
            yield json.loads(rest[rest.index("[") :])
