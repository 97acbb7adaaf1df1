"""Batches of one version in which the values of a column, such as the sources of its samples, have shares by weight."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import pyarrow as pa

from factory_lib.errors import LoaderError, SettingsError, nearest
from factory_lib.loading.dataset import BatchDataset
from factory_lib.loading.mixing import mix
from factory_lib.loading.tasks import Batch
from factory_lib.plan.expressions import C, fn
from factory_lib.settings import settings
from factory_lib.sources.declared import is_sources_file, read_sources

logger = logging.getLogger(__name__)


class Grouping(Protocol):
    """What is needed of groups of rows."""

    def agg(self, **values: Any) -> Any:
        """One row a group."""


class Weighable(Protocol):
    """What `mix_by` needs of a query."""

    @property
    def columns(self) -> dict[str, str]:
        """Column name -> ClickHouse type."""

    def filter(self, *predicates: Any) -> Self:
        """Keep the rows for which all predicates hold."""

    def group_by(self, *keys: Any, **named: Any) -> Grouping:
        """Groups of rows."""

    def to_torch(self, **arguments: Any) -> BatchDataset:
        """The samples as batches."""


def mix_by(
    query: Weighable,
    weights: Mapping[str, float] | None = None,
    *,
    column: str = "source",
    seed: int = 0,
    rows_per_epoch: int | None = None,
    collate: Callable[[Batch], Any] | None = None,
    collate_fn: Callable[[list[Any]], Any] | None = None,
    **arguments: Any,
) -> BatchDataset:
    """Batches in which each value of a column has its share, whatever number of samples it has.

    The samples of each value are a sequence of their own, shuffled anew each time it ends (see `mix`): nothing is drawn
    with replacement. Where the share of a value is larger than that of its samples they come more than once an epoch,
    and where it is smaller some of them not before the next. The order is a function of rows, weights and seed, and a
    state is taken up at any number of ranks.

    Args:
        query: with the column.
        weights: value of the column -> its share, any positive numbers; 0 leaves it out. None for those that the
            sources file of `FACTORY_SOURCE` declares.
        column: of texts.
        seed: of the mix and of the order of samples.
        rows_per_epoch: after which an epoch ends; by default as many as there are samples.
        collate, collate_fn: as in `mix`.
        arguments: the others of `DatasetQuery.to_torch`.

    Returns:
        A `BatchDataset`; ``batch["source"]``, int64, is the number of the value among those with a weight above 0,
        unless a column of that name is delivered.

    Raises:
        LoaderError: a value has no weight, or a weight no samples; the hint names the nearest. There are no samples, or
            some have no value.
        SettingsError: weights are left out and nothing declares them.
    """
    if column not in query.columns:
        raise LoaderError(f"The samples have no column {column!r} to be weighed by.", nearest(column, query.columns))
    there = _samples(query, column)
    chosen = _declared(there) if weights is None else _checked(weights, there, column)
    parts = [query.filter(C[column] == value).to_torch(seed=seed, **arguments) for value in chosen]
    rows = sum(there[value] for value in chosen) if rows_per_epoch is None else rows_per_epoch
    return mix(parts, list(chosen.values()), seed=seed, rows_per_epoch=rows, collate=collate, collate_fn=collate_fn)


def _samples(query: Weighable, column: str) -> dict[str, int]:
    """Value of a column -> samples that have it."""
    counted: pa.Table = query.group_by(value=C[column]).agg(samples=fn.count()).to_arrow()
    found = dict(zip(counted["value"].to_pylist(), counted["samples"].to_pylist(), strict=True))
    if without := found.pop(None, 0):
        raise LoaderError(
            f"{without:,} samples have no {column!r}, so that they have no weight.",
            f"filter(C[{column!r}].not_null()) leaves them out.",
        )
    if not found:
        raise LoaderError("There are no samples to be weighed.")
    return dict(sorted(found.items()))


def _checked(weights: Mapping[str, float], there: Mapping[str, int], column: str) -> dict[str, float]:
    for value in weights:
        if value not in there:
            raise LoaderError(f"weights names {value!r}, and no sample has that as {column!r}.", nearest(value, there))
    if lacking := [value for value in there if value not in weights]:
        raise LoaderError(
            f"{column} {lacking[0]!r} has {there[lacking[0]]:,} samples and no weight.",
            f"Give it one; 0 leaves it out: weights={{…, {lacking[0]!r}: 0}}.",
        )
    return {value: weight for value, weight in weights.items() if weight != 0}


def _declared(there: Mapping[str, int]) -> dict[str, float]:
    """The weights that the sources file of the settings declares, of sources with samples."""
    file = settings().source
    if file is None or not is_sources_file(file):
        raise SettingsError(
            "No weights are given, and FACTORY_SOURCE is no file that declares sources.",
            "Give them: weights={'photos': 2, 'web': 1}.",
        )
    found = {one.name: one.weight for one in read_sources(file)}
    for name in there:
        if found.get(name) is None:
            said = "declares no weight of" if name in found else "does not declare"
            raise LoaderError(f"{file} {said} {name!r}, which has samples.", f"Say weight = 1 below [{name}].")
    return {name: weight for name, weight in found.items() if weight is not None and name in there}
