"""The loader's page: its Python runs and does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from factory_lib import DatasetQuery
from factory_lib.cli import factory

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "loader.md").read_text()


@pytest.mark.usefixtures("engine")
def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from factory_assets.demo.rendered.folder import write_folder

    folder = write_folder(tmp_path / "shards", samples=240, shards=2)
    version = DatasetQuery.from_source(str(folder.path)).save("laion")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "loader.md", "exec"), names)
    assert names["pictures"].shape == (48, 64, 64, 3)
    assert len(names["captions"]) == 48
    assert names["rest"] == -(-DatasetQuery(version).count() // 48) - 1
    sources = [source for batch in names["sources"] for source in batch]
    assert len(sources) == 96
    assert 0 < sum(sources) < 48


def test_its_commands_and_settings_exist() -> None:
    assert "cache" in factory.list_commands(None)  # type: ignore[arg-type]
    cache = factory.get_command(None, "cache")  # type: ignore[arg-type]
    assert set(re.findall(r"^factory cache (\w+)", PAGE, re.MULTILINE)) == set(cache.commands)  # type: ignore[union-attr]
    settings = (Path(__file__).resolve().parents[2] / "factory_lib" / "settings.py").read_text()
    assert all(name in settings for name in re.findall(r"FACTORY_[A-Z_]+", PAGE))
