"""The locks carry hashes, agree with the constraints, and are what is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("requirements.lock", "docker/requirements.lock", "accelerator.lock", "torch-cpu.lock", "installer.lock")


def entries(lock: str) -> dict[str, str]:
    """Package -> its entry: version, marker and hashes."""
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    found = re.findall(r"^\S.*(?:\n\s+\S.*)*", text, re.MULTILINE)
    return {one.partition("==")[0]: one for one in found}


def constraints() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return {name.replace(".", "-"): version for name, _, version in (one.partition("==") for one in lines) if version}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_and_has_hashes(lock: str) -> None:
    for name, entry in entries(lock).items():
        assert re.match(r"[a-z0-9.-]+==[\w.+!]+( ; .*)?( \\\n    --hash=sha256:[0-9a-f]{64})+$", entry), name


ELSEWHERE = re.compile(r"sys_platform == |python_full_version >= ")
"""Marks what another system, or a Python later than the oldest, needs."""


def test_locks_take_the_versions_of_the_constraints() -> None:
    pinned = constraints()
    for lock in LOCKS[:2]:
        held = {name: re.split(r"[ ;]", one.partition("==")[2])[0] for name, one in entries(lock).items()}
        elsewhere = {name for name, one in entries(lock).items() if ELSEWHERE.search(one.partition("\\")[0])}
        assert {n: v for n, v in held.items() if n not in elsewhere} == {n: pinned[n] for n in held.keys() - elsewhere}
    assert set(entries("torch-cpu.lock")) == {"torch"}
    assert entries("torch-cpu.lock")["torch"].startswith(f"torch=={pinned['torch']}+cpu ")


def test_locks_hold_what_the_project_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {"requirements.lock": extras["dev"] + extras["fast"], "docker/requirements.lock": extras["server"]}
    for lock, more in wanted.items():
        names = {re.match(r"[\w-]+", one)[0].lower() for one in project["dependencies"] + more}  # type: ignore[index]
        missing = names - entries(lock).keys() - {"dataset-factory", "torch"}
        assert not missing, lock
    assert "torch" in entries("requirements.lock")


def test_make_installs_the_locks_with_their_hashes() -> None:
    text = (ROOT / "Makefile").read_text()
    rule = re.search(r"^\$\(STAMP\):.*\n(?:\t.*\n)+", text, re.MULTILINE)
    assert rule is not None
    installs = re.findall(r"\$\(PIP\) ([^;|\n]*)", rule[0])
    assert len(installs) == 2
    for one in installs:
        assert "--no-deps" in one
        assert "--require-hashes" in one or one.strip() == "--quiet --no-deps --no-build-isolation --editable ."
    assert re.findall(r"\.ci/install\.py (\S+)", rule[0]) == ["requirements.lock", "accelerator.lock;"]
    assert set(entries("installer.lock")) == {"uv"}


@pytest.fixture
def installing() -> ModuleType:
    """`.ci/install.py`, as a module."""
    spec = importlib.util.spec_from_file_location("installing", ROOT / ".ci" / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_uv_is_told_what_pip_is_configured_with(installing: ModuleType) -> None:
    listed = (
        ":env:.index-url='https://mirror/simple'\n:env:.default-timeout='180'\nglobal.cert='/etc/a b.crt'\n"
        "global.extra-index-url='file:///one file:///two'\nglobal.find_links='/wheels\\n/more'\n"
        "global.index-url='https://pypi/simple'\n"
    )
    assert installing.settings_for_uv(listed, {}) == {
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_INDEX": "file:///one file:///two",
        "UV_FIND_LINKS": "/wheels,/more",
        "SSL_CERT_FILE": "/etc/a b.crt",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }
    own = {"UV_INDEX_URL": "https://own", "SSL_CERT_FILE": "/own.crt"}
    assert installing.settings_for_uv(listed, own).keys() == {"UV_INDEX", "UV_FIND_LINKS", "UV_INDEX_STRATEGY"}
    assert installing.settings_for_uv("", {}) == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def test_where_uv_fails_pip_installs_all_the_same(
    installing: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(command)
        return subprocess.CompletedProcess(command, 2 if "installer.lock" in command[-1] else 0, "", "no such index\n")

    monkeypatch.setattr(installing.subprocess, "run", run)
    installing.install("requirements.lock")
    assert capsys.readouterr().out == "requirements.lock: uv cannot (no such index), pip does it.\n"
    assert ran[-1][1:3] == ["-m", "pip"]
    assert ran[-1][-4:] == ["--no-deps", "--require-hashes", "--requirement", "requirements.lock"]
