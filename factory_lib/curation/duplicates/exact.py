"""Exact duplicates: samples that are equal in some columns, found by the database alone."""

from __future__ import annotations

from collections.abc import Sequence

from factory_lib.curation.duplicates.grouping import MEMBER, OrderKey
from factory_lib.curation.duplicates.linking import linked_groups
from factory_lib.errors import ColumnNotFound, QueryError, nearest
from factory_lib.plan.expressions import C, fn, lit
from factory_lib.query import DatasetQuery


def exact_duplicates(samples: DatasetQuery, by: Sequence[str], *, keep: Sequence[OrderKey] = ()) -> DatasetQuery:
    """Groups of samples that are equal in all of some columns.

    Args:
        by: columns: `["sha256"]` (the bytes of the file), `["pixel_md5"]` (the decoded pixels), `["url", "caption"]`
            (as LAION does it). NULL equals nothing.
        keep: as `near_duplicates` takes it.

    Returns:
        One row for each sample of a group, see `GROUP_COLUMNS`; `by` names the columns.

    Raises:
        ColumnNotFound, QueryError: a column is missing, or none is named.
    """
    if isinstance(by, str) or not by:
        raise QueryError(f"exact_duplicates(by={by!r}): columns are asked for.", 'Such as by=["sha256"].')
    for name in by:
        if name not in samples.columns:
            raise ColumnNotFound(
                f"exact_duplicates() compares by the column {name!r}, which the samples do not have.",
                nearest(name, samples.columns),
            )
    # named by place, so that no column of the samples is taken for one of ours
    values = {f"value_{place}": C[name] for place, name in enumerate(by)}
    known = samples.filter(*(C[name].not_null() for name in by)).select("shard", "position", "sample_id", **values)
    # the first one stands for all: links that connect a group need not be all pairs
    equal = known.group_by(*values).agg(
        equal_samples=fn.count(), other=fn.argMin(C.sample_id, fn.tuple(C.shard.cast("String"), C.position))
    )
    links = known.join(equal.filter(C.equal_samples > 1), on=list(values)).filter(C.sample_id != C.other)
    found = links.select("sample_id", "other", score=lit(1.0).cast("Float32"), by=lit("+".join(by)))
    return linked_groups(samples, found, keep)


def of_equal_size(samples: DatasetQuery, member: str = MEMBER) -> DatasetQuery:
    """The samples whose bytes are as many as those of another one: only these can be equal, and only these need be
    hashed. Pointers know their sizes; nothing is read.

    Args:
        member: a pointer.
    """
    sizes = samples.group_by(size=C[member].size).agg(samples=fn.count()).filter(C.samples > 1)
    return samples.filter(C[member].size.isin(sizes.select("size")))
