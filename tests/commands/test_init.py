"""`factory init`: the project that it makes works where the packages are installed and no checkout is near."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from factory_lib.commands.init import package_name, template
from tests.command_line import ROOT, data, run


def test_the_project_passes_its_tests_and_dagsters_checks(tmp_path: Path) -> None:
    site, project = tmp_path / "site", tmp_path / "Street-Photos"
    for package in ("factory_lib", "factory_assets"):
        shutil.copytree(ROOT / package, site / package, ignore=shutil.ignore_patterns("__pycache__"))
    made = data("init", str(project))
    assert made["package"] == "street_photos"
    assert sorted(made["files"]) == sorted(
        path.relative_to(project).as_posix() for path in project.rglob("*") if path.is_file()
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(project / "src")])}
    environment.pop("FACTORY_HOME")
    commands = {
        "pytest": [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests")],
        "check": [str(Path(sys.executable).parent / "dg"), "check", "defs"],
    }
    running = {
        name: subprocess.Popen(
            command, cwd=project, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, command in commands.items()
    }
    said = {name: process.communicate(timeout=300)[0] for name, process in running.items()}
    assert {name: process.returncode for name, process in running.items()} == dict.fromkeys(commands, 0), said
    assert "3 passed" in said["pytest"]
    assert "All definitions loaded successfully" in said["check"]
    assert [name for name, text in said.items() if "warning" in text.lower()] == []
    assert not (project / ".factory").exists()  # the tests had a data folder of their own


def test_nothing_of_the_example_stays(tmp_path: Path) -> None:
    run("init", str(tmp_path / "a"), "--name", "Street photos")
    texts = [path.read_text() for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert not any("my_factory" in text or "my-factory" in text for text in texts)
    assert any('name = "street-photos"' in text for text in texts)
    assert (tmp_path / "a" / "src" / "street_photos_exports" / "definitions.py").is_file()


def test_every_file_of_the_template_is_packed() -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "factory_lib/project_template"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in tracked if not name.endswith(".tmpl")] == []
    assert len(tracked) == len(dict(template()))


def test_the_next_steps_are_said(tmp_path: Path) -> None:
    said = run("init", str(tmp_path / "my photos"), "--name", "photos").stdout
    assert f"  cd '{tmp_path / 'my photos'}' && python -m pip install -e '.[dev]'\n  pytest\n  factory up" in said


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    failed = run("init", str(tmp_path), "--name", "photos", code=1)
    assert "is not empty" in failed.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["class", "7days", "numpy", "factory_lib", "ünder", ""])
def test_names_that_no_package_may_have_are_refused(name: str, tmp_path: Path) -> None:
    failed = run("init", str(tmp_path / "new" / name), *(["--name", name] if name else ["--name", "-"]), code=1)
    assert "--name my_factory" in failed.stderr
    assert not (tmp_path / "new").exists()


def test_names_of_folders_become_names_of_packages() -> None:
    assert package_name("Street-Photos 2.0") == "street_photos_2_0"
    assert package_name("laion") == "laion"
