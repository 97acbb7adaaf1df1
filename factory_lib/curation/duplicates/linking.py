"""Groups of what pairs of samples connect that the database found, and of what several finders found together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from factory_lib.curation.duplicates.grouping import (
    GROUP_COLUMNS,
    KeepRule,
    Links,
    OrderKey,
    group_columns,
    group_table,
    grouped,
    ranks,
)
from factory_lib.errors import QueryError
from factory_lib.plan.expressions import C, fn, lit
from factory_lib.plan.nodes import Derived, RowFunction
from factory_lib.plan.operators import Expr
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.query import DatasetQuery
from factory_lib.warehouse.client import warehouse


def duplicate_groups(samples: DatasetQuery, *findings: DatasetQuery, keep: Sequence[OrderKey] = ()) -> DatasetQuery:
    """Groups of samples that any of several findings takes for duplicates, or the groups of one by another rule.

    What one finding connects with a sample, and another one that sample with a third, is one group.

    Args:
        samples: those among which one of each group is kept; others that the findings tell of are left aside, and what
            is left of a group of a finding is still one.
        findings: what `exact_duplicates`, `near_duplicates` or this gave, or rows of your own with `sample_id` and
            `duplicate_of`, and if there are such `group`, `matched`, `score` and `by`.
        keep: as `near_duplicates` takes it.

    Returns:
        One row for each sample of a group, see `GROUP_COLUMNS`; `matched`, `score` and `by` are of the strongest
        finding; the score is 0 where what a sample is most like is not among the samples.

    Raises:
        QueryError: there is no finding, or one lacks a column.
    """
    if not findings:
        raise QueryError("duplicate_groups() is given no finding.", "Such as near_duplicates(samples).")
    links = [link for finding in findings for link in _links(samples, finding)]
    return linked_groups(samples, links[0].union(*links[1:]), keep)


def linked_groups(samples: DatasetQuery, links: DatasetQuery, keep: Sequence[OrderKey] = ()) -> DatasetQuery:
    """Groups of the samples that pairs connect.

    Args:
        links: `sample_id` and `other`, `score` and `by` (see `GROUP_COLUMNS`): pairs, in whichever order.
        keep: as `near_duplicates` takes it.
    """
    rule = KeepRule.of(samples, keep)
    other_way = links.select("score", "by", sample_id="other", other="sample_id")
    both = links.union(other_way).select("sample_id", "other", link_score="score", link_by="by")
    given = rule.given(samples).join(both, on="sample_id")
    return DatasetQuery.of(Derived(given.plan, LINKED_GROUPS, {}, columns=group_columns(samples)))


def _links(samples: DatasetQuery, finding: DatasetQuery) -> list[DatasetQuery]:
    """What belongs together, and what is most like what."""
    columns = finding.columns
    for name in ("sample_id", "duplicate_of"):
        if name not in columns:
            raise QueryError(
                f"duplicate_groups() is given rows without {name!r}.", f"A finding has {', '.join(GROUP_COLUMNS)}."
            )
    by = C.by.cast("String") if "by" in columns else lit("").cast("String")
    score = (C.score if "score" in columns else lit(1.0)).cast("Float32")
    together = lit(0.0).cast("Float32")
    gone = finding.filter(C.duplicate_of.not_null())
    matched = "matched" in columns
    links = [gone.select("sample_id", other=_id(C.duplicate_of), score=together if matched else score, by=by)]
    if "group" in columns:
        links.append(_of_groups(samples, finding.select("sample_id", "group", score=together, by=by)))
    if matched:
        links.append(finding.select("sample_id", other=_id(C.matched), score=score, by=by))
    return links


def _of_groups(samples: DatasetQuery, members: DatasetQuery) -> DatasetQuery:
    """Each member of a group with the first one that is among the samples: others may be gone, also the one kept."""
    there = members.join(samples.select("sample_id"), on="sample_id", how="semi")
    first = there.group_by("group").agg(other=fn.min(C.sample_id))
    pairs = there.join(first, on="group").filter(C.sample_id != C.other)
    return pairs.select("sample_id", "other", "score", "by")


def _id(expr: Expr) -> Expr:
    return fn.assumeNotNull(expr)


def _linked_groups(query: Select) -> pa.Table:
    """Rows with `GROUP_COLUMNS`, of samples that stand there once for each pair that they are in."""
    rendering = Rendering()
    rows = warehouse().query(rendering.select(query.in_row_order()), rendering.params, rendering.settings)
    # what joins gives rows of one sample in any order: of findings that are equally sure it is always the same one
    by_name = rows.append_column("name", rows.column("link_by").cast(pa.string()))
    order = pc.sort_indices(by_name, [("sample_id", "ascending"), ("other", "ascending"), ("name", "descending")])
    rows = rows.take(order)
    ids = rows.column("sample_id").to_numpy()
    distinct, first, of = np.unique(ids, return_index=True, return_inverse=True)
    samples = rows.drop_columns(["other", "link_score", "link_by"]).take(first)
    others = rows.column("other").to_numpy()
    other = np.minimum(np.searchsorted(distinct, others), max(0, len(distinct) - 1))
    there = np.flatnonzero((distinct[other] == others) & (others != ids)) if len(distinct) else np.zeros(0, np.int64)
    links = Links(of[there], other[there], rows.column("link_score").to_numpy()[there])
    found = grouped(links, ranks(samples), distinct)
    link = there[found.link]
    return group_table(samples, found, rows.column("link_score").take(link), rows.column("link_by").take(link))


LINKED_GROUPS = RowFunction(f"{__name__}:LINKED_GROUPS", "linked_groups", _linked_groups)
