"""Stages written in YAML: what they make, what their mistakes are told as, and that tools of Dagster know them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from factory_lib import DatasetQuery
from factory_lib.augmentation.operation import Operation
from factory_lib.curation.rules import Filter
from factory_lib.errors import FactoryError
from factory_lib.orchestration.components import CurationStage
from factory_lib.orchestration.components.parameters import result_of
from factory_lib.orchestration.components.registry import (
    FILTERS,
    FUNCTIONS,
    OPERATIONS,
    SIGNALS,
    named,
)
from factory_lib.orchestration.runs.running import run_graph
from factory_lib.orchestration.source.shards import ShardSource
from factory_lib.signals import Signal
from tests.dagster_graph import write_tar

PYTHON = """
from factory_assets.defs.ingest import source_shards
"""
RESOURCES = """
from factory_assets.defs.resources import resources
"""
STAGES = """
type: factory_lib.orchestration.components.CurationStage
attributes:
  dataset: samples
  source: source_shards
  by_shard: true
---
type: factory_lib.orchestration.components.CurationStage
attributes:
  dataset: told
  of: samples
  by_shard: true
  steps:
    - signals: [caption_stats, sha256, {factory_lib.testing_of_yaml.length_in: {unit: "{{ env.YAML_UNIT }}"}}]
    - columns: {words: caption_stats.n_words}
    - select: [key, caption, words, length, not_there]
---
type: factory_lib.orchestration.components.CurationStage
attributes:
  dataset: long_ones
  of: told
  volume: {may_be_empty: true}
  steps:
    - filter: [words > 2]
---
type: factory_lib.orchestration.components.CurationStage
attributes:
  dataset: short_ones
  of: told
  description: All that are not long.
  steps:
    - keep:
        - where: {condition: words > 1, reason: a single word}
        - without: {finding: long_ones, reason: more than two words}
