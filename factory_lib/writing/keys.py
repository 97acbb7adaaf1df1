"""Names of exported samples: each has one of its own that can be the name of a file; seen before any is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factory_lib.errors import ColumnNotFound, ExportError, nearest
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr
from factory_lib.storage.tars import KEY, NO_KEY

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery

SAMPLE_NAME = "_sample_name"
"""Column of the names: an attribute `key` stays as it is whatever the samples are named by."""
_NEXT = 'Name a column that has one for each: key="sample_id", --key sample_id.'


def named_by(samples: DatasetQuery, column: str) -> DatasetQuery:
    """The samples with their names, as text, in the column `SAMPLE_NAME`.

    Args:
        column: that names them.

    Raises:
        ColumnNotFound: they do not have it.
    """
    if column not in samples.columns:
        raise ColumnNotFound(f"The samples have no column {column!r} to be named by.", nearest(column, samples.columns))
    return samples.mutate(**{SAMPLE_NAME: fn.toString(C[column])})


def check_keys(samples: DatasetQuery, *, paths: bool) -> int:
    """Number of samples, after a look at their names.

    Args:
        samples: with their names.
        paths: whether keys become names of files.

    Raises:
        ExportError: there are no samples; a key is missing, comes again, or can be no name.
    """
    if not paths:
        count = samples.count()
    else:
        key: Expr = C[SAMPLE_NAME]
        wrong = ~key.matches(KEY) | key.matches(NO_KEY)
        (found,) = (
            samples.agg(
                rows=fn.count(),
                keys=fn.uniqExact(key),
                empty=fn.countIf(key.is_null()),
                wrong=fn.countIf(wrong),
                example=fn.anyIf(key, wrong),
            )
            .to_arrow()
            .to_pylist()
        )
        count = found["rows"]
        if found["empty"]:
            raise ExportError(f"{found['empty']:,} samples have no key.", _NEXT)
        if found["wrong"]:
            raise ExportError(
                f"{found['wrong']:,} keys cannot be names of files, such as {found['example']!r}: a key has no dot in "
                "its last part, and no part begins with one.",
                _NEXT,
            )
        if count and found["keys"] < count:
            counts = samples.group_by(SAMPLE_NAME).agg(n=fn.count())
            twice = counts.filter(C.n > 1).order_by(SAMPLE_NAME).limit(1).to_arrow()
            raise ExportError(
                f"{count - found['keys']:,} samples have a key that another one has, such as "
                f"{twice[SAMPLE_NAME][0].as_py()!r}.",
                _NEXT,
            )
    if not count:
        raise ExportError("There are no samples to export.", "Does a filter remove them all?")
    return count
