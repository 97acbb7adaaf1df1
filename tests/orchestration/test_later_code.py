"""A code location that was not reloaded after an edit or an upgrade does not ask for what newer code has made."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from factory_lib.orchestration import code
from factory_lib.orchestration.behind.unsynced import CODE, unsynced
from tests.command_line import data
from tests.dagster_graph import Code, graph, look, run, write_tar


@pytest.mark.usefixtures("engine")
def test_what_later_code_made_is_not_behind_for_who_loaded_earlier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_tar(tmp_path / "a.tar", ["a"])
    daemon, edited = graph(tmp_path), graph(tmp_path, Code(unit=2))
    loaded = code.LOADED
    with dg.DagsterInstance.ephemeral() as instance:

        def behind(definitions: dg.Definitions) -> list[tuple[str, str]]:
            found = unsynced(instance, definitions.resolve_asset_graph())
            return [(one.asset.path[-1], one.reason) for one in found]

        look(instance, tmp_path)
        run(daemon, instance, ["samples", "measured", "kept"], ["a"])
        run(daemon, instance, ["chosen"])
        assert behind(daemon) == []
        # Somebody edits the code; a run is started, which loads it from the file.
        monkeypatch.setattr(code, "LOADED", loaded + 60)
        run(edited, instance, ["samples", "measured", "kept"], ["a"])
        run(edited, instance, ["chosen"])
        assert behind(edited) == []
        monkeypatch.setattr(code, "LOADED", loaded)
        assert behind(daemon) == [], "it would ask for runs for ever, each of which makes what is there already"
        # The edit is taken back, and the location reloaded.
        monkeypatch.setattr(code, "LOADED", loaded + 120)
        assert behind(daemon) == [("measured", CODE)]


@pytest.mark.usefixtures("engine")
def test_what_started_before_an_upgrade_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert data("status")["older_than_installed"] == []
    monkeypatch.setattr("factory_lib.commands.services.installed_at", lambda: 4e9)
    assert data("status")["older_than_installed"] == ["the engine"]
