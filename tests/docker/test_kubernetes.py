"""The files in deploy/ with the programs that they configure: no cluster runs; a server on loopback stands for its API."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from factory_lib.settings import KNOWN
from tests.docker_files import PROJECT, ROOT

DEPLOY = ROOT / "deploy"
VALUES: dict[str, Any] = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
CODE: dict[str, Any] = VALUES["dagster-user-deployments"]["deployments"][0]
RUNS: dict[str, Any] = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
RAY, RAY_POLICY = yaml.safe_load_all((DEPLOY / "ray.yaml").read_text())
SETTINGS: dict[str, dict[str, str]] = {
    one["metadata"]["name"]: one["data"] for one in yaml.safe_load_all((DEPLOY / "settings.yaml").read_text())
}
PODS = [RAY["spec"]["headGroupSpec"], *RAY["spec"]["workerGroupSpecs"]]


def launcher() -> dict[str, Any]:
    """The section `run_launcher` of dagster.yaml, as the chart makes it of the values."""
    settings = {
        "load_incluster_config": True,
        "job_namespace": "factory",
        "service_account_name": "dagster",
        "dagster_home": VALUES["global"]["dagsterHome"],
        "instance_config_map": "dagster-instance",
        "postgres_password_secret": VALUES["global"]["postgresqlSecretName"],
        "image_pull_policy": RUNS["imagePullPolicy"],
        "env_config_maps": [one["name"] for one in RUNS["envConfigMaps"]],
        "env_secrets": [one["name"] for one in RUNS["envSecrets"]],
        "volumes": RUNS["volumes"],
        "volume_mounts": RUNS["volumeMounts"],
        "resources": RUNS["resources"],
        "security_context": RUNS["securityContext"],
        "fail_pod_on_run_failure": RUNS["failPodOnRunFailure"],
        "run_k8s_config": {
            "pod_spec_config": RUNS["runK8sConfig"]["podSpecConfig"],
            "job_spec_config": RUNS["runK8sConfig"]["jobSpecConfig"],
        },
    }
    return {"module": "dagster_k8s", "class": VALUES["runLauncher"]["type"], "config": settings}


def instance() -> dict[str, Any]:
    """What the chart writes into dagster.yaml, the storages left out."""
    monitoring, sensors = VALUES["dagsterDaemon"]["runMonitoring"], VALUES["dagsterDaemon"]["sensors"]
    logs = VALUES["computeLogManager"]
    return {
        "run_launcher": launcher(),
        "run_monitoring": snake(monitoring),
        "sensors": snake(sensors),
        "telemetry": VALUES["telemetry"],
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": logs["type"],
            "config": snake(logs["config"]["s3ComputeLogManager"]),
        },
        **VALUES["additionalInstanceConfig"],
    }


def snake(values: dict[str, Any]) -> dict[str, Any]:
    return {re.sub(r"[A-Z]", lambda found: "_" + found[0].lower(), name): value for name, value in values.items()}


# --- a run ---


@pytest.fixture
def made(tmp_path: Path) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """What is asked of the cluster's API: path and body. `kubeconfig` in `tmp_path` names it."""
    asked: list[tuple[str, dict[str, Any]]] = []

    class Api(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, body))
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    known = {
        "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        "users": [{"name": "c", "user": {}}],
        "current-context": "c",
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(known))
    yield asked
    server.shutdown()
    server.server_close()


