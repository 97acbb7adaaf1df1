"""`factory run`: what it makes, what it says before and after, how it fails."""

from __future__ import annotations

import contextlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import dagster as dg
import pytest

from factory_lib import DatasetQuery
from factory_lib.orchestration.stage import stage
from factory_lib.settings import settings
from factory_lib.sources import grouping
from tests.command_line import data, run
from tests.dagster_graph import graph, over_samples, write_tar

MODULE = "a_graph_of_tests"


@pytest.fixture
def folder(tmp_path: Path, engine: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Three tars, a graph over them in a module, and an instance that the commands open."""
    for name in ("00", "01", "02"):
        write_tar(tmp_path / f"{name}.tar", [name, name * 3])
    serve(monkeypatch, graph(tmp_path))
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr("factory_lib.orchestration.home.factory_instance", lambda: contextlib.nullcontext(instance))
        yield tmp_path


def serve(monkeypatch: pytest.MonkeyPatch, definitions: dg.Definitions) -> None:
    module = ModuleType(MODULE)
    module.defs = definitions  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, MODULE, module)


def made(*arguments: str, code: int = 0) -> Any:
    return run("run", "--module", MODULE, *arguments, code=code)


def test_all_then_nothing_then_one_shard(folder: Path) -> None:
    first = made()
    assert first.stdout.splitlines() == ["samples: 3 shards", "measured: 3 shards", "kept: 3 shards", "chosen"]
    assert first.stderr.splitlines()[0] == "At the source: 3 new."
    assert "  samples → measured → kept for 3 shards" in first.stderr
    assert made().stderr == "Nothing is behind.\n"
    assert "--force makes it again" in made("--select", "measured").stderr

    forced = data("run", "--module", MODULE, "--select", "measured", "--shards", "01", "--force")
    [one] = forced["runs"]
    assert (one["stages"], one["partitions"], one["made"]) == (["measured"], ["01"], {"measured": 1})
    assert (forced["errors"], forced["behind"]) == ([], [])
    assert [(p["stage"], p["reason"], p["partitions"]) for p in forced["plan"]] == [("measured", "asked for", 1)]


def test_a_dry_run_says_what_it_would_cost_and_does_nothing(folder: Path) -> None:
    plan = data("run", "--module", MODULE, "--dry-run")
    assert plan["source"] == {"new": 3, "changed": 0, "vanished": 0, "removed": 0}
    assert [(p["stage"], p["reason"], p["partitions"], p["seconds"]) for p in plan["plan"]] == [
        ("samples", "never made", 3, None),
        ("measured", "never made", 3, None),
        ("kept", "never made", 3, None),
        ("chosen", "never made", None, None),
    ]
    made()
    write_tar(folder / "01.tar", ["changed", "and", "longer"])
    (folder / "02.tar").unlink()
    write_tar(folder / "03.tar", ["new"])
    plan = data("run", "--module", MODULE, "--dry-run")
    assert plan == data("run", "--module", MODULE, "--dry-run")  # nobody was told
    assert plan["source"] == {"new": 1, "changed": 1, "vanished": 0, "removed": 1}
    assert [(p["stage"], p["reason"], p["partitions"], p["samples"]) for p in plan["plan"]] == [
        ("samples", "never made", 1, 2),
        ("samples", "input changed", 2, 4),
        ("measured", "never made", 1, 2),
        ("kept", "never made", 1, 2),
        ("chosen", "if what it is made of changes", None, 6),
    ]
    assert all(p["seconds"] > 0 for p in plan["plan"])
    shown = made("--dry-run", "--shards", "03..03")
    assert re.search(r"^samples +never made +1 +2 +– ", shown.stdout, re.MULTILINE)
    assert "by what the last runs took" in shown.stderr


def test_how_many_tars_make_a_shard_is_suggested_before_anything_is_made(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "FACTORY_TARS_PER_SHARD" not in made("--dry-run").stderr
    monkeypatch.setattr(grouping, "MOST_SHARDS", 2)
    assert "3 tars in 3 shards" in (said := made("--dry-run").stderr)
    assert "FACTORY_TARS_PER_SHARD=2 they are 2." in said


def test_names_that_are_not_there_get_the_nearest(folder: Path) -> None:
    assert "Did you mean 'measured'?" in made("--select", "mesured", code=1).stderr
    assert "There is no shard '3' among 3." in made("--shards", "3", code=1).stderr
    assert "Error: kept is behind, but what it is made of was never made." in made("--select", "kept", code=1).stderr


def test_failures_are_listed_and_the_exit_code_says_so(folder: Path) -> None:
    write_tar(folder / "01.tar", ["bad"])
    result = made(code=1)
    assert "Error: 1 of 3 runs failed:\n  measured: shard 01: ClickHouse refused: caption is bad" in result.stderr
    assert "repeat: factory run --select measured --shards 01" in result.stderr
    again = run("run", "--module", MODULE, "--json", code=1)
    assert [line[:18] for line in json.loads(again.stdout)["errors"]] == ["measured: shard 01"]
    write_tar(folder / "01.tar", ["good"])
    assert made().stdout.splitlines()[-1] == "chosen"


def test_an_interrupt_ends_it_with_130(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @stage(group="test")
    def stopped(samples: DatasetQuery) -> DatasetQuery:
        raise KeyboardInterrupt

    serve(monkeypatch, over_samples(folder, stopped))
    assert made(code=130).stderr.endswith("Interrupted.\n")


def test_another_source_is_remembered(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    write_tar(other / "09.tar", ["nine"])
    try:
        assert made("--source", str(other), "--select", "samples").stdout.splitlines() == ["samples"]
        assert settings().source == str(other)
    finally:
        (settings().home / "source").unlink(missing_ok=True)
    assert DatasetQuery("samples").count() == 1


def test_a_module_without_a_graph_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "The graph of tests.samples cannot be loaded: it has no definitions named 'defs'" in (
        run("run", "--module", "tests.samples", code=1).stderr
    )
