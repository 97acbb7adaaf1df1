"""Stages: a function from datasets to a dataset becomes an asset of the graph.

The body gets its inputs as `DatasetQuery` and returns one; nothing has run yet when it returns. The IO manager saves
the query as a new version of the dataset that bears the asset's name. Everything that all stages have in common
(partitions, code version, automation, one run per change) is decided here, so that a body says only what its dataset
is.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import dagster as dg

from factory_lib.curation.rules import Kept
from factory_lib.orchestration.automation.conditions import shard_condition, whole_condition
from factory_lib.orchestration.automation.only_behind import ONLY_BEHIND, Part, part_of, to_make
from factory_lib.orchestration.behind.unsynced import STAYS
from factory_lib.orchestration.checks.rejected import check_rejected, rejected_spec, told_of
from factory_lib.orchestration.checks.stage_checks import run_stage_checks, stage_check_specs
from factory_lib.orchestration.checks.synced import DEFAULT_STALE_HOURS, STALE_HOURS
from factory_lib.orchestration.checks.volume import USUAL, Volume
from factory_lib.orchestration.code import code_metadata
from factory_lib.orchestration.events.partition_events import RECORDED_BY_IO_MANAGER
from factory_lib.orchestration.first_line import explained, partitions_of
from factory_lib.orchestration.omissions import LEFT_OUT, omissions
from factory_lib.orchestration.retrying import tried
from factory_lib.query import DatasetQuery
from factory_lib.signals.fingerprint import code_components, digest

IO_MANAGER_KEY = "versions"
"""Resource key under which stages look for the IO manager."""


def stage(
    *,
    group: str,
    partitions: dg.PartitionsDefinition[str] | None = None,
    deps: Sequence[dg.AssetKey | str] = (),
    kinds: Sequence[str] = (),
    owners: Sequence[str] = ("team:curation",),
    automatic: bool = True,
    stays: bool = False,
    volume: Volume = USUAL,
    stale_hours: float = DEFAULT_STALE_HOURS,
) -> Callable[[Callable[..., DatasetQuery | Kept]], dg.AssetsDefinition]:
    """Make a stage of a function that returns the query of its dataset, or what filters keep of one.

    Parameters of the function are read as follows: `context` is Dagster's; one annotated with a resource is that
    resource; every other one is the upstream stage of that name, as a `DatasetQuery`. A stage whose function says that
    it returns `Kept` is a filter: its check `rejected` and its provenance say how many samples each rule removed, and
    what could not be judged.

    Args:
        group: group of the asset in the graph.
        partitions: the shards, for a stage whose rows depend on rows of the same shard alone (signals, row by row
            filters): it runs for the shards that changed. None for a stage that needs to see the whole dataset
            (duplicates, thresholds over everything): it runs once when any shard changed.
        deps: assets it comes after without loading them.
        kinds: icons in the graph, besides the warehouse's.
        owners: as Dagster wants them, `team:name` or an e-mail address.
        automatic: run when something upstream or the code changed; otherwise only when asked to.
        stays: once it has rows it is behind its code alone, and stays as it is while its input changes, until somebody
            runs it: for what others are measured by, such as centroids.
        volume: how far the size of a version may be from that of those before; past its bounds the check `volume` is
            yellow, or red, and what comes after the stage does not run. The first parameter that is a dataset is what
            its rows are compared with.
        stale_hours: for how long it may be behind until its check `synced` is red.

    Returns:
        A decorator that gives the `AssetsDefinition`.
    """

    def decorate(body: Callable[..., DatasetQuery | Kept]) -> dg.AssetsDefinition:
        parameters = _parameters(body)
        is_filter = typing.get_type_hints(body).get("return") is Kept
        if is_filter and partitions is not None:
            raise TypeError(
                f"Stage {body.__name__!r} has filters and partitions. What can be judged depends on the whole pool: "
                "leave partitions out."
            )
        inputs = [name for name, kind in parameters.items() if kind is DatasetQuery]
        condition = whole_condition() if partitions is None else shard_condition()
        components = code_components(body)
        return dg.asset(
            name=body.__name__,
            ins={name: dg.AssetIn() for name in inputs},
            deps=list(deps),
            description=inspect.getdoc(body),
            group_name=group,
            kinds={"clickhouse", *kinds},
            owners=list(owners),
            partitions_def=partitions,
            backfill_policy=None if partitions is None else dg.BackfillPolicy.single_run(),
            code_version=digest(components),
            metadata={
                **code_metadata(components),
                STALE_HOURS: stale_hours,
                ONLY_BEHIND: True,
                **({STAYS: True} if stays else {}),
            },
            check_specs=[*stage_check_specs(body.__name__), *([rejected_spec(body.__name__)] * is_filter)],
            automation_condition=condition if automatic else None,
            io_manager_key=IO_MANAGER_KEY,
        )(_compute(body, parameters, volume, is_filter))

    return decorate


def _parameters(body: Callable[..., Any]) -> dict[str, Any]:
    """Parameter name to its type; parameters without annotation are upstream datasets."""
    hints = typing.get_type_hints(body)
    return {name: hints.get(name, DatasetQuery) for name in inspect.signature(body).parameters}


def _compute(
    body: Callable[..., DatasetQuery | Kept], parameters: Mapping[str, Any], volume: Volume, is_filter: bool
) -> Callable[..., Iterator[Any]]:
    """The function that Dagster calls: the body, its result checked and marked, and what is asked of every version."""
    datasets = [name for name, kind in parameters.items() if kind is DatasetQuery]

    def compute(context: dg.AssetExecutionContext, **inputs: Any) -> Iterator[Any]:
        wanted = to_make(context)
        given = {**({"context": context} if "context" in parameters else {}), **inputs}
        told: Mapping[str, Any] = {}
        if wanted == ():
            made = Part(None, ())
        else:
            with explained(context.asset_key.to_user_string(), partitions_of(context)):
                query, told = tried(lambda: _made(body, given), context.log.warning)
            if LEFT_OUT in told:
                context.log.info(told[LEFT_OUT])
            made = replace(Part(query) if wanted is None else part_of(query, wanted), told=told)
        yield dg.Output(made, metadata={RECORDED_BY_IO_MANAGER: True})
        # the IO manager has saved it by now
        if is_filter:
            yield check_rejected(body.__name__)
        yield from run_stage_checks(context, body.__name__, datasets, volume)

    names = {name: kind for name, kind in parameters.items() if name != "context"}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    shown: dict[str, Any] = {"context": dg.AssetExecutionContext}
    shown |= {name: Any if annotation is DatasetQuery else annotation for name, annotation in names.items()}
    compute.__name__ = body.__name__
    compute.__annotations__ = shown
    compute.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind, annotation=annotation) for name, annotation in shown.items()]
    )
    return compute


def _made(body: Callable[..., object], given: Mapping[str, Any]) -> tuple[DatasetQuery, Mapping[str, Any]]:
    """The query that a stage returns, and what there is to tell of it: of a filter, and of what is left out."""
    with omissions() as left_out:
        result = body(**given)
    told = {LEFT_OUT: " ".join(left_out)} if left_out else {}
    if isinstance(result, Kept):
        return result.samples, {**told_of(result), **told}
    if not isinstance(result, DatasetQuery):
        raise TypeError(
            f"Stage {body.__name__!r} returned {type(result).__name__}, not a DatasetQuery. "
            "Return the query itself: it is saved for you."
        )
    return result, told