@pytest.fixture
def job(made: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> dict[str, Any]:
    """The job that Dagster's launcher asks the cluster for, for one run."""
    from dagster import DagsterRun, job, op
    from dagster._core.code_pointer import ModuleCodePointer
    from dagster._core.launcher import LaunchRunContext
    from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
    from dagster._core.test_utils import instance_for_test

    given = launcher()
    given["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(tmp_path / "kubeconfig")}
    module = CODE["dagsterApiGrpcArgs"][-1]
    origin = RepositoryPythonOrigin("python", ModuleCodePointer(module, "defs"), container_image=f"{image(CODE)}")

    @op
    def nothing() -> None: ...

    @job(name="ingest")
    def ingest() -> None:
        nothing()

    with instance_for_test(overrides={"run_launcher": given}) as there:
        run: DagsterRun = there.create_run_for_job(
            ingest, run_id=str(uuid.uuid4()), job_code_origin=JobPythonOrigin("ingest", origin)
        )
        there.run_launcher.launch_run(LaunchRunContext(run, None))
    ((path, body),) = made
    assert path == "/apis/batch/v1/namespaces/factory/jobs"
    return body


def image(of: dict[str, Any]) -> str:
    return f"{of['image']['repository']}:{of['image']['tag']}"


def test_a_run_is_a_pod_of_the_same_image_with_settings_and_secrets_by_name(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == image(CODE)
    assert "execute_run" in container["args"]
    named = [next(iter(one.values()))["name"] for one in container["envFrom"]]
    assert named == ["store-settings", "factory-settings", "store-credentials", "warehouse"]
    passwords = {one["name"]: one["valueFrom"]["secretKeyRef"] for one in container["env"] if "valueFrom" in one}
    assert passwords == {"DAGSTER_PG_PASSWORD": {"name": "dagster-postgres", "key": "postgresql-password"}}
    assert container["resources"]["requests"] == {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "25Gi"}
    assert job["spec"]["backoffLimit"] == 0
    assert job["spec"]["ttlSecondsAfterFinished"] == 24 * 60 * 60
    assert pod["restartPolicy"] == "Never"


def test_a_run_may_not_do_more_than_it_needs(job: dict[str, Any]) -> None:
    pod = job["spec"]["template"]["spec"]
    dockerfile = (ROOT / "docker/Dockerfile").read_text()
    assert f"--uid {pod['securityContext']['runAsUser']} " in dockerfile
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    mounts = {one["mountPath"]: one["name"] for one in pod["containers"][0]["volumeMounts"]}
    assert mounts["/var/lib/factory"] == "factory"
    assert "FACTORY_HOME=/var/lib/factory" in dockerfile
    home = next(one["value"] for one in pod["containers"][0]["env"] if one["name"] == "DAGSTER_HOME")
    assert f"DAGSTER_HOME={home} " in dockerfile


def test_runs_alone_reach_the_head_of_ray(job: dict[str, Any]) -> None:
    labels = job["spec"]["template"]["metadata"]["labels"]
    peers, runs = RAY_POLICY["spec"]["ingress"]
    assert runs["from"][0]["podSelector"]["matchLabels"].items() <= labels.items()
    assert runs["ports"] == [{"port": 10001}]
    cluster = {"ray.io/cluster": RAY["metadata"]["name"]}  # the operator's label
    assert RAY_POLICY["spec"]["podSelector"] == peers["from"][0]["podSelector"] == {"matchLabels": cluster}


# --- the instance ---


def test_dagster_accepts_the_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster._core.errors import DagsterInvalidConfigError
    from dagster._core.instance.config import dagster_instance_config
    from dagster._serdes import ConfigurableClassData

    monkeypatch.setenv("DAGSTER_LOGS_BUCKET", SETTINGS["store-settings"]["DAGSTER_LOGS_BUCKET"])
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance()))
    config = dagster_instance_config(str(tmp_path))[0]
    logs = config["compute_logs"]
    manager: Any = ConfigurableClassData(logs["module"], logs["class"], yaml.safe_dump(logs["config"])).rehydrate()
    assert manager._s3_bucket == "dagster-logs"
    wrong = instance()
    wrong["run_monitoring"]["poll_interval"] = 30
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(wrong))
    with pytest.raises(DagsterInvalidConfigError):
        dagster_instance_config(str(tmp_path))


def test_the_instance_is_that_of_docker_with_another_launcher() -> None:
    there = yaml.safe_load((ROOT / "docker/dagster.yaml").read_text())
    here = instance()
    assert here.keys() - there.keys() == {"run_launcher"}
    for name in here.keys() & there.keys() - {"run_monitoring"}:
        assert here[name] == there[name], name
    slower = {"start_timeout_seconds": 900}  # nodes are started, images pulled
    assert here["run_monitoring"] == there["run_monitoring"] | slower
    assert VALUES["postgresql"]["postgresqlScheme"] == there["storage"]["postgres"]["postgres_db"]["scheme"]


def test_the_code_location_starts_by_its_arguments() -> None:
    from dagster._cli.api import api_cli

    module = PROJECT["tool"]["dg"]["project"]["code_location_target_module"]
    given = ["--host", "0.0.0.0", "--port", str(CODE["port"]), *CODE["dagsterApiGrpcArgs"]]
    context = api_cli.commands["grpc"].make_context("grpc", given)
    assert context.params["module_name"] in {module, (module,)}
    assert not CODE["includeConfigInLaunchedRuns"]["enabled"]
    assert CODE["envConfigMaps"] == RUNS["envConfigMaps"]
    assert CODE["envSecrets"] == RUNS["envSecrets"]


# --- Ray ---


