"""The funnel: how many samples each stage was given and kept, and why the others went."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from factory_lib.plan.expressions import C, case, fn
from factory_lib.plan.operators import Expr
from factory_lib.query import DatasetQuery

if TYPE_CHECKING:
    from factory_lib.warehouse.versions import Version


@dataclass(frozen=True)
class FunnelStep:
    """One stage of a funnel.

    Attributes:
        version: name of the version that the stage made.
        rows_in: samples it was given.
        rows: samples it kept; of a finding, those that it found.
        bytes_added: what its version added on disk.
        storage: how it is stored.
        reasons: why samples went -> how many, where the stage has rules.
        remark: what the stage has to say, such as that it could not judge and kept everything.
        is_finding: it only says something of samples: what comes after it is given what it was given itself.
    """

    version: str
    rows_in: int
    rows: int
    bytes_added: int
    storage: str
    reasons: Mapping[str, int] = field(default_factory=dict)
    remark: str = ""
    is_finding: bool = False

    @property
    def kept(self) -> float:
        """Share of the samples that was kept, 0 to 1."""
        return self.rows / self.rows_in if self.rows_in else 0.0


def rejections(samples: DatasetQuery, rules: Mapping[str, Expr]) -> dict[str, int]:
    """How many samples each rule rejects; a sample that breaks several counts for the first of them.

    Args:
        rules: reason -> predicate that a sample has to meet, never NULL.

    Returns:
        reason -> samples, in the order of the rules; rules that reject none included.
    """
    if not rules:
        return {}
    blamed = case(*((~rule, reason) for reason, rule in rules.items()), default="")
    counted = samples.group_by(reason=blamed).agg(n=fn.count()).filter(C.reason != "").to_arrow()
    found = dict(zip(counted["reason"].to_pylist(), counted["n"].to_pylist(), strict=True))
    return {reason: int(found.get(reason, 0)) for reason in rules}


def _remark(told: Mapping[str, Any]) -> str:
    """What a stage could not judge, and that it kept all where that is all that there was to judge."""
    remark: str = told.get("remark", "")
    return f"kept all: {remark}" if remark and told.get("removed") == {} else remark


def funnel(versions: Iterable[Version], findings: Collection[str] = ()) -> list[FunnelStep]:
    """The funnel of a chain of versions, from what provenance recorded of each: sizes, reasons, remarks.

    Args:
        versions: in the order of the stages; the rows of each are compared with those of the one before.
        findings: datasets that only say something of samples, such as which of them are duplicates.
    """
    steps: list[FunnelStep] = []
    given: int | None = None
    for version in versions:
        recorded = version.provenance
        told = recorded.context if recorded else {}
        given = version.rows if given is None else given
        is_finding = version.dataset in findings
        steps.append(
            FunnelStep(
                version=str(version),
                rows_in=given,
                rows=version.rows,
                bytes_added=recorded.bytes_added if recorded else 0,
                storage=recorded.storage if recorded else "",
                reasons=told.get("removed", {}),
                remark=_remark(told),
                is_finding=is_finding,
            )
        )
        given = given if is_finding else version.rows
    return steps
