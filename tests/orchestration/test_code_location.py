"""Which graph is meant in which folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from factory_lib.errors import FactoryError
from factory_lib.orchestration.code_location import PACKAGE, code_location, dagster_arguments, load_definitions

ROOT = Path(__file__).resolve().parents[2]


def said(folder: Path) -> tuple[str, str]:
    found = code_location(folder)
    return found.module, found.folder.relative_to(folder).as_posix()


def test_each_way_to_say_it(tmp_path: Path) -> None:
    assert said(tmp_path) == (PACKAGE, ".")
    assert dagster_arguments(tmp_path) == ["-m", PACKAGE, "-d", str(tmp_path)]
    project, workspace = tmp_path / "pyproject.toml", tmp_path / "workspace.yaml"
    workspace.write_text(
        "load_from:\n  - python_module: {module_name: mine.definitions, working_directory: lib}\n"
        "  - python_module: others.definitions\n"
    )
    assert said(tmp_path) == ("mine.definitions", "lib")
    assert dagster_arguments(tmp_path) == ["-w", "workspace.yaml"]
    workspace.write_text("load_from:\n  - python_module: others.definitions\n")
    assert said(tmp_path) == ("others.definitions", ".")
    project.write_text("[project]\nname = 'x'\n")
    assert said(tmp_path) == ("others.definitions", ".")
    project.write_text("[tool.dg.project]\nroot_module = 'mine'\n")
    assert said(tmp_path) == ("mine.definitions", ".")
    (tmp_path / "src").mkdir()
    assert said(tmp_path) == ("mine.definitions", "src")
    project.write_text("[tool.dagster]\nmodule_name = 'this.one'\nworking_directory = 'src'\n")
    assert said(tmp_path) == ("this.one", "src")
    assert said(ROOT) == (PACKAGE, ".")


def test_what_cannot_be_read_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "workspace.yaml").write_text("load_from:\n  - python_file: graph.py\n")
    with pytest.raises(FactoryError, match=r"names no module first.*--module"):
        code_location(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.dagster\n")
    with pytest.raises(FactoryError, match=r"pyproject\.toml cannot be read"):
        code_location(tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.dagster]\nmodule_name = 'graph_of_a_test'\n")
    (tmp_path / "graph_of_a_test.py").write_text("import dagster as dg\ndefs = dg.Definitions()\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    assert load_definitions().resolve_asset_graph().get_all_asset_keys() == set()
