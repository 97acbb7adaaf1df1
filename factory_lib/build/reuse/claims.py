"""Which run computes which values, so that two runs over the same samples cost what one costs.

A run claims a shard when it is about to compute values of it, and says when they are staged. Another run that needs
them leaves the shard alone meanwhile, and takes what was staged. Claims save work and decide nothing else: a run holds
only values that are in its own tables, so that two that compute the same shard, because one of them was taken for dead
or both claimed it in the same moment, are slower and right.

A run is alive as long as it says so every few seconds and, on this machine, its process exists.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.errors import EngineError
from factory_lib.names import CATALOG
from factory_lib.owners import Owner, owner
from factory_lib.progress import track
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables

BEAT_SECONDS = 3.0
SILENT_SECONDS = 20.0
"""A run that has said nothing for so long counts as dead."""

_POLL_SECONDS = 2.0
_TABLE = f"{CATALOG}.claims"
# Of values of a shard, when a run claimed them last, and when it gave them up.
_SAID = "run, maxIf(at, NOT ended) AS claimed, maxIf(at, ended) AS given_up"


class Claims:
    """What one run claims, and what others do.

    Attributes:
        run: what the run is called.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse = warehouse
        self.run = uuid.uuid4().hex[:16]
        self._stop = threading.Event()
        self._beats: threading.Thread | None = None

    def now(self) -> str:
        """The engine's time, as claims are dated."""
        return str(self.warehouse.scalar("SELECT toString(now64(6, 'UTC'))"))

    def claim(self, names: Sequence[str], shards: Sequence[str], began: str) -> set[str]:
        """Claim the values of signals for shards.

        Args:
            names: what the signals' values are called.
            began: when it was looked which values there are; what another run has staged since is not claimed.

        Returns:
            The shards that are this run's to compute.
        """
        self._write(names, shards, ended=False)
        others = self._alive()
        taken = self.warehouse.rows(
            f"SELECT DISTINCT shard FROM (SELECT name, shard, {_SAID} FROM {_TABLE}"
            " WHERE has({n:Array(String)}, name) AND has({s:Array(String)}, shard) GROUP BY name, shard, run) AS _other"
            " INNER JOIN (SELECT name, shard, max(at) AS mine FROM"
            f" {_TABLE} WHERE run = {{me:String}} AND NOT ended GROUP BY name, shard) AS _own USING (name, shard)"
            " WHERE run != {me:String} AND (claimed, run) < (mine, {me:String})"
            " AND if(claimed > given_up, has({o:Array(String)}, run),"
            " given_up > parseDateTime64BestEffort({began:String}, 6, 'UTC'))",
            {"n": list(names), "s": list(shards), "o": list(others), "me": self.run, "began": began},
        )
        lost = {row["shard"] for row in taken}
        if lost:
            self.release(names, sorted(lost))
        return set(shards) - lost

    def release(self, names: Sequence[str], shards: Sequence[str]) -> None:
        """Say that the values of shards are staged, or are not computed by this run after all."""
        if shards:
            self._write(names, shards, ended=True)

    def held(self, names: Sequence[str], shards: Sequence[str]) -> dict[str, Owner | None]:
        """Those of the shards that other living runs compute these values of -> by whom."""
        others = self._alive()
        if not others:
            return {}
        rows = self.warehouse.rows(
            f"SELECT shard, any(run) AS holder FROM (SELECT shard, {_SAID} FROM {_TABLE} WHERE has({{n:Array(String)}},"
            " name) AND has({s:Array(String)}, shard) AND has({o:Array(String)}, run) GROUP BY name, shard, run)"
            " WHERE claimed > given_up GROUP BY shard",
            {"n": list(names), "s": list(shards), "o": list(others)},
        )
        return {row["shard"]: others[row["holder"]] for row in rows}

    def wait(self, names: Sequence[str], shards: Sequence[str]) -> None:
        """Wait until no other living run computes these values of these shards."""
        total = len(shards)
        pause = 0.05
        left = self.held(names, shards)
        if not left:
            return
        who = ", ".join(sorted({str(one or "another run") for one in left.values()}))
        with track(f"waiting for shards that {who} computes", total) as progress:
            while left:
                time.sleep(pause)
                pause = min(2 * pause, _POLL_SECONDS)
                before, left = len(left), self.held(names, list(left))
                progress.advance(before - len(left))

    def over(self, runs: Iterable[str]) -> set[str]:
        """Those of the runs that have said that they ended."""
        rows = self.warehouse.rows(
            f"SELECT run FROM {_TABLE} WHERE name = '' AND has({{r:Array(String)}}, run) GROUP BY run"
            " HAVING argMax(ended, at)",
            {"r": list(runs)},
        )
        return {row["run"] for row in rows}

    def close(self) -> None:
        """Give up every claim."""
        if self._beats is None:
            return
        self._stop.set()
        self._beats.join()
        self._beats = None
        with contextlib.suppress(EngineError):  # then it is taken for dead soon
            self._beat(ended=True)

    def __enter__(self) -> Claims:
        ensure_tables(self.warehouse)
        self._beat()
        self._beats = threading.Thread(target=self._keep_beating, name="claims", daemon=True)
        self._beats.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _keep_beating(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with contextlib.suppress(EngineError):  # it is tried again; silence costs work, nothing else
                self._beat()

    def _beat(self, *, ended: bool = False) -> None:
        self._write([""], [""], ended=ended)

    def _write(self, names: Sequence[str], shards: Sequence[str], *, ended: bool) -> None:
        self.warehouse.execute(
            f"INSERT INTO {_TABLE} SELECT arrayJoin({{n:Array(String)}}), shard, {{r:String}}, {{w:String}},"
            " now64(6, 'UTC'), {e:Bool} FROM (SELECT arrayJoin({s:Array(String)}) AS shard)",
            {"n": list(names), "s": list(shards), "r": self.run, "w": owner(), "e": ended},
        )

    def _alive(self) -> dict[str, Owner | None]:
        """Other runs that live -> their owners."""
        rows = self.warehouse.rows(
            f"SELECT run, any(owner) AS owner FROM {_TABLE} WHERE name = '' AND run != {{me:String}} GROUP BY run"
            " HAVING NOT argMax(ended, at) AND max(at) > now64(6, 'UTC') - toIntervalMillisecond({ms:UInt32})",
            {"me": self.run, "ms": int(SILENT_SECONDS * 1000)},
        )
        owners = {row["run"]: Owner.of(row["owner"]) for row in rows}
        return {run: one for run, one in owners.items() if one is None or one.is_alive}


class Share:
    """Of rows that lack values, those that a run computes: their shards are claimed as they come.

    Args:
        names: what the values are called.
        began: when it was looked which values there are.
        everything: nobody is asked, and nothing is claimed.
    """

    def __init__(self, claims: Claims, names: Sequence[str], began: str, *, everything: bool = False) -> None:
        self._claims, self._names, self._began, self._everything = claims, names, began, everything
        self._ours: dict[str, bool] = {}

    def of(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The rows of batches, in the order of their shards, that no other run computes."""
        if self._everything:
            yield from batches
            return
        known: set[str] = set()
        for batch in batches:
            shard = batch.column("shard").cast(pa.string())
            new = sorted(set(shard.unique().to_pylist()) - known)
            if new:
                self.claim(new)
                known.update(new)
            lost = known - self._ours.keys()
            kept = batch.filter(pc.invert(pc.is_in(shard, pa.array(sorted(lost))))) if lost else batch
            if kept.num_rows:
                yield kept

    def claim(self, shards: Sequence[str]) -> set[str]:
        """Claim shards; those that are this run's to compute."""
        if self._everything:
            return set(shards)
        won = self._claims.claim(self._names, shards, self._began)
        self._ours |= dict.fromkeys(sorted(won), True)
        return won

    def finished(self, shards: Sequence[str]) -> None:
        """Say that the values of all rows of shards are staged."""
        self._release([shard for shard in shards if self._ours.get(shard)])

    def staged(self, rows: pa.Table) -> None:
        """Say that the values of these rows, the next ones in order, are staged."""
        seen = rows.column("shard").cast(pa.string()).unique().to_pylist()
        # Of the last shard rows may follow.
        self._release([shard for shard in self._ours if self._ours[shard] and shard < max(seen)])

    def end(self) -> None:
        """Say that the values of all rows are staged."""
        self._release([shard for shard in self._ours if self._ours[shard]])

    def _release(self, shards: Sequence[str]) -> None:
        self._claims.release(self._names, shards)
        self._ours |= dict.fromkeys(shards, False)
