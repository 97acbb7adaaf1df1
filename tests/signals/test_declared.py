"""What a record names is imported from the project and from packages, never because it lies in the current folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory_lib import DatasetQuery
from factory_lib.errors import SignalError
from factory_lib.signals.naming import signal_of

SIGNALS = """
from pathlib import Path
Path(__file__).with_name("ran").touch()
from factory_lib import signal

@signal
def words(caption: str) -> int:
    return len(caption.split())
"""


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder with modules that nobody declared; Python finds them there, as in a notebook."""
    for name in ("foreign_signals", "json"):
        (tmp_path / f"{name}.py").write_text(SIGNALS)
    package = tmp_path / "foreign_package"
    package.mkdir()
    (package / "__init__.py").write_text(SIGNALS)
    (tmp_path / "foreign_space").mkdir()
    (tmp_path / "foreign_space" / "inner.py").write_text(SIGNALS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("foreign_")]:
        del sys.modules[name]


MODULES = ("foreign_signals", "foreign_package", "foreign_package.words", "foreign_space.inner", "json")


def reference(module: str) -> dict[str, object]:
    return {"name": "words", "inputs": {"caption": "caption"}, "module": module, "attribute": "words"}


@pytest.mark.parametrize("module", MODULES)
def test_modules_of_the_current_folder_are_not_imported(hostile: Path, module: str) -> None:
    with pytest.raises(SignalError, match="is not imported|part of Python"):
        signal_of(reference(module))
    assert not list(hostile.rglob("ran"))


@pytest.mark.parametrize("how", ["project", "PYTHONPATH"])
def test_modules_of_the_project_are_imported(hostile: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    if how == "project":
        (hostile / "pyproject.toml").touch()
    else:
        monkeypatch.setenv("PYTHONPATH", str(hostile))
    assert signal_of(reference("foreign_signals")).name == "words"
    assert signal_of(reference("foreign_space.inner")).name == "words"


def test_no_command_imports_from_the_current_folder(engine: None, hostile: Path) -> None:
    """Neither the command itself, nor the engine that it starts."""
    DatasetQuery.from_arrow(__import__("pyarrow").table({"caption": ["a b"]})).save("said")
    home = hostile / "home"
    environment = {**os.environ, "FACTORY_HOME": str(home)}
    for arguments in (["sql", "SELECT 1"], ["reproduce", "nothing.v1"]):
        ran = subprocess.run(
            [str(Path(sys.executable).with_name("factory")), *arguments],
            cwd=hostile, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert "Traceback" not in ran.stderr, ran.stderr
    assert not list(hostile.glob("**/ran"))
    from factory_lib.warehouse.embedded import stop_engine

    stop_engine(home)
