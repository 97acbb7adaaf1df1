"""Values that rows lack, computed on a Ray cluster: the same waves, the same staged values, put there by the nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from factory_lib.build.lacking import SPAN_ROWS, STAGED_SECONDS, StagingJob
from factory_lib.build.ledger import Ledger
from factory_lib.build.reuse.claims import Share
from factory_lib.build.reuse.inputs import Inputs
from factory_lib.compute.cluster import pieces
from factory_lib.compute.cluster.pieces import Piece, ShardSpan
from factory_lib.compute.cluster.spreading import Spreading
from factory_lib.compute.processes import PackedSignals
from factory_lib.compute.reading import ReadPlan
from factory_lib.compute.travel import packed
from factory_lib.progress import Tracked
from factory_lib.signals.signal import Signal

_INSERTS = 20
"""So many workers stage values in a second, however many there are: a table takes so many parts."""


def compute_on_ray(
    signals: Sequence[Signal],
    jobs: Iterator[tuple[StagingJob, Sequence[str]]],
    inputs: Inputs,
    share: Share,
    rows: int,
    progress: Tracked,
    ledger: Ledger,
) -> int:
    """Compute and stage the values of waves of rows.

    Args:
        jobs: for each wave what becomes of its rows, and its shards.
        rows: how many there are, in all waves.
        ledger: is told which node did how much.

    Returns:
        How many rows were computed.

    Raises:
        FactoryError: no cluster that fits, or what a worker met.
    """
    with packed(signals) as sent:
        first = next(jobs)
        given = PackedSignals.of(signals, sent, _plan(signals, inputs, *first))
        spreading = Spreading(given, rows, max(SPAN_ROWS, min(given.batch, pieces.FIRST_PIECE_ROWS)), progress)
        waves = _Waves(spreading, inputs, share)
        done = 0
        for piece in spreading.results(waves.pieces(chain([first], jobs))):
            waves.finish(piece)
            done += piece.rows
        for node, work in spreading.nodes.items():
            ledger.computed_on(node, work.rows, work.seconds)
        return done


class _Waves:
    """Waves as pieces of them are given out and come back."""

    def __init__(self, spreading: Spreading, inputs: Inputs, share: Share) -> None:
        self._spreading, self._inputs, self._share = spreading, inputs, share
        self._left: Counter[str] = Counter()
        self._seconds = max(STAGED_SECONDS, spreading.workers / _INSERTS)

    def pieces(self, jobs: Iterator[tuple[StagingJob, Sequence[str]]]) -> Iterator[tuple[int, Piece]]:
        """Pieces of waves, with the number of their job, of shards that no other run computes."""
        for job, shards in jobs:
            number = self._spreading.add(replace(job, seconds=self._seconds))
            spans = list(job.rows.spans(shards, self._inputs.warehouse))
            self._left.update(Counter({span.shard: span.rows for span in spans}))
            for piece in self._spreading.sizes.cut(self._claimed(spans)):
                yield number, piece

    def finish(self, piece: Piece) -> None:
        """Say of shards of which nothing is left that they are staged."""
        for span in piece.spans:
            self._left[span.shard] -= span.rows
        self._share.finished([shard for shard in {span.shard for span in piece.spans} if not self._left[shard]])

    def _claimed(self, spans: Sequence[ShardSpan]) -> Iterator[ShardSpan]:
        """The spans of shards that are this run's to compute, each claimed when its first is asked for."""
        ours: Mapping[str, bool] = {}
        for span in spans:
            if span.shard not in ours:
                ours = {span.shard: bool(self._share.claim([span.shard]))}
            if ours[span.shard]:
                yield span


def _plan(signals: Sequence[Signal], inputs: Inputs, job: StagingJob, shards: Sequence[str]) -> ReadPlan:
    """What of the rows the signals need."""
    text = job.rows.sql("1", shards)
    schema = inputs.warehouse.query(f"SELECT * FROM ({text}) LIMIT 0").schema
    return ReadPlan.of(signals, schema)
