"""The files in docker/ against each other and against the programs that they configure. No container is started."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from factory_lib.warehouse.address import client_arguments
from tests.docker_files import (
    DOCKER,
    INSTANCE,
    OURS,
    PROJECT,
    ROOT,
    SECRETS,
    MissingError,
    commands,
    compose,
    copied,
    dockerfile,
    example,
    interpolated,
)

__all__ = ["compose", "dockerfile"]


# --- variables ---


def test_every_variable_is_in_the_example_with_the_default_that_it_has() -> None:
    used: dict[str, str] = {}
    given = dict.fromkeys(SECRETS, "x")
    interpolated((DOCKER / "compose.yaml").read_text(), given, used)
    set_there, shown = example()
    assert {name for name, default in used.items() if default == "?"} == set(SECRETS)
    optional = {name: default for name, default in used.items() if default != "?"}
    assert shown.keys() == optional.keys()
    assert {n: shown[n] for n in shown if optional[n]} == {n: d for n, d in optional.items() if d}
    assert set_there.keys() - set(SECRETS) == {"COMPOSE_PROFILES"}


@pytest.mark.parametrize("name", SECRETS)
def test_nothing_starts_without_its_secrets(name: str) -> None:
    given = dict.fromkeys(SECRETS, "x") | {name: ""}
    with pytest.raises(MissingError, match=name):
        interpolated((DOCKER / "compose.yaml").read_text(), given)


def test_secrets_reach_those_who_need_them(compose: dict[str, Any]) -> None:
    holders = {
        secret: {name for name, service in compose["services"].items() if f"secret-{secret}" in json.dumps(service)}
        for secret in SECRETS
    }
    assert holders == {
        "WAREHOUSE_PASSWORD": {"clickhouse", "code"},
        "READER_PASSWORD": {"clickhouse"},
        "POSTGRES_PASSWORD": {"postgres", "code", "webserver", "daemon"},
        "S3_ACCESS_KEY": {"store", *OURS},
        "S3_SECRET_KEY": {"store", *OURS},
    }


def _read_by_us() -> set[str]:
    """Variables that the settings, botocore or our dagster.yaml read."""
    import botocore

    folder = Path(botocore.__file__).parent
    sources = "".join((folder / f"{name}.py").read_text() for name in ("configprovider", "credentials", "utils"))
    aws = set(re.findall(r"['\"](AWS_[A-Z0-9_]+)['\"]", sources))
    ours = set(re.findall(r"\"(FACTORY_[A-Z_]+)\"", (ROOT / "factory_lib/settings.py").read_text()))
    return aws | ours | set(re.findall(r"env: (\w+)", (DOCKER / "dagster.yaml").read_text()))


def test_what_is_passed_is_read(compose: dict[str, Any]) -> None:
    known = _read_by_us()
    assert {"FACTORY_SOURCE", "AWS_ENDPOINT_URL", "DAGSTER_LOGS_BUCKET"} <= known
    for name in OURS:
        assert set(compose["services"][name]["environment"]) <= known, name
    configured = "".join((DOCKER / "clickhouse" / name).read_text() for name in ("users.xml", "server.xml"))
    assert set(compose["services"]["clickhouse"]["environment"]) == set(re.findall(r"from_env=\"(\w+)\"", configured))
    # of the image's documentation
    assert compose["services"]["postgres"]["environment"].keys() == {
        "POSTGRES_USER",
        "POSTGRES_PASSWORD",
        "POSTGRES_DB",
    }


def test_what_dagster_reads_is_passed(compose: dict[str, Any]) -> None:
    wanted = set(re.findall(r"env: (\w+)", (DOCKER / "dagster.yaml").read_text()))
    for name in ("code", "webserver", "daemon"):
        assert wanted <= compose["services"][name]["environment"].keys(), name
    environment = compose["services"]["code"]["environment"]
    there = compose["services"]["postgres"]["environment"]
    for part in ("USER", "PASSWORD", "DB"):
        assert environment[f"DAGSTER_POSTGRES_{part}"] == there[f"POSTGRES_{part}"]
    made = compose["services"]["buckets"]["command"][2:]
    assert environment["DAGSTER_LOGS_BUCKET"] in made
    assert environment["FACTORY_SOURCE"].removeprefix("s3://") in made


def test_the_warehouse_is_reached_as_its_user(compose: dict[str, Any]) -> None:
    services = compose["services"]
    arguments = client_arguments(services["code"]["environment"]["FACTORY_CLICKHOUSE_URL"])
    users = ElementTree.parse(DOCKER / "clickhouse/users.xml").find("users")
    assert users is not None
    password = users.find(f"{arguments['username']}/password")
    assert arguments["host"] in services
    assert password is not None
    assert arguments["password"] == services["clickhouse"]["environment"][password.attrib["from_env"]]
    port = arguments["port"]
    assert any(published.endswith(f":{port}") for published in services["clickhouse"]["ports"])
    assert f":{port}/ping" in " ".join(services["clickhouse"]["healthcheck"]["test"])


# --- services ---


def test_ports_are_on_loopback_and_unique(compose: dict[str, Any]) -> None:
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    parts = [port.split(":") for port in published]
    assert [part[0] for part in parts] == ["127.0.0.1"] * 3
    assert len({part[1] for part in parts}) == len(parts)
    assert not any(service.get("network_mode") for service in compose["services"].values())


def test_images_are_pinned(compose: dict[str, Any], dockerfile: list[tuple[str, str]]) -> None:
    arguments = dict(rest.split("=", 1) for word, rest in dockerfile if word == "ARG")
    bases = {interpolated(rest.split()[0], arguments) for word, rest in dockerfile if word == "FROM"}
    foreign = {service["image"] for service in compose["services"].values() if "build" not in service}
    assert len(bases) == 1
    assert len(foreign) == 3
    for image in bases | foreign:
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+[\w.-]*", image), image


def granted(text: str) -> list[str]:
    """Statements about rights, each on one line."""
    plain = re.sub(r"--[^\n]*", "", text)
    return [" ".join(one.split()) for one in plain.split(";") if one.strip()]


@pytest.fixture(scope="module")
def rights() -> dict[str, list[str]]:
    """Role -> what grants.sql gives and takes, which users.xml repeats."""
    found: dict[str, list[str]] = {}
    for statement in granted((DOCKER / "clickhouse" / "grants.sql").read_text()):
        if match := re.fullmatch(r"((?:GRANT|REVOKE) .*) (?:TO|FROM) (\w+)", statement):
            found.setdefault(match[2], []).append(match[1])
    users = ElementTree.parse(DOCKER / "clickhouse" / "users.xml")
    for role in users.find("roles") or []:
        held = [" ".join((query.text or "").split()) for query in role.iter("query")]
        assert held == found[role.tag], role.tag
    return found


def test_who_trains_cannot_write(rights: dict[str, list[str]]) -> None:
    """Whatever is granted to readers reads, and they are granted no role that writes."""
    reading = {"SHOW DATABASES", "SHOW TABLES", "SHOW COLUMNS", "SELECT"}
    for statement in rights["factory_reader"]:
        verb, what, where = re.fullmatch(r"(GRANT|REVOKE) (.*) ON (\S+)", statement).groups()  # type: ignore[union-attr]
        assert verb == "REVOKE" or set(what.split(", ")) <= reading, statement
        assert "WITH GRANT OPTION" not in statement
        assert verb == "REVOKE" or not where.startswith("system.") or where in ("system.parts", "system.parts_columns")
    assert "REVOKE SELECT ON system.*" in rights["factory_reader"]
    users = ElementTree.parse(DOCKER / "clickhouse" / "users.xml")
    assert [q.text for q in users.findall("users/reader/grants/query")] == ["GRANT factory_reader"]
    assert users.find("users/reader/access_management") is None
    readme = (DOCKER / "README.md").read_text()
    assert re.search(r"Trainers need .*give them `reader`", readme, re.DOTALL)


def test_writers_reach_no_files_addresses_or_users(rights: dict[str, list[str]]) -> None:
    given = {
        one for s in rights["factory_writer"] if s.startswith("GRANT") for one in s.split(" ON ")[0][6:].split(", ")
    }
    assert given == {
        "SHOW DATABASES", "SHOW TABLES", "SHOW COLUMNS", "SELECT", "INSERT", "ALTER TABLE", "CREATE DATABASE",
        "CREATE TABLE", "DROP TABLE", "OPTIMIZE", "TABLE ENGINE",
    }  # fmt: skip


def test_nothing_of_ours_runs_as_root(compose: dict[str, Any], dockerfile: list[tuple[str, str]]) -> None:
    number = next(re.search(r"--uid (\d+)", rest) for word, rest in dockerfile if word == "RUN" and "useradd" in rest)
    assert number is not None
    for name in OURS:
        service = compose["services"][name]
        assert service["user"] == f"{number[1]}:{number[1]}", name
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service.get("privileged")
    last = [rest for word, rest in dockerfile if word in ("USER", "RUN", "COPY")]
    assert last[-1] == "factory", "nothing is added after the user is set"


def test_what_is_waited_for_can_happen(compose: dict[str, Any]) -> None:
    services = compose["services"]
    started = set(example()[0]["COMPOSE_PROFILES"].split(","))
    assert started == {profile for service in services.values() for profile in service.get("profiles", [])}
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in services[other]["healthcheck"], (name, other)
            if how["condition"] == "service_completed_successfully":
                assert "restart" not in services[other], (name, other)
            assert how.get("required", True) or "profiles" in services[other], (name, other)
            assert not how.get("required", True) or "profiles" not in services[other], (name, other)
    for volume in (v for service in services.values() for v in service.get("volumes", [])):
        source = volume.split(":")[0]
        assert (DOCKER / source).is_file() if source.startswith(".") else source in compose["volumes"], volume


def test_the_store_listens_where_it_is_asked(compose: dict[str, Any]) -> None:
    store = compose["services"]["store"]
    endpoint = compose["services"]["code"]["environment"]["AWS_ENDPOINT_URL"]
    port = endpoint.rpartition(":")[2]
    assert endpoint == f"http://store:{port}"
    assert f"-s3.port={port}" in store["command"]
    assert store["ports"][0].endswith(f":{port}")


# --- the image ---


def test_the_image_copies_what_there_is(dockerfile: list[tuple[str, str]]) -> None:
    sources = {
        source
        for word, rest in dockerfile
        if word == "COPY" and "--from=" not in rest
        for source in rest.split()[:-1]
        if not source.startswith("--")
    }
    lines = (DOCKER / "Dockerfile.dockerignore").read_text().splitlines()
    let_through = {line[1:] for line in lines if line.startswith("!")}
    assert "*" in lines
    assert sources == let_through
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_has_what_it_needs_at_run_time(dockerfile: list[tuple[str, str]]) -> None:
    held = copied(dockerfile)
    # load_from_defs_folder looks for the pyproject.toml above the package
    assert held["/opt/factory/pyproject.toml"] == "pyproject.toml"
    assert {held["/opt/factory/factory_lib"], held["/opt/factory/factory_assets"]} == {"factory_lib", "factory_assets"}
    assert held[INSTANCE + "dagster.yaml"] == "docker/dagster.yaml"
    environment = " ".join(rest for word, rest in dockerfile if word == "ENV")
    assert f"DAGSTER_HOME={INSTANCE.rstrip('/')}" in environment
    homes = set(re.findall(r"(?:FACTORY_HOME|DAGSTER_HOME)=(\S+)", environment))
    owned = next(rest for word, rest in dockerfile if word == "RUN" and "install --directory" in rest)
    assert homes <= set(owned.split())
    user = [rest for word, rest in dockerfile if word == "USER"]
    assert user == ["factory"]
    assert "useradd --uid 10001" in owned


def test_the_image_installs_pinned_packages(dockerfile: list[tuple[str, str]]) -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    runs = " ".join(rest for word, rest in dockerfile if word == "RUN")
    assert "--constraint constraints.txt --editable '.[server,ray]'" in runs
    assert "--no-deps --require-hashes --requirement requirements.lock" in runs
    assert runs.index("requirements.lock") < runs.index("--constraint constraints.txt")
    assert "torch" in pinned
    assert "grep '^torch==' constraints.txt" in runs
    extras = PROJECT["project"]["optional-dependencies"]
    for requirement in [*extras["server"], *extras["ray"]]:
        assert re.match(r"[\w-]+", requirement)[0] in pinned  # type: ignore[index]
    # Dagster's libraries are numbered 0.(16 + minor).patch
    assert pinned["dagster-postgres"] == pinned["dagster-aws"] == f"0.{16 + 13}.{pinned['dagster'].split('.')[2]}"


def test_commands_exist_and_take_these_options(compose: dict[str, Any], dockerfile: list[tuple[str, str]]) -> None:
    import click

    places = {
        "dagster": "dagster._cli:cli",
        "dagster-webserver": "dagster_webserver.cli:dagster_webserver",
        "dagster-daemon": "dagster._daemon.cli:create_dagster_daemon_cli",
    }
    installed = {script.name: script.value for script in importlib.metadata.entry_points(group="console_scripts")}
    held = copied(dockerfile)
    seen = set()
    for words in commands(compose, dockerfile):
        program, *rest = (str(ROOT / held[word]) if word in held else word for word in words)
        seen.add(program)
        if program == "python":
            assert "/opt/factory/" + rest[0] in held or rest[0] == "-c"
            if rest[0] == "-c":
                compile(rest[1], "healthcheck", "exec")
            continue
        module, _, name = places[program].partition(":")
        assert installed[program].split(":")[0].startswith(module)
        command = getattr(importlib.import_module(module), name)
        command = command if isinstance(command, click.Command) else command()
        context = click.Context(command, info_name=program)
        while isinstance(command, click.Group):
            word = rest.pop(0)
            found = command.get_command(context, word)
            assert found is not None, f"{program} has no command {word!r}"
            command, context = found, click.Context(found, parent=context, info_name=word)
        command.make_context(command.name, rest, parent=context)
    assert seen == {"python", *places}
    assert installed["factory"].startswith("factory_lib.entry")


# --- README ---


def test_the_readme_names_what_there_is(compose: dict[str, Any]) -> None:
    text = (DOCKER / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (DOCKER / link).exists(), link
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| (\d*) ?\|$", text, re.MULTILINE))
    ports = {
        name: "".join(port.split(":")[1] for port in service.get("ports", []))
        for name, service in compose["services"].items()
    }
    assert rows == ports
    named = set(re.findall(r"`([A-Z][A-Z0-9]*_[A-Z0-9_]+)[`=]", text))
    used: dict[str, str] = {}
    interpolated((DOCKER / "compose.yaml").read_text(), dict.fromkeys(SECRETS, "x"), used)
    assert named - {"COMPOSE_PROFILES"} <= used.keys() | _read_by_us()
    for service, script in re.findall(r"exec (\w+) (?:bash )?(\S+)", text):
        mounted = [volume.split(":")[1] for volume in compose["services"][service].get("volumes", [])]
        assert script in mounted or script in {"factory", "pg_dump", "clickhouse-client"}, script
