"""Completion: what TAB offers, in the shells that are here, and that it starts and says nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from factory_lib.commands.naming import stages_written_in
from factory_lib.commands.unsynced import stage_names
from factory_lib.warehouse.embedded import engine_status
from tests.command_line import photos, run

__all__ = ["photos"]

OFFERS = {
    "factory sh": ["show"],
    "factory why": ["why-stale"],
    "factory sql x --fo": ["--format"],
    "factory sql x --format j": ["json", "jsonl"],
    "factory show p": ["photos"],
    "factory show photos": ["photos", "photos.v1", "photos.v2", "photos@icml"],
    "factory show photos.": ["photos.v1", "photos.v2"],
    "factory show photos@": ["photos@icml"],
    "factory diff photos.v1 photos.v": ["photos.v1", "photos.v2"],
    "factory why-stale b": ["basic_filter"],
    "factory cache s": ["show"],
    "factory ingest x --name w": ["wide"],
    "factory nosuch x": [],
}


@pytest.fixture
def asked(photos: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tag to be found, and the command on the path."""
    run("tag", "photos.v1", "icml")
    script = tmp_path / "bin" / "factory"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m factory_lib.cli "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def shell(*arguments: str) -> str:
    done = subprocess.run([*arguments], capture_output=True, text=True, timeout=120)
    assert "Traceback" not in done.stderr + done.stdout
    return done.stdout


BASH = """
source {script}
compopt() {{ COMPREPLY=("compopt $2"); }}
ask() {{
    COMP_LINE="$1" COMP_POINT=${{#1}} COMPREPLY=()
    _factory_completion factory
    echo "== $1"; printf '%s\\n' "${{COMPREPLY[@]}}"
}}
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_bash(asked: Path) -> None:
    (asked / "completion").write_text(run("completion", "bash").stdout)
    # To bash the word begins behind the @; paths it completes by itself.
    expected = OFFERS | {"factory show photos@": ["icml"], "factory ingest /tm": ["compopt default"]}
    script = BASH.format(script=asked / "completion") + "\n".join(f"ask '{line}'" for line in expected)
    parts = shell("bash", "--norc", "-c", script).split("== ")[1:]
    assert {part.split("\n")[0]: [one for one in part.split("\n")[1:] if one] for part in parts} == expected


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not here")
def test_fish(asked: Path) -> None:
    (asked / "completion").write_text(run("completion", "fish").stdout)
    for line in ("factory sh", "factory show photos@", "factory why-stale b"):
        said = shell("fish", "--no-config", "-c", f"source {asked / 'completion'}; complete -C '{line}'")
        assert said.split() == OFFERS[line], line


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not here")
def test_zsh_takes_the_script(asked: Path) -> None:
    (asked / "completion").write_text(run("completion", "zsh").stdout)
    loaded = f"autoload -U compinit; compinit -D; source {asked / 'completion'}; print -r -- $_comps[factory]"
    assert shell("zsh", "-f", "-c", loaded).strip() == "_factory_completion"


def test_a_tab_starts_no_engine(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for line in ("factory show la", "factory sh"):
        environment = {**os.environ, "FACTORY_HOME": str(home), "_FACTORY_COMPLETE": "bash_complete", "COMP_LINE": line}
        done = subprocess.run(
            [sys.executable, "-m", "factory_lib.cli"], capture_output=True, text=True, env=environment, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "plain,show\n"
    assert engine_status(home) is None
    assert not home.exists()


def test_stages_are_found_without_loading_the_graph() -> None:
    assert stages_written_in("factory_assets.definitions") == stage_names("factory_assets.definitions")
    assert stages_written_in("nosuch.module") == []


def test_stages_of_a_project_and_of_the_graph_that_it_stands_on(tmp_path: Path) -> None:
    run("init", str(tmp_path / "street"), "--name", "street")
    written = stages_written_in("street.definitions", tmp_path / "street")
    assert set(stages_written_in("factory_assets.definitions")) < set(written)
    (tmp_path / "alone.py").write_text("@dg.asset(name='crops')\ndef made(): ...\n@other\ndef no(): ...\n")
    assert stages_written_in("alone", tmp_path) == ["crops"]
