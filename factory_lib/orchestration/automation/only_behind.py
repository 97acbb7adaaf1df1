"""Runs that make only what is behind: one run takes a change through the whole graph, and stops where nothing changed.

A run that carries the tag `ONLY_BEHIND` may be for more stages and partitions than need it. Each of its stages looks,
when its turn comes, at what it was made of: with the events of the same run, so that a stage whose input came out as it
was is left alone. It then computes nothing, records no event and makes no version; the stages after it read the version
that is there. A run that a person starts has no such tag and makes all that it is for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from factory_lib.orchestration.behind.unsynced import behind
from factory_lib.plan.restriction import restricted

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery

ONLY_BEHIND = "factory/only_behind"
"""Tag of such a run; in the metadata of an asset it says that the asset heeds the tag."""


@dataclass(frozen=True)
class Part:
    """What a stage hands to the IO manager: all that its run is for, or what of it is to be made.

    Attributes:
        query: what is to be saved; None for nothing.
        partitions: the partitions that it is for; None for those of the run.
        told: what provenance is to say of it besides.
    """

    query: DatasetQuery | None
    partitions: tuple[str, ...] | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


def to_make(context: dg.AssetExecutionContext) -> tuple[str | None, ...] | None:
    """Of what a stage's run is for, that which is behind: partitions, or None alone for a stage without.

    Returns:
        None for a run that makes all that it is for.
    """
    if ONLY_BEHIND not in context.run.tags:
        return None
    graph = context.job_def.asset_layer.asset_graph
    found = {one for part in behind(context.instance, graph, context.asset_key) for one in part.partitions}
    partitioned = graph.get(context.asset_key).is_partitioned
    asked: list[str | None] = list(context.partition_keys) if partitioned else [None]
    wanted = tuple(one for one in asked if one in found)
    if len(wanted) < len(asked):
        context.log.info(_said(context.asset_key, asked, wanted))
    return wanted


def part_of(query: DatasetQuery, partitions: tuple[str | None, ...]) -> Part:
    """The part of a stage's query that makes these partitions."""
    keys = tuple(one for one in partitions if one is not None)
    return Part(query.of(restricted(query.plan, keys)), keys) if keys else Part(query)


def _said(key: dg.AssetKey, asked: list[str | None], wanted: tuple[str | None, ...]) -> str:
    name = key.to_user_string()
    if not wanted:
        return f"{name} is up to date: neither its code nor its input changed. Nothing is computed, no version is made."
    return f"{len(asked) - len(wanted):,} of {len(asked):,} partitions of {name} are up to date and are left alone."
