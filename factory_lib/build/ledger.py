"""What happened while the rows of a plan were written: for provenance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from factory_lib.warehouse.losses import ShardLoss

COMPUTED_ON = "computed_on"
"""What provenance says of the nodes of a cluster."""


@dataclass
class Ledger:
    """What happened while rows were written.

    Attributes:
        signals: signals that were computed, `{"name", "fingerprint", "components"}`.
        sources: what was ingested.
        losses: what of the shards was seen and could not be read.
        shard_sources: shard -> fingerprint of the files that its rows point into.
        reused, computed: signal values taken over and computed.
        bytes: bytes on disk that were written.
        storage: how they were stored.
        finish: called after the commit.
        fresh: values are computed anew, whatever is known of them already.
        executor: where values are computed; None for where the settings say.
        nodes: node of a cluster -> samples that it computed values of, and seconds that it took.
    """

    signals: list[dict[str, Any]] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    losses: list[ShardLoss] = field(default_factory=list)
    shard_sources: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    computed: int = 0
    bytes: int = 0
    storage: list[str] = field(default_factory=list)
    finish: list[Callable[[], None]] = field(default_factory=list)
    fresh: bool = False
    executor: str | None = None
    nodes: dict[str, tuple[int, float]] = field(default_factory=dict)

    def computed_on(self, node: str, rows: int, seconds: float) -> None:
        """Note what a node of a cluster has done."""
        before, took = self.nodes.get(node, (0, 0.0))
        self.nodes[node] = before + rows, took + seconds

    def told(self) -> dict[str, str]:
        """What there is to say in provenance beyond what it has places for: the nodes, with their throughput."""
        nodes = (f"{node}: {n:,} samples, {n / took:,.0f}/s" for node, (n, took) in sorted(self.nodes.items()))
        return {COMPUTED_ON: "; ".join(nodes)} if self.nodes else {}

    def add(self, other: Ledger) -> None:
        """Take over what another ledger says."""
        self.signals += other.signals
        self.sources += other.sources
        self.losses += other.losses
        self.shard_sources |= other.shard_sources
        self.reused += other.reused
        self.computed += other.computed
        self.bytes += other.bytes
        self.storage += other.storage
        self.finish += other.finish
        for node, (rows, seconds) in other.nodes.items():
            self.computed_on(node, rows, seconds)
