"""Keys of exported samples: each has one of its own that can be the name of a file; seen before any is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from factory_lib.errors import ColumnNotFound, ExportError, nearest
from factory_lib.plan.expressions import C, fn
from factory_lib.plan.operators import Expr

if TYPE_CHECKING:
    from factory_lib.query import DatasetQuery

_PATH = r"^([^/.][^/]*/)*[^/.]+$"
_HIDDEN = r"^__[^/]*__(/|$)|[\x00-\x1f\x7f]"
_NEXT = 'Name a column that has one for each: key="sample_id", --key sample_id.'


def keyed(samples: DatasetQuery, column: str) -> DatasetQuery:
    """The samples with a column, as text, as their `key`.

    Raises:
        ColumnNotFound: they do not have it.
    """
    if column not in samples.columns:
        raise ColumnNotFound(f"The samples have no column {column!r} to be named by.", nearest(column, samples.columns))
    return samples if column == "key" else samples.mutate(key=fn.toString(C[column]))


def check_keys(samples: DatasetQuery, *, paths: bool) -> int:
    """Number of samples, after a look at their keys.

    Args:
        samples: with the keys that they are to have.
        paths: whether keys become names of files.

    Raises:
        ExportError: there are no samples; a key is missing, comes again, or can be no name.
    """
    if not paths:
        count = samples.count()
    else:
        key: Expr = C.key
        wrong = ~key.matches(_PATH) | key.matches(_HIDDEN)
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
            twice = samples.group_by("key").agg(n=fn.count()).filter(C.n > 1).order_by("key").limit(1).to_arrow()
            raise ExportError(
                f"{count - found['keys']:,} samples have a key that another one has, such as "
                f"{twice['key'][0].as_py()!r}.",
                _NEXT,
            )
    if not count:
        raise ExportError("There are no samples to export.", "Does a filter remove them all?")
    return count
