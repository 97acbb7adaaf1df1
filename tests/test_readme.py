"""The README: its Python runs, its commands exist (`test_docs` has what holds for all pages)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from factory_lib import DatasetQuery
from factory_lib.cli import factory

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.usefixtures("engine")
def test_the_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=60, shards=2)
    version = DatasetQuery.from_source(str(folder.path)).save("laion")
    first = DatasetQuery(version).filter("image.size > 3000").limit(1).to_arrow()["image"].to_pylist()[0]
    with open(first["uri"], "rb") as tar:
        tar.seek(first["offset"])
        (tmp_path / "exemplar.jpg").write_bytes(tar.read(first["size"]))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {"__name__": "readme"}
    (tmp_path / "readme.py").write_text("\n".join(blocks))
    exec(compile("\n".join(blocks), str(tmp_path / "readme.py"), "exec"), names)
    near = DatasetQuery("most_similar.v1")
    assert near.limit(1).to_arrow()["image"].to_pylist() == [first]
    assert "storage: " in capsys.readouterr().out


def test_commands_and_targets_exist() -> None:
    commands = set(re.findall(r"`factory ([a-z-]+)", README))
    assert commands <= set(factory.list_commands(None))  # type: ignore[arg-type]
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE)):
        assert f"\n{target}:" in makefile, target


def _advice() -> Iterator[tuple[str, list[str]]]:
    """Where `factory <command> …` is written in messages, docstrings and docs, and its words."""
    files = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
    texts = [(path.name, [*re.findall(r"`(factory [^`]+)`", path.read_text()), *_typed(path)]) for path in files]
    for path in sorted((ROOT / "factory_lib").rglob("*.py")):
        tree = ast.parse(path.read_text())
        found = [
            node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        texts.append((path.name, found))
    for name, some in texts:
        for command in re.findall(r"\bfactory ([a-z][a-z-]*(?: [\w@=/…-]+)*)", "\n".join(some)):
            yield name, command.split()


def _typed(page: Path) -> list[str]:
    """Commands in the blocks of a page that are to be typed."""
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [found for block in blocks for found in re.findall(r"^(?:[A-Z_]+=\S+ )*(factory .*)$", block, re.MULTILINE)]


def test_commands_that_messages_and_docs_advise_are_taken() -> None:
    checked = 0
    for where, (name, *words) in _advice():
        command = factory.get_command(click.Context(factory), name)
        if command is None:  # other words that follow the name of the program
            continue
        if isinstance(command, click.Group):
            assert words, f"{where}: factory {name} needs a command"
            inner = command.get_command(click.Context(command), words[0])
            assert inner is not None, f"{where}: factory {name} has no {words[0]!r}"
            command = inner
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        given = {word.partition("=")[0] for word in words if word.startswith("--")} - {"--help"}
        assert given <= known, f"{where}: factory {name} has no {given - known}"
        checked += 1
    assert checked > 40