def as_model(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """A part of a manifest read as Kubernetes' model of it and written again: unknown keys are errors."""
    import kubernetes.client
    from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict

    kind = getattr(kubernetes.client, name)
    read = k8s_model_from_dict(kind, k8s_snake_case_dict(kind, given))
    written: dict[str, Any] = kubernetes.client.ApiClient().sanitize_for_serialization(read)
    return written


@pytest.mark.parametrize("group", PODS, ids=["head", "cores", "gpus"])
def test_pods_of_ray_are_pods(group: dict[str, Any]) -> None:
    template = group["template"]
    assert as_model("V1PodTemplateSpec", template) == template
    pod = template["spec"]
    (container,) = pod["containers"]
    assert container["image"] == image(CODE)
    assert pod["securityContext"] == RUNS["runK8sConfig"]["podSpecConfig"]["securityContext"]
    assert container["securityContext"] == RUNS["securityContext"]
    misspelt = {"spec": pod | {"volume": []}}
    with pytest.raises(Exception, match="volume"):
        as_model("V1PodTemplateSpec", misspelt)


def test_values_are_what_kubernetes_knows() -> None:
    for part in (CODE, VALUES["dagsterWebserver"], VALUES["dagsterDaemon"], RUNS):
        models = {
            "podSecurityContext": "V1PodSecurityContext",
            "securityContext": "V1SecurityContext",
            "resources": "V1ResourceRequirements",
            "readinessProbe": "V1Probe",
        }
        for key in models.keys() & part.keys():
            assert as_model(models[key], part[key]) == part[key]
        for volume in part.get("volumes", []):
            assert as_model("V1Volume", volume) == volume
    assert as_model("V1NetworkPolicy", RAY_POLICY) == RAY_POLICY


def test_probes_knock_where_something_listens() -> None:
    head, *workers = PODS
    ports = {one["containerPort"] for one in head["template"]["spec"]["containers"][0]["ports"]}
    for group, listening in [
        (head, ports),
        *((one, {int(one["rayStartParams"]["node-manager-port"])}) for one in workers),
    ]:
        container = group["template"]["spec"]["containers"][0]
        assert {container[f"{kind}Probe"]["tcpSocket"]["port"] for kind in ("readiness", "liveness")} <= listening
    webserver = VALUES["dagsterWebserver"]
    assert webserver["readinessProbe"]["httpGet"]["port"] == webserver["service"]["port"] > 1023


def test_ray_starts_by_its_parameters() -> None:
    scripts = pytest.importorskip("ray.scripts.scripts")
    known = {name for option in scripts.start.params for name in option.opts}
    for group in PODS:
        assert {f"--{name}" for name in group["rayStartParams"]} <= known
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())  # the operator's type
    locked = re.search(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked is not None
    assert RAY["spec"]["rayVersion"] == locked[1]
    address = f"ray://{RAY['metadata']['name']}-head-svc:10001"  # the operator's name of the service
    assert SETTINGS["factory-settings"]["RAY_ADDRESS"] == address


# --- names ---


def test_names_are_those_of_settings_and_of_the_page() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text()
    secrets = set(re.findall(r"create secret generic (\S+)", page))
    text = "".join((DEPLOY / name).read_text() for name in ("dagster.yaml", "ray.yaml"))
    for part in (CODE, RUNS, VALUES["dagsterWebserver"], VALUES["dagsterDaemon"]):
        assert {one["name"] for one in part["envConfigMaps"]} <= SETTINGS.keys()
        assert {one["name"] for one in part["envSecrets"]} <= secrets
    for one in PODS[1]["template"]["spec"]["containers"][0]["envFrom"]:
        assert one.get("configMapRef", {}).get("name") in SETTINGS or one["secretRef"]["name"] in secrets
    assert VALUES["global"]["postgresqlSecretName"] in secrets
    assert image(VALUES["dagsterWebserver"]) == image(VALUES["dagsterDaemon"]) == image(CODE)
    assert "warehouse" not in {one["name"] for one in VALUES["dagsterWebserver"]["envSecrets"]}
    assert not re.search(
        r"(?i)(password|secret_access_key|token):\s*\S", text.replace("automountServiceAccountToken: false", "")
    )


def test_settings_are_read_by_somebody() -> None:
    names = {name for data in SETTINGS.values() for name in data}
    ours = {name for name in names if not name.startswith(("AWS_", "DAGSTER_"))}
    assert ours - {"RAY_ADDRESS"} <= set(KNOWN)
    assert all(isinstance(value, str) for data in SETTINGS.values() for value in data.values())


def test_the_chart_is_of_dagsters_version() -> None:
    locked = re.search(r"^dagster==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert locked is not None
    for path in (DEPLOY / "dagster.yaml", ROOT / "docs/kubernetes.md"):
        assert re.findall(r"--version (\d\S*)", path.read_text())[0] == locked[1]