---
type: factory_lib.orchestration.components.CurationStage
attributes:
  dataset: both
  of: short_ones
  steps:
    - union: [long_ones]
    - apply: {factory_lib.testing_of_yaml.first: {rows: 2}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A project with stages in YAML; its package has a name of its own, since modules are imported once."""
    name = f"yaml_{abs(hash(request.node.name))}"
    folder = tmp_path / "src" / name
    (folder / "defs" / "graph").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(
        f"[project]\nname = '{name}'\nversion = '1'\n[tool.dg]\ndirectory_type = 'project'\n"
        f"[tool.dg.project]\nroot_module = '{name}'\n"
    )
    for module in ("__init__", "defs/__init__"):
        (folder / f"{module}.py").touch()
    (folder / "functions.py").write_text(
        "from factory_lib import DatasetQuery, signal\nfrom factory_lib.signals import Signal\n\n\ndef first(samples: DatasetQuery, rows: int = 1) -> DatasetQuery:\n"
        "    return samples.limit(rows)\n\n\n"
        "def length_in(unit: int) -> Signal:\n"
        "    def length(caption: str) -> float:\n        return len(caption) / unit\n\n    return signal(length)\n"
    )
    (folder / "defs" / "source.py").write_text(PYTHON)
    (folder / "defs" / "resources.py").write_text(RESOURCES)
    (folder / "defs" / "graph" / "defs.yaml").write_text(
        STAGES.replace("factory_lib.testing_of_yaml", f"{name}.functions")
    )
    monkeypatch.syspath_prepend(tmp_path / "src")
    monkeypatch.setenv("YAML_UNIT", "10")
    yield folder
    for module in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[module]


def loaded(folder: Path) -> dg.Definitions:
    return dg.load_from_defs_folder(path_within_project=folder)


def keys(dataset: str) -> list[str]:
    return [str(one) for one in DatasetQuery(dataset).to_arrow()["caption"].to_pylist()]


def test_a_graph_of_yaml_makes_what_it_says(engine: None, project: Path, tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    shards.mkdir()
    write_tar(shards / "0.tar", ["one", "two words", "three words here"])
    write_tar(shards / "1.tar", ["also two", "four words are here"])
    with dg.DagsterInstance.ephemeral() as instance:
        outcome = run_graph(instance, loaded(project), source=ShardSource(uri=str(shards)))
        assert (outcome.errors, outcome.behind) == ([], [])
        assert keys("long_ones") == ["three words here", "four words are here"]
        assert keys("short_ones") == ["two words", "also two"]
        assert len(keys("both")) == 2
        lengths = DatasetQuery("told").to_arrow().to_pylist()
        assert [row["length"] for row in lengths] == pytest.approx([len(row["caption"]) / 10 for row in lengths])
        assert list(DatasetQuery("told").columns) == [
            "shard",
            "position",
            "sample_id",
            "key",
            "caption",
            "words",
            "length",
        ]
        event = instance.get_latest_materialization_event(dg.AssetKey("told"))
        assert event is not None
        assert event.asset_materialization is not None
        left_out = "No 'not_there' is selected: the samples have no such column."
        assert event.asset_materialization.metadata["left_out"].value == left_out
        assert left_out in [one.user_message for one in instance.all_logs(event.run_id)]
        check = dg.AssetCheckKey(dg.AssetKey("short_ones"), "rejected")
        [record] = instance.event_log_storage.get_asset_check_execution_history(check, limit=1)
        assert record.evaluation is not None
        table = record.evaluation.metadata["rejected"]
        assert isinstance(table, dg.TableMetadataValue)
        assert [(row.data["reason"], row.data["samples"]) for row in table.records] == [
            ("a single word", 1),
            ("more than two words", 2),
        ]
        assert run_graph(instance, loaded(project), source=ShardSource(uri=str(shards))).runs == []
    graph = loaded(project).resolve_asset_graph()
    assert graph.get(dg.AssetKey("short_ones")).description == "All that are not long."


def changed(folder: Path, old: str, new: str) -> str:
    """The error of a graph in which something is written otherwise, without the folder."""
    path = folder / "defs" / "graph" / "defs.yaml"
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))
    with pytest.raises(Exception, match="Error while") as raised:
        loaded(folder)
    error: BaseException | None = raised.value
    while error is not None and not isinstance(error, FactoryError):
        error = error.__cause__ or error.__context__
    assert error is not None, raised.value
    return str(error).replace(f"{path}:", "")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("sha256,", "sha265,", "14:32: steps.0.signals.1: there is no 'sha265'. Did you mean 'sha256'?"),
        ("- columns:", "- colums:", "15:7: steps.1.colums: there is no 'colums'. Did you mean 'columns'?"),
        ("where: {", "were: {", "33:11: steps.0.keep.0.were: there is no 'were'. Did you mean 'where'?"),
        ("finding:", "findings:", "there is no 'findings'. Did you mean 'finding'?"),
        (", reason: more than two words", "", "34:11: steps.0.keep.1.without.reason: Field required"),
        ("of: samples", "of: sample", "11:3: of: there is no 'sample'. Did you mean 'samples'?"),
        ("source: source_shards", "source: source_shard", "Did you mean 'source_shards'?"),
        ("union: [long_ones]", "union: [longones]", "41:7: steps.0.union: there is no 'longones'."),
        (".functions.first", ".functions.frist", "there is no 'frist'. Did you mean 'first'?"),
        ("{rows: 2}", "{row: 2}", "there is no 'row'. Did you mean 'rows'?"),
        ("{rows: 2}", "{rows: two}", "Input should be a valid integer"),
        ("of: short_ones", "source: source_shards", "a source is ingested shard by shard: by_shard: true."),
        ("may_be_empty", "may_be_emty", "volume.may_be_emty: there is no 'may_be_emty'. Did you mean 'may_be_empty'?"),
        ("dataset: both", "dataset: Both", "'Both' cannot name a dataset"),
        ("    - filter: [words > 2]", "    - {filter: [words > 2], select: [key]}", "this has 2"),
        ("    - union: [long_ones]", "    - keep: [basic]", "keep is the last step of a stage"),
        ("of: short_ones", "of: both", "39:3: of: a stage cannot read what it makes."),
        ("of: short_ones", "of: short_ones\n  owners: [me]", "40:3: owners: Invalid owner 'me'."),
        (
            "of: short_ones",
            "of: short_ones\n  only_with: UNSET_BY_ALL",
            "40:3: only_with: Input should be a valid list",
        ),
    ],
)
def test_mistakes_are_told_where_they_stand(project: Path, old: str, new: str, said: str) -> None:
    assert said in changed(project, old, new)


def test_a_filter_by_shard_is_refused(project: Path) -> None:
    said = changed(project, "  of: told\n  description:", "  of: told\n  by_shard: true\n  description:")
    assert "a stage with keep is not by_shard" in said


def test_what_another_code_location_makes_is_named(project: Path) -> None:
    path = project / "defs" / "graph" / "defs.yaml"
    path.write_text(path.read_text().replace("of: short_ones", "of: theirs\n  elsewhere: [theirs]"))
    path.write_text(path.read_text().replace("of: told\n  volume", "of: theirs\n  elsewhere: [theirs]\n  volume"))
    assert dg.AssetKey("both") in loaded(project).resolve_asset_graph().get_all_asset_keys()


def test_what_other_components_make_can_be_read(project: Path) -> None:
    (project / "other.py").write_text(
        "import dagster as dg\n\n\nclass Other(dg.Component, dg.Model, dg.Resolvable):\n"
        "    key: str\n\n    def build_defs(self, context):\n"
        "        return dg.Definitions(assets=[dg.AssetSpec(self.key)])\n"
    )
    path = project / "defs" / "graph" / "defs.yaml"
    path.write_text(path.read_text().replace("of: short_ones", "of: theirs"))
    (project / "defs" / "another").mkdir()
    document = f"type: {project.name}.other.Other\nattributes: {{key: theirs}}\n"
    (project / "defs" / "another" / "defs.yaml").write_text(f"{document}---\n{document.replace('theirs', 'more')}")
    known = loaded(project).resolve_asset_graph().get_all_asset_keys()
    assert {dg.AssetKey("both"), dg.AssetKey("theirs"), dg.AssetKey("more")} <= known


def test_a_stage_is_left_out_while_a_variable_is_not_set(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = project / "defs" / "graph" / "defs.yaml"
    path.write_text(path.read_text().replace("of: short_ones", "of: short_ones\n  only_with: [YAML_BOTH]"))
    whole = path.read_text()
    assert "40:3: only_wiht: there is no 'only_wiht'. Did you mean 'only_with'?" in changed(
        project, "only_with: [YAML_BOTH]", "only_wiht: [YAML_BOTH]"
    )
    path.write_text(whole)
    assert dg.AssetKey("both") not in loaded(project).resolve_asset_graph().get_all_asset_keys()
    assert "there is no 'stpes'. Did you mean 'steps'?" in changed(
        project, "steps:\n    - union", "stpes:\n    - union"
    )
    path.write_text(whole)
    monkeypatch.setenv("YAML_BOTH", "1")
    assert dg.AssetKey("both") in loaded(project).resolve_asset_graph().get_all_asset_keys()


def test_dagsters_own_tools_know_it(project: Path) -> None:
    dg_command = shutil.which("dg", path=str(Path(sys.executable).parent))
    assert dg_command is not None
    listed = subprocess.run([dg_command, "list", "components", "--json"], cwd=project, capture_output=True, text=True)
    assert "factory_lib.orchestration.components.CurationStage" in listed.stdout
    assert CurationStage.get_model_cls().model_json_schema()["properties"]["dataset"]["type"] == "string"


REGISTRIES = {"filters": FILTERS, "functions": FUNCTIONS, "signals": SIGNALS, "operations": OPERATIONS}


@pytest.mark.parametrize("registry", REGISTRIES.values(), ids=REGISTRIES)
def test_every_short_name_means_something(registry: dict[str, str]) -> None:
    for name in registry:
        found = named(name, registry)
        assert callable(found)
        if isinstance(found, Signal):
            assert found.name == name


@pytest.mark.parametrize(
    ("registry", "kind"), zip(REGISTRIES.values(), (Filter, DatasetQuery, Signal, Operation), strict=True)
)
def test_every_short_name_is_of_its_kind(registry: dict[str, str], kind: type) -> None:
    found = {name: result_of(named(name, registry)) for name in registry}
    assert [name for name, made in found.items() if made is None or not issubclass(made, kind)] == []
