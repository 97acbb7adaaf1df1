"""The README: its Python runs, its commands and files exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from factory_lib import DatasetQuery
from factory_lib.cli import factory

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.usefixtures("engine")
def test_the_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from factory_lib.rendered.folder import write_folder

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


def test_commands_files_and_targets_exist() -> None:
    commands = set(re.findall(r"`factory ([a-z-]+)", README))
    assert commands <= set(factory.list_commands(None))  # type: ignore[arg-type]
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z]+)", README, re.MULTILINE)):
        assert f"\n{target}:" in makefile, target
    for link in re.findall(r"\]\(([^)]+)\)", README):
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_settings_are_documented() -> None:
    text = (ROOT / "factory_lib" / "settings.py").read_text()
    documented = set(re.findall(r"`(FACTORY_[A-Z_]+)`", README))
    known = set(re.findall(r"\bFACTORY_[A-Z_]+", text))
    assert documented == known
