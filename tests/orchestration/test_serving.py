"""The UI beside the engine: started, found, stopped with all it started."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from factory_lib.environment import SERVED
from factory_lib.errors import FactoryError
from factory_lib.orchestration.serving import port_for, serving, sole_server, stop_group, stop_serving
from factory_lib.owners import Owner, folder_identity
from factory_lib.warehouse.embedded import engine_status, stop_engine

COMMAND = [sys.executable, "-m", "factory_lib.cli"]
STUBBORN = (
    "import signal, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal, time; signal.signal(15, signal.SIG_IGN); "
    "print(1, flush=True); time.sleep(600)'])\n"
    "print(child.pid, flush=True); time.sleep(600)"
)


def test_ports() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(FactoryError, match=f"127.0.0.1:{port} cannot be used"):
            port_for("127.0.0.1", port)
    assert port_for("127.0.0.1", port) == port
    assert 3000 <= port_for("127.0.0.1", None) < 3020
    with pytest.raises(FactoryError, match="cannot be used"):
        port_for("192.0.2.1", 3000)


def test_a_state_left_by_a_killed_process_counts_for_nothing(tmp_path: Path) -> None:
    assert serving(tmp_path) is None
    (tmp_path / "up.json").write_text("{")
    assert serving(tmp_path) is None
    me = Owner.here().as_dict()
    state = {"owner": me, "folder": folder_identity(tmp_path), "url": "http://127.0.0.1:3000", "mark": "x"}
    for owner in ({**me, "started": "another"}, {**me, "boot": "another"}):
        (tmp_path / "up.json").write_text(json.dumps({**state, "owner": owner}))
        assert serving(tmp_path) is None
    (tmp_path / "up.json").write_text(json.dumps({**state, "folder": "1:1"}))  # a copy of the folder
    assert serving(tmp_path) is None
    assert not stop_serving(tmp_path)


def test_one_at_a_time_serves_and_the_loser_touches_nothing(tmp_path: Path) -> None:
    with sole_server(tmp_path) as me:
        before = (tmp_path / "up.json").read_bytes()
        with pytest.raises(FactoryError, match=r"runs already.*factory down"), sole_server(tmp_path):
            pass
        second = subprocess.run(
            [*COMMAND, "up"], env={**os.environ, "FACTORY_HOME": str(tmp_path)}, capture_output=True, text=True
        )
        assert second.returncode == 1
        assert "runs already" in second.stderr
        assert (tmp_path / "up.json").read_bytes() == before
        assert serving(tmp_path) == me
    assert serving(tmp_path) is None
    with sole_server(tmp_path):
        pass


def test_what_a_killed_server_left_is_stopped_and_nothing_else(tmp_path: Path) -> None:
    server = (
        "import os, subprocess, sys, time\nfrom pathlib import Path\n"
        "from factory_lib.orchestration.serving import sole_server\nfrom factory_lib.environment import SERVED\n"
        "with sole_server(Path(sys.argv[1])) as me:\n"
        "    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True,"
        " env={**os.environ, SERVED: me.mark})\n"
        "    print(child.pid, flush=True); time.sleep(600)"
    )
    stranger = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], env={**os.environ, SERVED: "no"}
    )
    killed = subprocess.Popen([sys.executable, "-c", server, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert killed.stdout is not None
        left = Owner.process(int(killed.stdout.readline()))
        killed.kill()
        killed.wait()
        assert not left.is_gone
        assert serving(tmp_path) is None
        assert stop_serving(tmp_path)
        assert left.is_gone
        assert stranger.poll() is None
        assert not stop_serving(tmp_path)
    finally:
        stranger.kill()
        stranger.wait()


def test_a_group_ends_whole() -> None:
    leader = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert leader.stdout is not None
    assert [int(leader.stdout.readline()) > 0 for _ in range(2)]  # both have begun
    assert len(_members(leader.pid)) == 2
    stop_group(leader)
    assert leader.returncode in (-signal.SIGTERM, -signal.SIGKILL)  # the second where it is slow to go
    _wait_until_gone(leader.pid)


def _members(group: int) -> list[int]:
    """Processes of a group that run; what ended and waits to be taken note of does not."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, member_of = (folder / "stat").read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if int(member_of) == group and state != "Z":
            found.append(int(folder.name))
    return found


def _wait_until_gone(group: int) -> None:
    deadline = time.monotonic() + 10
    while _members(group):
        assert time.monotonic() < deadline, _members(group)
        time.sleep(0.05)


def test_up_serves_until_it_is_told_to_stop(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (tmp_path / "graph.py").write_text(
        "import dagster as dg\n@dg.asset\ndef one() -> None: ...\ndefs = dg.Definitions([one])\n"
    )
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: graph.py\n")
    environment = {**os.environ, "FACTORY_HOME": str(home)}
    options = {"cwd": tmp_path, "env": environment, "text": True}
    up = subprocess.Popen([*COMMAND, "up", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload]
    try:
        assert up.stdout is not None
        printed = ""
        while line := up.stdout.readline():
            printed += line
            if line == "}\n":
                break
        url = json.loads(printed)["url"]
        with urllib.request.urlopen(f"{url}/server_info") as answer:
            assert "dagster_webserver_version" in json.load(answer)
        status = subprocess.run([*COMMAND, "status", "--json"], capture_output=True, check=True, **options)  # type: ignore[call-overload]
        assert json.loads(status.stdout)["ui"] == url
        assert json.loads(status.stdout)["engine"]["pid"] == (engine_status(home) or {})["pid"]
        group = os.getpgid(_children(up.pid)[0])
        down = subprocess.run([*COMMAND, "down", "--json"], capture_output=True, check=True, **options)  # type: ignore[call-overload]
        assert json.loads(down.stdout)["stopped"][0] == "ui"
        assert up.wait(60) == 0
        _wait_until_gone(group)
        assert serving(home) is None
        assert engine_status(home) is None
    finally:
        up.kill()
        up.communicate()
        stop_engine(home)


def _children(pid: int) -> list[int]:
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
