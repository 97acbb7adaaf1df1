"""Stages and shards as people name them."""

from __future__ import annotations

import dagster as dg
import pytest

from factory_lib.errors import FactoryError
from factory_lib.orchestration.runs.selecting import select_shards, select_stages


def stage(name: str, *deps: str, group: str = "first") -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=list(deps), group_name=group)
    def made() -> None: ...

    return made


GRAPH = dg.Definitions(
    assets=[
        dg.AssetSpec("source"),
        stage("samples", "source"),
        stage("signals", "samples"),
        stage("kept", "signals", group="second"),
        stage("chosen", "kept", group="second"),
        dg.asset(key=["eu", "model"], deps=["chosen"], group_name="second")(lambda: None),
    ]
).resolve_asset_graph()


@pytest.mark.parametrize(
    ("selection", "means"),
    [
        ("signals", "signals"),
        ("chosen,samples", "samples chosen"),
        ("chosen, samples,", "samples chosen"),
        ("kept or samples", "samples kept"),
        ("signals+", "signals kept chosen eu/model"),
        ("signals+1", "signals kept"),
        ("1+kept", "signals kept"),
        ("+kept", "samples signals kept"),
        ("group:second", "kept chosen eu/model"),
        ('group:"second" and not eu/model', "kept chosen"),
        ('key:"kept"', "kept"),
        ("key:*ept", "kept"),
        ("eu/model", "eu/model"),
        ("roots(group:second)", "kept"),
        ("*", "samples signals kept chosen eu/model"),
        ("source+1", "samples"),
    ],
)
def test_what_a_selection_means(selection: str, means: str) -> None:
    assert select_stages(GRAPH, selection) == means.split()


@pytest.mark.parametrize(
    ("selection", "says"),
    [
        ("signal", r"no stage 'signal'\. Did you mean 'signals'\?"),
        ("samples or keppt+", r"no stage 'keppt'\. Did you mean 'kept'\?"),
        ("group:secnd", r"no group 'secnd'\. Did you mean 'second'\?"),
        ("source", "means no stage of the graph"),
        ("tag:nothing", "means no stage of the graph"),
        ("(samples", "cannot be read"),
        ("samples or or kept", "cannot be read"),
    ],
)
def test_a_selection_that_means_nothing_says_so(selection: str, says: str) -> None:
    with pytest.raises(FactoryError, match=says):
        select_stages(GRAPH, selection)


SHARDS = ["c", "a", "00001", "b", "x..y", "d"]  # as they were announced


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("a", ["a"]),
        ("d, a,a", ["a", "d"]),
        ("a..c", ["c", "a", "b"]),
        ("a..b,d", ["a", "b", "d"]),
        ("x..y", ["x..y"]),
        ("00001..00001", ["00001"]),
        ("all", None),
    ],
)
def test_what_shards_mean(text: str, means: list[str] | None) -> None:
    assert select_shards(SHARDS, text) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0001", r"no shard '0001' among 6\. Did you mean '00001'\?"),
        ("a..0001", "no shard '0001'"),
        ("c..a", r"Turn it round: a\.\.c"),
        (",", "names no shard"),
        ("", "names no shard"),
    ],
)
def test_shards_that_are_not_there(text: str, says: str) -> None:
    with pytest.raises(FactoryError, match=says):
        select_shards(SHARDS, text)
    with pytest.raises(FactoryError, match="No shard is known yet"):
        select_shards([], "a")
