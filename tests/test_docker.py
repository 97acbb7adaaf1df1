"""The files in docker/ against each other and against the programs that they configure. No container is started."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import re
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from factory_lib.warehouse.address import client_arguments
from tests.s3 import Bucket

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
    assert "--constraint constraints.txt --editable '.[server]'" in runs
    assert "--no-deps --require-hashes --requirement requirements.lock" in runs
    assert runs.index("requirements.lock") < runs.index("--constraint constraints.txt")
    assert "torch" in pinned
    assert "grep '^torch==' constraints.txt" in runs
    for requirement in PROJECT["project"]["optional-dependencies"]["server"]:
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
    assert installed["factory"].startswith("factory_lib.cli")


# --- Dagster ---


def test_the_workspace_is_the_code_server(compose: dict[str, Any]) -> None:
    from dagster._core.workspace.config_schema import ensure_workspace_config

    given = yaml.safe_load((DOCKER / "workspace.yaml").read_text())
    ensure_workspace_config(given, "workspace.yaml")
    server = given["load_from"][0]["grpc_server"]
    command = compose["services"][server["host"]]["command"]
    options = dict(zip(command[3::2], command[4::2], strict=True))
    project = PROJECT["tool"]["dg"]["project"]
    assert options["--port"] == str(server["port"])
    assert options["--host"] == "0.0.0.0"
    assert options["--module-name"] == project["code_location_target_module"]
    assert server["location_name"] == project["code_location_name"]
    assert compose["services"]["code"]["healthcheck"]["test"][-1] == str(server["port"])


@pytest.fixture
def instance_environment(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables of the service `code`, set."""
    given: dict[str, str] = compose["services"]["code"]["environment"]
    for name, value in given.items():
        if name.startswith("DAGSTER_"):
            monkeypatch.setenv(name, value)
    return given


def test_dagster_accepts_its_configuration(instance_environment: dict[str, str]) -> None:
    import sqlalchemy
    from dagster._config import process_config
    from dagster._core.instance.config import dagster_instance_config
    from dagster._core.storage.config import pg_config

    config, _ = dagster_instance_config(str(DOCKER))
    processed = process_config(pg_config(), config["storage"]["postgres"])
    assert processed.success, processed.errors
    assert processed.value is not None
    database = processed.value["postgres_db"]
    assert database["password"] == instance_environment["DAGSTER_POSTGRES_PASSWORD"]
    assert database["hostname"] == "postgres"
    # what "postgresql" alone means depends on the version of SQLAlchemy; this driver is in the extra
    driver = sqlalchemy.engine.make_url(f"{database['scheme']}://").get_driver_name()
    assert f"{driver}-binary" in " ".join(PROJECT["project"]["optional-dependencies"]["server"])
    assert config["run_monitoring"]["enabled"] is True
    assert config["run_monitoring"]["free_slots_after_run_end_seconds"] > 0
    assert config["concurrency"]["runs"]["max_concurrent_runs"] > 0


def test_dagster_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    """The check above is one: a misspelt key does not pass."""
    from dagster._core.errors import DagsterInvalidConfigError
    from dagster._core.instance.config import dagster_instance_config

    text = (DOCKER / "dagster.yaml").read_text()
    (tmp_path / "dagster.yaml").write_text(text.replace("poll_interval_seconds", "poll_interval"))
    with pytest.raises(DagsterInvalidConfigError):
        dagster_instance_config(str(tmp_path))


def test_output_of_runs_goes_to_the_store(s3: Bucket, instance_environment: dict[str, str], tmp_path: Path) -> None:
    from dagster._core.instance.config import dagster_instance_config
    from dagster._core.storage.compute_log_manager import ComputeIOType
    from dagster._serdes import ConfigurableClassData

    bucket = instance_environment["DAGSTER_LOGS_BUCKET"]
    _make_buckets().main([bucket])
    given = dagster_instance_config(str(DOCKER))[0]["compute_logs"]
    config = yaml.safe_dump({**given["config"], "local_dir": str(tmp_path)})
    manager = ConfigurableClassData(given["module"], given["class"], config).rehydrate()  # type: ignore[var-annotated]
    key = ["run", "compute_logs", "step"]
    target = manager.local_manager.get_captured_local_path(key, "out")
    Path(target).parent.mkdir(parents=True)
    Path(target).write_text("said by a step")
    manager.upload_to_cloud_storage(key, ComputeIOType.STDOUT)
    stored = s3.client.list_objects_v2(Bucket=bucket)["Contents"]
    assert [one["Key"] for one in stored] == ["compute-logs/storage/run/compute_logs/step.out"]


# --- the buckets ---


def _make_buckets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_buckets", DOCKER / "make_buckets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_buckets_are_made_once(s3: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    s3.put("there/already", b"kept")
    _make_buckets().main([s3.name, "logs"])
    assert capsys.readouterr().out.splitlines() == [f"{s3.name}: is there", "logs: made"]
    assert {one["Name"] for one in s3.client.list_buckets()["Buckets"]} == {s3.name, "logs"}
    assert s3.client.get_object(Bucket=s3.name, Key="there/already")["Body"].read() == b"kept"


def test_buckets_outside_the_first_region(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    _make_buckets().main(["far"])
    assert s3.client.get_bucket_location(Bucket="far")["LocationConstraint"] == "eu-central-1"


@pytest.mark.parametrize(("answers", "ends"), [([503, 503, 200], False), ([403], True), ([503] * 9, True)])
def test_a_store_that_is_not_up_yet(
    s3: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answers: list[int], ends: bool
) -> None:
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(left.pop(0) if left else 500)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    module = _make_buckets()
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    try:
        if ends:
            with pytest.raises(SystemExit, match="'shards' at http://127"):
                module.main(["shards"], wait_seconds=0.0 if len(answers) > 1 else 60.0)
        else:
            module.main(["shards"])
            assert capsys.readouterr().out.splitlines()[-1] == "shards: is there"
            assert left == []
    finally:
        server.shutdown()
        server.server_close()


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
