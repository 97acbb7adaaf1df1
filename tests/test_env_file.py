"""`.env`: read as Dagster reads it, behind the environment, and never against it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from factory_lib.environment import use_env_file
from factory_lib.errors import FactoryError
from factory_lib.orchestration.serving import serve, sole_server
from factory_lib.settings import settings
from tests.command_line import COMMAND


def test_the_command_line_takes_what_the_environment_does_not_say(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FACTORY_HOME=mine\nFACTORY_SOURCE=${FACTORY_SOURCE:-s3://bucket/shards}\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FACTORY_")}

    def status(**more: str) -> str:
        command = [*COMMAND, "status"]
        return subprocess.run(
            command, cwd=tmp_path, env=environment | more, capture_output=True, text=True, check=True
        ).stdout

    assert str(tmp_path / "mine") in status()
    assert "s3://bucket/shards" in status()
    assert "s3://other" in status(FACTORY_SOURCE="s3://other", FACTORY_HOME=str(tmp_path / "other"))


def test_a_file_against_the_environment_is_refused_where_dagster_would_follow_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACTORY_HOME", str(tmp_path / "told"))
    (tmp_path / ".env").write_text("FACTORY_HOME=mine\n")
    use_env_file(tmp_path)
    home = settings().home
    assert home == tmp_path / "told"
    with sole_server(home) as me, pytest.raises(FactoryError, match=r"\.env says FACTORY_HOME=mine") as failed:
        serve(home, me, "127.0.0.1", None).__enter__()
    assert failed.value.hint.endswith("FACTORY_HOME=${FACTORY_HOME:-mine}")
