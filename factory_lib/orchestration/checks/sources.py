"""Checks on what was read of a source: which shards could not be, and what of its files and columns is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from factory_lib.history.origins import origins_of
from factory_lib.orchestration.checks.evaluations import report
from factory_lib.sources.account import losses as account_losses
from factory_lib.sources.declared import SEPARATOR
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.losses import MEND, ShardLoss, read_losses
from factory_lib.warehouse.versions import Version, resolve

ERROR, WARN = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
_SHOWN_LOSSES = 100
_NAMED_LOSSES = 3


INGESTED = "ingested"
"""The check of a stage that reads a source, where a graph has it."""


def report_ingest(instance: dg.DagsterInstance, asset: dg.AssetKey, dataset: str) -> None:
    """Have the check `INGESTED` say what was read, of a step that fails: Dagster does not come to its checks then."""
    report(instance, check_ingest(dataset), asset, INGESTED)


def check_ingest(dataset: str, max_lost: float = 0.2) -> dg.AssetCheckResult:
    """Whether samples were read, and what of the source could not be: of all shards, whichever run read them.

    Red where of a shard nothing could be read, or a larger share is lost than may be; yellow where a file may hold more
    than was read. Of several sources each is judged by itself.

    Args:
        max_lost: share of samples that are lost or without a picture, 0 to 1, above which the check fails.
    """
    version = resolve(warehouse(), dataset)
    losses = read_losses(version.warehouse, version.uuid)
    lost = sum(number for loss in losses for number in loss.lost.values())
    sources = _by_source(version, losses)
    share = max((one.share for one in sources.values()), default=0.0)
    doubtful = [loss for loss in losses if loss.files]
    unread = [loss for loss in doubtful if loss.is_unread]
    metadata: dict[str, Any] = {"read": version.rows, "lost": lost, "lost_share": share, "shards_unread": len(unread)}
    metadata["shards_damaged"] = len(doubtful) - len(unread)
    metadata |= _summed(losses)
    if len(sources) > 1:
        table = [_source_row(name, one) for name, one in sources.items()]
        metadata["sources"] = dg.MetadataValue.table(table)
    if losses:
        metadata["not_read"] = dg.MetadataValue.table([_loss_row(loss) for loss in losses[:_SHOWN_LOSSES]])
    of_all = f"{lost / (version.rows + lost) if lost else 0.0:.1%}"
    worst = max(sources, key=lambda name: sources[name].share, default="")
    most = f"; most of {worst}: {share:.1%}" if len(sources) > 1 and lost else ""
    said = [f"{version}: {version.rows:,} samples read, {lost:,} lost ({of_all}{most})."]
    said += [f"Nothing was read of {len(unread):,} shards: {_listed(unread)}."] * bool(unread)
    said += [f"{len(doubtful) - len(unread):,} shards are damaged: {_listed(doubtful[len(unread) :])}."] * (
        len(doubtful) > len(unread)
    )
    return dg.AssetCheckResult(
        passed=version.rows > 0 and share <= max_lost and not doubtful,
        severity=ERROR if unread or share > max_lost or not version.rows else WARN,
        description=" ".join([*said, MEND] if doubtful else said),
        metadata=metadata,
    )


@dataclass
class _SourceLosses:
    """What was read of a source, and what is known to be lost."""

    shards: int = 0
    rows: int = 0
    lost: int = 0

    @property
    def share(self) -> float:
        """Of the samples that there are, those that are lost."""
        return self.lost / (self.rows + self.lost) if self.lost else 0.0


def _source_row(name: str, one: _SourceLosses) -> dg.TableRecord:
    read = {"samples read": one.rows, "known to be lost": one.lost, "lost share": one.share}
    return dg.TableRecord({"source": name, "shards": one.shards, **read})


def _by_source(version: Version, losses: Sequence[ShardLoss]) -> dict[str, _SourceLosses]:
    """Name of each of several sources -> what was read of it; a source that is the only one has no name."""
    rows, lost = version.shard_rows(), {loss.shard: sum(loss.lost.values()) for loss in losses}
    names = _names(version)
    found: dict[str, _SourceLosses] = {}
    for shard in dict.fromkeys((*rows, *lost)):
        beginning = _beginning(shard)
        one = found.setdefault(names.get(beginning, beginning), _SourceLosses())
        one.shards, one.rows, one.lost = one.shards + 1, one.rows + rows.get(shard, 0), one.lost + lost.get(shard, 0)
    return found


def _names(version: Version) -> dict[str, str]:
    """What the names of shards begin with -> the source of which they were read last."""
    names: dict[str, str] = {}
    for origin in origins_of(version.warehouse, version):
        for source in origin.provenance.sources if origin.provenance else []:
            for shard in source["shards"]:
                names.setdefault(_beginning(shard), source.get("name", ""))
    return names


def _beginning(shard: str) -> str:
    return shard.partition(SEPARATOR)[0] if SEPARATOR in shard else ""


def _summed(losses: Sequence[ShardLoss]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for loss in losses:
        for kind, number in {**loss.lost, **loss.files}.items():
            counts[kind] = counts.get(kind, 0) + number
    return counts


def _listed(losses: Sequence[ShardLoss]) -> str:
    more = f"; and {len(losses) - _NAMED_LOSSES:,} more" if len(losses) > _NAMED_LOSSES else ""
    return "; ".join(map(str, losses[:_NAMED_LOSSES])) + more


def _loss_row(loss: ShardLoss) -> dg.TableRecord:
    state = "not read" if loss.is_unread else "damaged" if loss.files else "some lost"
    lost = sum(loss.lost.values())
    return dg.TableRecord(
        {"shard": loss.shard, "state": state, "samples read": loss.samples, "known to be lost": lost, "why": str(loss)}
    )


def check_account(dataset: str) -> dg.AssetCheckResult:
    """Whether all files and columns that the newest run saw at the source are used, but for those that hold no samples
    or were left out by choice."""
    recorded = resolve(warehouse(), dataset).provenance
    sources = recorded.sources if recorded else []
    account = [{**entry, "source": one.get("name", "")} for one in sources for entry in one.get("account", [])]
    table = [
        dg.TableRecord(
            {
                **({"source": entry["source"]} if entry["source"] else {}),
                "kind": entry["kind"],
                "what": entry["what"],
                "count": entry["count"],
                "became": "used" if entry["used"] else "left out",
                "reason": entry["reason"],
                "examples": ", ".join(entry["examples"]),
            }
        )
        for entry in account
    ]
    metadata = {"account": dg.MetadataValue.table(table)} if table else {}
    lost = account_losses(account)
    description = f"{lost:,} files or columns that may hold samples or values are left out."
    return dg.AssetCheckResult(
        passed=not lost,
        severity=WARN,
        description=description if lost else "Everything at the source is used or accounted for.",
        metadata=metadata,
    )
