"""Partitions that a failed run left alone are said once more, with what is true of the dataset now."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from factory_lib import DatasetQuery
from factory_lib.orchestration.automation.only_behind import ONLY_BEHIND
from factory_lib.orchestration.automation.restated import restatements
from tests.dagster_graph import graph, look, partition_status, run, write_tar


@pytest.mark.usefixtures("engine")
def test_what_is_said_again_has_the_numbers_of_now(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_tar(tmp_path / f"{name}.tar", [name, name * 3])
    definitions = graph(tmp_path)
    shown, measured = definitions.resolve_asset_graph(), dg.AssetKey("measured")
    with dg.DagsterInstance.ephemeral() as instance:
        look(instance, tmp_path)
        run(definitions, instance, ["samples", "measured"], ["a", "b", "c"])
        write_tar(tmp_path / "a.tar", ["more", "than", "before"])
        write_tar(tmp_path / "c.tar", ["bad"])
        look(instance, tmp_path)
        assert run(definitions, instance, ["samples"], ["a", "b", "c"]).success
        assert not run(definitions, instance, ["measured"], ["a", "b", "c"], tags={ONLY_BEHIND: "true"}).success
        assert partition_status(instance, "measured") == {"a": "materialized", "b": "failed", "c": "failed"}
        (said,) = restatements(instance, shown, measured)
        assert said.partition == "b"
        rows = DatasetQuery("measured").count()
        assert rows == 7  # three of a, two of b, and the two of c from before it went bad
        assert said.metadata["dagster/row_count"].value == rows
        assert said.metadata["dagster/partition_row_count"].value == 2
        instance.report_runless_asset_event(said)
        assert partition_status(instance, "measured")["b"] == "materialized"
        assert list(restatements(instance, shown, measured)) == []
