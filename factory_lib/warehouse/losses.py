"""Losses: what was seen of a shard at its source and could not be read, as the catalog keeps it of each version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from factory_lib.names import CATALOG
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.schema import ensure_tables

WITHOUT_SAMPLES = "without_samples"
"""Kind of loss of a shard whose files can be read and hold no sample."""

NOT_MADE = "samples_not_made"
"""Kind of loss: samples of which there is no new sample, though one was to be made of each."""


@dataclass(frozen=True)
class ShardLoss:
    """What of a shard is not in the dataset although it was seen at the source.

    Attributes:
        samples: samples that were read.
        lost: kind -> samples that are known to be missing, or to lack their picture.
        files: kind -> files that may hold any number of samples more.
        problems: messages that name file, place and cause.
    """

    shard: str
    samples: int
    lost: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def is_unread(self) -> bool:
        """Whether nothing at all could be read of it, though there may be something."""
        return not self.samples and bool(self.files.keys() - {WITHOUT_SAMPLES})

    @property
    def what(self) -> str:
        """How much was read, and the first thing that went wrong."""
        said = self.problems[0] if self.problems else ", ".join(self._counts())
        more = f" (and {len(self.problems) - 1} more problems)" if len(self.problems) > 1 else ""
        return f"{f'{self.samples:,} samples were' if self.samples else 'nothing was'} read: {said}{more}"

    def __str__(self) -> str:
        return f"{self.shard}: {self.what}"

    def _counts(self) -> Iterable[str]:
        return (f"{number:,} {kind.replace('_', ' ')}" for kind, number in {**self.files, **self.lost}.items())


MEND = (
    "Upload the file again, and it is read again by itself; or take it away, and its shard goes from the dataset, too."
)
"""What to do about a file that cannot be read."""


def record_losses(
    warehouse: Warehouse, uuid: str, losses: Iterable[ShardLoss], before: str | None, replaced: Iterable[str]
) -> None:
    """Write the losses of a version that is about to be published.

    Args:
        losses: of the shards that it made.
        before: UUID of the version whose other shards it carries over, with their losses.
        replaced: shards of that version that are not carried over.
    """
    if found := list(losses):
        counts = pa.map_(pa.string(), pa.uint64())
        columns = {
            "uuid": pa.array([uuid] * len(found), pa.string()),
            "shard": pa.array([one.shard for one in found], pa.string()),
            "samples": pa.array([one.samples for one in found], pa.uint64()),
            "lost": pa.array([list(one.lost.items()) for one in found], counts),
            "files": pa.array([list(one.files.items()) for one in found], counts),
            "problems": pa.array([list(one.problems) for one in found], pa.list_(pa.string())),
        }
        warehouse.insert(f"{CATALOG}.losses", pa.table(columns))
    if before is not None:
        warehouse.execute(
            f"INSERT INTO {CATALOG}.losses SELECT {{new:UUID}}, shard, samples, lost, files, problems"
            f" FROM {CATALOG}.losses WHERE uuid = {{old:UUID}} AND NOT has({{gone:Array(String)}}, shard)",
            {"new": uuid, "old": before, "gone": sorted(replaced)},
        )


def read_losses(warehouse: Warehouse, uuid: str, shards: Iterable[str] | None = None) -> list[ShardLoss]:
    """The losses of the version with this table UUID, those of which nothing was read first.

    Args:
        shards: of these alone; None for all.
    """
    ensure_tables(warehouse)
    wanted = None if shards is None else sorted(set(shards))
    among = "" if wanted is None else " AND has({s:Array(String)}, shard)"
    rows = warehouse.rows(
        f"SELECT shard, samples, lost, files, problems FROM {CATALOG}.losses WHERE uuid = {{u:UUID}}{among}"
        " ORDER BY shard",
        {"u": uuid} | ({} if wanted is None else {"s": wanted}),
    )
    found = [
        ShardLoss(row["shard"], row["samples"], dict(row["lost"]), dict(row["files"]), tuple(row["problems"]))
        for row in rows
    ]
    return sorted(found, key=lambda one: (not one.is_unread, not one.files, one.shard))
