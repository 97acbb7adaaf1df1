"""Saves the shards of a stage's query: one that fails does not undo the others, and may be tried again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from factory_lib.errors import CommitError, EngineError, ExecutorError
from factory_lib.orchestration.retrying import Tries, is_transient
from factory_lib.plan.restriction import restricted

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery
    from factory_lib.warehouse.versions import Version


@dataclass(frozen=True)
class Saved:
    """What came of a stage's query.

    Attributes:
        version: the version that holds the good shards; None when every shard failed.
        shards: the shards that were published; empty for a stage without partitions.
        failed: shard to the error that kept it out.
        reused, computed: values of signals that were taken over and computed, in all versions that it took.
    """

    version: Version | None
    shards: tuple[str, ...]
    failed: Mapping[str, Exception]
    reused: int = 0
    computed: int = 0

    @staticmethod
    def of(versions: Sequence[Version], shards: Sequence[str], failed: Mapping[str, Exception]) -> Saved:
        """What came of a query that was saved as these versions, one after the other."""
        records = [version.provenance for version in versions if version.provenance is not None]
        reused, computed = sum(one.reused for one in records), sum(one.computed for one in records)
        return Saved(versions[-1] if versions else None, tuple(sorted(shards)), failed, reused, computed)

    def without(self, failed: Mapping[str, Exception]) -> Saved:
        """The same, with shards of which nothing came counted among those that failed."""
        kept = tuple(shard for shard in self.shards if shard not in failed)
        return replace(self, shards=kept, failed={**self.failed, **failed})


def save_shards(
    query: DatasetQuery,
    name: str,
    shards: Sequence[str],
    origin: Mapping[str, Any],
    say: Callable[[str], None] = lambda _: None,
    *,
    executor: str | None = None,
) -> Saved:
    """Save the shards of a query as one version of a dataset, without those that fail.

    An error that names its shard (`error.shard`) takes that shard out, and the rest is saved again; what was computed
    for it is taken up, not computed anew. Behind an error that names none the shards are halved until the bad one is
    alone, or until the error turns out to be the same whatever the shards. Shards whose error may pass (see `retrying`)
    are tried again, by themselves.

    Args:
        shards: the shards that the run is to make; those that the query does not read are removed from the dataset.
        say: told before each wait what failed, and when it is tried again.
        executor: where signals are computed, see `DatasetQuery.save`.

    Raises:
        EngineError, CommitError, ExecutorError: the warehouse or Ray failed, which no choice of shards would mend.
        ValueError: the query reads other shards than these.
    """
    read = query.restricted_to()
    if read is None or not set(read) <= set(shards):
        raise ValueError(
            f"The stage of {name!r} runs for shards {', '.join(shards[:3])}…, but its query reads "
            f"{'all shards' if read is None else ', '.join(sorted(set(read) - set(shards)))}. "
            "Build it from the stage's inputs, which hold the right shards."
        )
    saving = _Saving(query, name, tuple(shards), frozenset(read), origin, executor)
    tries = Tries(say)
    waiting = tuple(shards)
    while waiting:
        try:
            saving.save(waiting)
        except Exception as down:
            if not tries.wait_after(down):
                raise
        else:
            passing = saving.passing()
            if not passing or not tries.wait_after(next(iter(passing.values()))):
                break
        waiting = saving.left()
    return Saved.of(saving.versions, saving.made, saving.failed)


class _Saving:
    """What came of the shards of a query so far."""

    def __init__(
        self,
        query: DatasetQuery,
        name: str,
        shards: tuple[str, ...],
        read: frozenset[str],
        origin: Mapping[str, Any],
        executor: str | None,
    ) -> None:
        self._executor = executor
        self._query, self._name, self._shards, self._read, self._origin = query, name, shards, read, origin
        self.versions: list[Version] = []
        self.made: list[str] = []
        self.failed: dict[str, Exception] = {}

    def passing(self) -> dict[str, Exception]:
        """Shards that failed of what may pass."""
        return {shard: error for shard, error in self.failed.items() if is_transient(error)}

    def left(self) -> tuple[str, ...]:
        """The shards to try: all but those that are made, and those that failed for good."""
        self.failed = {shard: error for shard, error in self.failed.items() if not is_transient(error)}
        return tuple(shard for shard in self._shards if shard not in self.made and shard not in self.failed)

    def save(self, shards: tuple[str, ...]) -> None:
        """Save these shards, but for those that fail.

        Raises:
            EngineError, CommitError: the warehouse failed; what was saved before that is.
        """
        waiting = [shards]
        made = len(self.made)
        causes: Counter[str] = Counter()
        while waiting:
            part = waiting.pop(0)
            try:
                self.versions.append(self._save(part))
                self.made += part
            except Exception as error:
                if _is_warehouse_down(error):
                    raise
                # an outage is one, whatever files it is told of
                cause = type(error).__name__ if is_transient(error) else str(error)
                causes[cause] += 1
                # halves and quarters alike: no shard's fault
                everywhere = len(self.made) == made and causes[cause] > 3
                bad, rest = (part, []) if everywhere else _blame(part, error)
                self.failed |= dict.fromkeys(bad, error)
                waiting += rest

    def _save(self, part: tuple[str, ...]) -> Version:
        removed = [shard for shard in part if shard not in self._read]
        some = self._query
        if len(part) < len(self._shards):
            some = some.of(restricted(some.plan, part))
        return some.save(
            self._name,
            mode="overwrite_shards",
            removed=removed,
            schema_evolution=True,
            context=self._origin,
            executor=self._executor,
        )


def _is_warehouse_down(error: Exception) -> bool:
    """Whether an error has nothing to do with the shards: no choice of them would mend it."""
    return isinstance(error, CommitError | ExecutorError) or (
        isinstance(error, EngineError) and error.code in _SYSTEMIC
    )


_SYSTEMIC = {
    0,  # not reached
    159,  # timeout
    202,  # too many queries
    209,  # socket timeout
    210,  # network
    236,  # aborted
    241,  # memory limit
    243,  # disk full
    394,  # query was cancelled
}
"""ClickHouse's error codes that say something of the engine, not of the rows."""


def _blame(part: tuple[str, ...], error: Exception) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The shards that an error is blamed on, and the pieces in which the others are tried again."""
    named = getattr(error, "shard", None)
    if named in part or len(part) == 1:
        bad = named if named in part else part[0]
        rest = tuple(shard for shard in part if shard != bad)
        return (bad,), [rest] if rest else []
    middle = len(part) // 2
    return (), [part[:middle], part[middle:]]
