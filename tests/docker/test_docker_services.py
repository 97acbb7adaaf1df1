"""Dagster's configuration and the buckets of docker/, with the programs that read them. No container is started."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.docker_files import (
    DOCKER,
    PROJECT,
    compose,
    dockerfile,
)
from tests.s3 import Bucket

__all__ = ["compose", "dockerfile"]


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
