"""Signals over the rows of a query: what is missing is computed, staged as it comes, and becomes a column.

Nothing is computed whose inputs are those of a value that is there: staged by a run that was killed, or held by a
version (see `factory_lib.build.reuse`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

from factory_lib.build.lacking import LackingRows, StagingJob, lacking_bits
from factory_lib.build.ledger import Ledger
from factory_lib.build.reuse.claims import Claims, Share
from factory_lib.build.reuse.contents import all_known, among
from factory_lib.build.reuse.files import etags, files_of
from factory_lib.build.reuse.identity import Reads
from factory_lib.build.reuse.inputs import inputs_of
from factory_lib.build.reuse.staged import Staged
from factory_lib.build.reuse.takeover import take_over
from factory_lib.errors import CommitError
from factory_lib.names import STAGING, is_version_name
from factory_lib.plan.nodes import Plan, Signals, tables
from factory_lib.plan.select import Select
from factory_lib.plan.storing import with_system_columns
from factory_lib.progress import Tracked, done, track
from factory_lib.settings import executor
from factory_lib.warehouse.client import Warehouse, warehouse
from factory_lib.warehouse.derive import derive
from factory_lib.warehouse.filling import waves
from factory_lib.warehouse.staging import StagingTable
from factory_lib.warehouse.versions import resolve

if TYPE_CHECKING:
    from factory_lib.signals.signal import Signal

WAVE_ROWS = 1 << 21
WAVE_SHARDS = 500
"""Shards are computed together up to so many rows and shards."""

SMALL_ROWS = 128
"""Up to so many rows are computed here unless they need a GPU: workers elsewhere take longer to begin."""


def signal_rows(
    query: Select, types: Mapping[str, str], signals: Sequence[Signal], on_error: Literal["null", "raise"]
) -> Signals:
    """The plan of a query's rows with the values of signals.

    Args:
        types: column -> ClickHouse type of the query.
    """
    query = with_system_columns(query)
    new = {name: ch_type for s in signals for name, ch_type in s.columns.items()}
    columns = {**{n: t for n, t in types.items() if n not in new}, **new}
    unit = {s.name for s in signals if getattr(s.output, "unit", False)}
    unit |= {n for n in columns if n not in new and query.is_unit(n)}
    return Signals(query, tuple(signals), on_error, columns=columns, unit=frozenset(unit))


def write_signals(node: Signals, rows: Select, ledger: Ledger) -> StagingTable:
    """Write the rows of a query with the values of signals into a staging table.

    Args:
        rows: the query, all of whose rows are in tables.
    """
    shard_sources = {**table_sources(rows, warehouse()), **ledger.shard_sources}
    stage, how, added = derive(warehouse(), STAGING, rows)
    with stage.dropped_on_error():
        _Filling(node, stage, ledger).fill(shard_sources)
    ledger.bytes += added
    ledger.storage += [*([how.kind] if how.kind != "clone" else []), "signals"]
    return stage


class _Filling:
    """Has a staging table get the values of signals."""

    def __init__(self, node: Signals, stage: StagingTable, ledger: Ledger) -> None:
        self.executor, self.ledger = executor(ledger.executor), ledger
        self.signals: tuple[Signal, ...] = node.signals
        self.on_error = cast('Literal["null", "raise"]', node.on_error)
        self.stage = stage

    def fill(self, shard_sources: Mapping[str, str]) -> None:
        """Write the values of the signals into the table."""
        stage, ledger = self.stage, self.ledger
        reads = [Reads.of(signal) for signal in self.signals]
        members = sorted({member for one in reads for member in one.members})
        with (
            Claims(stage.warehouse) as claims,
            files_of(stage, members, shard_sources, claims.run) as files,
            inputs_of(stage, files, reads) as inputs,
        ):
            errors = self.on_error == "null"
            staged = [Staged.of(s, inputs, claims, errors=errors, fresh=ledger.fresh) for s in self.signals]
            try:
                computed = self._complete(staged, fresh=ledger.fresh)
                types = {name: t for s in self.signals for name, t in s.columns.items()}
                own = stage.columns()
                stage.drop_columns([name for name in types if name in own])
                stage.add_columns(types, [s.name for s in self.signals if getattr(s.output, "unit", False)])
                for one in staged:
                    one.write_into(stage)
            except BaseException:
                for one in staged:
                    one.abandon()
                raise
        ledger.bytes += stage.bytes(types)
        ledger.signals += [one.record() for one in staged]
        ledger.reused += inputs.total * len(staged) - computed
        ledger.computed += computed
        ledger.finish += [one.forget for one in staged]

    def _complete(self, staged: Sequence[Staged], *, fresh: bool) -> int:
        """Have a staged value of every signal for every row; how many were computed for that."""
        claims = staged[0].claims
        types = self.stage.columns()
        names = ", ".join(one.signal.name for one in staged)
        values = staged[0].inputs.total * len(staged)
        computed, left, elsewhere = 0, 0, not fresh
        while True:
            began = claims.now()
            if elsewhere:
                for one in staged:
                    one.take_up()
                take_over(staged, types)
            missing = missing_rows(staged)
            if elsewhere and values > _count(missing):
                done(f"values of {names} taken over", values - _count(missing) - computed, values)
            if not missing:
                return computed
            if left and _count(missing) >= left:
                raise CommitError(
                    f"Values of {names} were computed and are not in the warehouse.", "Is its disk full? Run it again."
                )
            left, elsewhere = 0, False
            for lacking, shards in missing:
                ours = self._compute(staged, lacking, shards, began, fresh=fresh)
                computed += ours
                elsewhere |= ours < _count([(lacking, shards)])
                if ours:
                    # The others are looked at anew: rows with equal inputs get their value from each other.
                    left = _count(missing)
                    break
            else:
                self._wait(staged, missing)

    def _wait(self, staged: Sequence[Staged], missing: Sequence[tuple[int, Mapping[str, int]]]) -> None:
        """Wait for other runs, which compute everything that is missing."""
        shards = sorted({shard for _, some in missing for shard in some})
        staged[0].claims.wait([one.what for one in staged], shards)

    def _compute(
        self, staged: Sequence[Staged], lacking: int, shards: Mapping[str, int], began: str, *, fresh: bool
    ) -> int:
        """Compute and stage the signals that rows lack, for the rows that lack exactly these.

        Shards that other runs are at are left out.

        Args:
            lacking: bit i is set where the rows lack a value of signal i.
            shards: the shards that such rows are in -> how many there are.
            began: when it was looked which values there are.

        Returns:
            How many values were computed.
        """
        wanted = [one for i, one in enumerate(staged) if lacking & 1 << i]
        names = ", ".join(one.signal.name for one in wanted)
        share = Share(wanted[0].claims, [one.what for one in wanted], began, everything=fresh)
        rows = sum(shards.values())
        jobs = self._jobs(staged, wanted, lacking, shards)
        with track(f"computing {names}", rows) as progress:
            signals = [one.signal for one in wanted]
            if self.executor == "ray" and (rows > SMALL_ROWS or any(one.resources.gpus for one in signals)):
                from factory_lib.build.on_ray import compute_on_ray

                computed = compute_on_ray(signals, jobs, staged[0].inputs, share, rows, progress, self.ledger)
            else:
                computed = sum(self._compute_here(wanted, job, wave, share, progress) for job, wave in jobs)
        if computed:
            done(f"computed {names}", computed, computed)
        return computed * len(wanted)

    def _jobs(
        self, staged: Sequence[Staged], wanted: Sequence[Staged], lacking: int, shards: Mapping[str, int]
    ) -> Iterator[tuple[StagingJob, list[str]]]:
        """What is to be done, wave by wave, and the shards of each."""
        inputs = staged[0].inputs
        members = tuple(sorted({member for one in wanted for member in one.reads.members}))
        rows, places = LackingRows.of(staged, lacking), tuple(one.place for one in wanted)
        for wave in waves(shards, WAVE_ROWS, WAVE_SHARDS):
            states = etags(inputs.warehouse, inputs.rows.files, wave) if members else {}
            known = not members or all_known(inputs.rows, members, among(wave, "_t.shard"), inputs.warehouse)
            yield StagingJob(rows, places, members, states, not known, self.on_error), wave

    def _compute_here(
        self, wanted: Sequence[Staged], job: StagingJob, wave: Sequence[str], share: Share, progress: Tracked
    ) -> int:
        """Compute and stage the values of a wave on this machine; of how many rows."""
        from factory_lib.compute.run import compute

        wh, passing, computed = self.stage.warehouse, job.passing(), 0
        rows = iter(wh.stream(job.rows.sql(among(wave), wave)))
        results = compute(
            [one.signal for one in wanted],
            passing.split(share.of(rows)),
            on_error=self.on_error,
            progress=progress.advance,
            ordered=True,
            etags=job.etags,
            hashes=job.hashes,
        )
        for gathered in job.stage(results, passing, wh):
            share.staged(gathered)
            computed += gathered.num_rows
        share.end()
        return computed


def missing_rows(staged: Sequence[Staged]) -> list[tuple[int, dict[str, int]]]:
    """Rows that lack a value: which signals they lack (bit i: signal i) -> shard -> how many such rows it has."""
    inputs = staged[0].inputs
    bits = lacking_bits([one.place for one in staged])
    rows = inputs.warehouse.rows(
        f"SELECT lacking, shard, count() AS n FROM (SELECT shard, {bits} AS lacking FROM {inputs.name})"
        " WHERE lacking != 0 GROUP BY lacking, shard ORDER BY lacking, shard"
    )
    found: dict[int, dict[str, int]] = {}
    for row in rows:
        found.setdefault(row["lacking"], {})[row["shard"]] = row["n"]
    return list(found.items())


def _count(missing: Sequence[tuple[int, Mapping[str, int]]]) -> int:
    """How many values are missing."""
    return sum(lacking.bit_count() * sum(shards.values()) for lacking, shards in missing)


def table_sources(plan: Plan, wh: Warehouse) -> dict[str, str]:
    """Shard -> fingerprint of the files that its rows point into, of all versions that a query reads."""
    found: dict[str, str] = {}
    for table in tables(plan):
        if is_version_name(table.name):
            for name, shard in resolve(wh, table.name).shards.items():
                if shard.source and (table.shards is None or name in table.shards):
                    found.setdefault(name, shard.source)
    return found
