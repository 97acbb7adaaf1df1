"""Random samples of rows that are the same each time."""

from __future__ import annotations

from factory_lib.errors import QueryError
from factory_lib.plan.operators import Call, Column, InQuery, Literal
from factory_lib.plan.select import Select


def sampled(query: Select, n: int | None, fraction: float | None, seed: int) -> Select:
    """A deterministic random sample: rows whose hash with the seed is small. A filter, so that it is stored as a mask.

    Raises:
        QueryError: neither or both of n and fraction are given, or they are out of range.
    """
    if (n is None) == (fraction is None):
        raise QueryError("sample() takes either n or fraction.")
    keys = [c for c in ("sample_id", "shard", "position") if c in query.columns] or list(query.columns)
    rank = Call("sipHash64", (*(Column(k) for k in keys), Literal(int(seed))))
    if fraction is not None:
        if not 0 <= fraction <= 1:
            raise QueryError(f"sample(fraction={fraction}): the fraction lies between 0 and 1.")
        return query.filter(rank <= int(fraction * 2**64) - 1 if fraction else Literal(False))
    if n is None or n < 0:
        raise QueryError(f"sample({n}): the number of rows is not negative.")
    smallest = query.nested().select({"h": rank}).sort([Column("h")]).head(n)
    return query.filter(InQuery(rank, smallest))
