"""The graph as it is delivered: it loads, its parts are what they should be, its configuration files fit together."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml

from factory_lib.orchestration.code_location import load_definitions

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return load_definitions()


def test_the_definitions_are_loadable(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


def test_the_graph_is_the_one_that_is_documented(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    found = {
        node.key.to_user_string(): (
            node.group_name,
            "shards" if node.is_partitioned else "whole",
            sorted(parent.to_user_string() for parent in node.parent_keys),
        )
        for node in graph.asset_nodes
    }
    assert found == {
        "source_shards": ("ingest", "shards", []),
        "samples": ("ingest", "shards", ["source_shards"]),
        "image_signals": ("signals", "shards", ["samples"]),
        "clip_embeddings": ("signals", "shards", ["image_signals"]),
        "photo_signals": ("signals", "shards", ["clip_embeddings"]),
        "basic_filter": ("curation", "whole", ["photo_signals"]),
        "quality_filter": ("curation", "whole", ["basic_filter"]),
        "near_duplicates": ("duplicates", "whole", ["quality_filter"]),
        "photo_centroids": ("duplicates", "whole", ["quality_filter"]),
        "photo_clusters": ("duplicates", "whole", ["photo_centroids", "quality_filter"]),
        "semantic_duplicates": ("duplicates", "whole", ["photo_clusters"]),
        "duplicates": ("duplicates", "whole", ["near_duplicates", "quality_filter", "semantic_duplicates"]),
        "deduplicated": ("curation", "whole", ["duplicates", "quality_filter"]),
        "clip_score_filter": ("curation", "whole", ["deduplicated"]),
        "training_set": ("curation", "whole", ["clip_score_filter"]),
        "trained_model": ("training", "whole", ["training_set"]),
        "warehouse_summary": ("operations", "whole", []),
    }


def test_every_asset_says_what_it_is(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for node in graph.asset_nodes:
        assert node.description, node.key
        if node.is_materializable:
            assert node.owners, node.key
            assert {tag for tag in node.tags if tag.startswith("dagster/kind/")}, node.key


def test_every_stage_has_a_code_version_and_runs_by_itself(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    for key in graph.materializable_asset_keys - {dg.AssetKey("warehouse_summary")}:
        node = graph.get(key)
        assert node.code_version, key
        assert node.automation_condition is not None, key
        if node.is_partitioned:
            assert node.backfill_policy == dg.BackfillPolicy.single_run(), key


def test_sensors_schedules_checks_and_executor(definitions: dg.Definitions) -> None:
    repository = definitions.get_repository_def()
    names = sorted(sensor.name for sensor in repository.sensor_defs)
    assert names == ["factory_automation", "failed_runs", "red_checks", "shard_watch"]
    assert [schedule.name for schedule in repository.schedule_defs] == ["nightly"]
    checks = {(key.asset_key.to_user_string(), key.name) for key in repository.asset_graph.asset_check_keys}
    stages = {a for a, _ in checks if (a, "synced") in checks}
    assert checks - {(stage, check) for stage in stages for check in ("synced", "volume")} == {
        ("source_shards", "all_there"),
        ("samples", "ingested"),
        ("samples", "accounted"),
        ("image_signals", "images_decode"),
        ("basic_filter", "rejected"),
        ("photo_signals", "models_answer"),
        ("quality_filter", "rejected"),
        ("deduplicated", "no_duplicates_left"),
        ("deduplicated", "rejected"),
        ("clip_score_filter", "rejected"),
        ("trained_model", "worth_training"),
        ("trained_model", "above_chance"),
        ("trained_model", "above_baseline"),
        ("trained_model", "not_worse_than_previous"),
        ("warehouse_summary", "as_published"),
    }
    assert len(stages) == 14
    # a process a step, the default of Dagster, would cost 6 CPU-seconds each
    assert definitions.resolve_implicit_global_asset_job_def().executor_def.name == "in_process"


def test_bodies_are_short() -> None:
    assets = ROOT / "factory_assets"
    for module in [*assets.glob("*.py"), *(assets / "defs").rglob("*.py")]:
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.FunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                lines = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                assert lines <= 15, f"{module.name}: {node.name} has {lines} lines"
    assert len((ROOT / "factory_assets" / "definitions.py").read_text().splitlines()) < 60


def test_configuration_files_name_the_same_code_location() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    [location] = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert location["python_module"]["location_name"] == project["dg"]["project"]["code_location_name"]
    assert location["python_module"]["module_name"] == project["dg"]["project"]["code_location_target_module"]
    assert location["python_module"]["module_name"] == project["dagster"]["module_name"]
    assert location["python_module"]["location_name"] == project["dagster"]["code_location_name"]
