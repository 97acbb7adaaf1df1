"""DatasetQuery: what a user writes, in notebooks and in assets.

A query is immutable; every verb returns a new one and nothing runs until a terminal (`count`, `show`, `to_arrow`, …) or
`save` asks for rows. Rows and columns stay in the warehouse: what crosses into Python is Arrow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from factory_lib.build.arrow_rows import arrow_rows
from factory_lib.build.explaining import Explanation, to_do
from factory_lib.build.ledger import Ledger
from factory_lib.build.session import settled, typed
from factory_lib.build.storage_rows import storage_rows
from factory_lib.errors import ColumnNotFound, QueryError, nearest
from factory_lib.loading.terminal import to_torch
from factory_lib.names import is_version_name
from factory_lib.plan.expressions import C, SqlText, cosine_distance, fn, has_direction
from factory_lib.plan.joins import joined, key_pairs
from factory_lib.plan.nodes import Plan, Rows, Table, Union, leaves, tables
from factory_lib.plan.operators import Call, Column, Expr, InQuery, Ordering, column_name, column_of, lift, ordering
from factory_lib.plan.python import python_of
from factory_lib.plan.readable import readable
from factory_lib.plan.restriction import restricted_to
from factory_lib.plan.sampling import sampled
from factory_lib.plan.select import Select
from factory_lib.plan.sql import Rendering
from factory_lib.plan.storing import storage_plan, with_system_columns
from factory_lib.renamed import renamed, warn_renamed
from factory_lib.sharing.pulling import opened
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.derive import describe_columns, naming_columns
from factory_lib.warehouse.estimate import estimate
from factory_lib.warehouse.permitted import checked
from factory_lib.warehouse.versions import Version, resolve

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from factory_lib.signals.clip import Clip
    from factory_lib.signals.signal import Signal
    from factory_lib.sources import Source


@dataclass(frozen=True, init=False, eq=False)
class DatasetQuery:
    """A query over a dataset.

    Args:
        name: `laion` (its latest version), `laion.v3`, or `laion@tag`; or the address of a published one, which is
            pulled: `s3://team/datasets/laion.v3`. The version is fixed when the query is made.
        shards: read these shards alone.

    Raises:
        DatasetNotFound, VersionNotFound: there is no such dataset or version.
    """

    plan: Select

    def __init__(self, name: str | Version, shards: Sequence[str] | None = None) -> None:
        version = name if isinstance(name, Version) else opened(name)
        source = replace(version.source, shards=None if shards is None else tuple(shards))
        object.__setattr__(self, "plan", Select.over(source))

    @classmethod
    def of(cls, plan: Plan) -> DatasetQuery:
        """A query over the rows of a plan."""
        query = object.__new__(cls)
        object.__setattr__(query, "plan", plan if isinstance(plan, Select) else Select.over(plan))
        return query

    @classmethod
    def from_arrow(cls, data: Any, shard: str | None = None) -> DatasetQuery:
        """A query over an Arrow table, record batch or reader, which is read once, when rows are first asked for.

        Args:
            data: pyarrow table, batch or reader, or whatever speaks Arrow's stream protocol (polars, duckdb, …).
            shard: the column that says which shard a row belongs to; without it all rows are one shard, `all`.
        """
        return cls.of(arrow_rows(data, shard))

    @classmethod
    def from_source(cls, source: Source | str, shards: Sequence[str] | None = None) -> DatasetQuery:
        """A query over samples in storage: their pointers and attributes, read when rows are first asked for.

        Args:
            source: a source, or the path or URI of one (see `factory_lib.sources.open_source`).
            shards: read these shards alone.
        """
        if isinstance(source, str):
            from factory_lib.sources import open_source

            source = open_source(source)
        return cls.of(storage_rows(source, shards))

    # Verbs -----------------------------------------------------------------------------------------------------

    def select(self, *columns: str | Expr, **named: Any) -> DatasetQuery:
        """Exactly these columns: names, `new="old"`, or `name=expression`; text as a value is `name=lit("text")`."""
        return self.of(self.plan.select(self._chosen(columns, named)))

    def drop(self, *columns: str) -> DatasetQuery:
        """All columns but these."""
        return self.of(self.plan.drop(columns))

    def rename(self, **names: str) -> DatasetQuery:
        """Columns under other names: `rename(new="old")`."""
        return self.of(self.plan.rename({old: new for new, old in names.items()}))

    def filter(self, *predicates: Expr | str | bool) -> DatasetQuery:
        """Keep the rows for which all predicates hold: expressions, or SQL text such as `"size > 5000"`."""
        plan = self.plan
        for predicate in predicates:
            plan = plan.filter(checked(SqlText(predicate) if isinstance(predicate, str) else lift(predicate)))
        return self.of(plan)

    def mutate(self, **columns: Any) -> DatasetQuery:
        """Add or replace columns: `mutate(ratio=C.width / C.height)`. Text is a value; for SQL: `sql_text("…")`."""
        return self.of(self.plan.with_columns({name: checked(lift(e)) for name, e in columns.items()}))

    def order_by(self, *keys: Expr | Ordering | str) -> DatasetQuery:
        """Order rows: `order_by(C.dist)`, `order_by("-score")`, `order_by(C.score.desc())`; nulls last.

        A query that is saved in an order reads back in it, as one shard.
        """
        return self.of(self.plan.sort([replace(key, expr=checked(key.expr)) for key in map(ordering, keys)]))

    def limit(self, n: int) -> DatasetQuery:
        """The first n rows: in the order asked for, else by shard and position."""
        return self.of(self.plan.head(_count(n, "limit")))

    def offset(self, n: int) -> DatasetQuery:
        """All rows but the first n."""
        return self.of(self.plan.skip(_count(n, "offset")))

    def sample(self, n: int | None = None, *, fraction: float | None = None, seed: int = 0) -> DatasetQuery:
        """A random sample of n rows, or of a fraction of them; the same rows for the same seed."""
        return self.of(sampled(self.plan, n, fraction, seed))

    def distinct(self, *columns: str) -> DatasetQuery:
        """Distinct rows; with columns, the first row for each distinct value of them."""
        return self.of(self.plan.unique(columns))

    def search(
        self,
        column: str = "clip",
        *,
        text: str | None = None,
        image: Any = None,
        sample: str | int | None = None,
        vector: Any = None,
        k: int = 10,
        encoder: Signal | Clip | None = None,
        approximate: bool = False,
    ) -> DatasetQuery:
        """The k rows whose vectors are nearest to one, the nearest first, with the column `distance`: 1 - cosine.

        Args:
            column: of vectors; rows without one, or with one of zeros or that is not finite, are none of the k.
            text: is encoded by the model that made the column, as is
            image: a path, a URI, bytes or a PIL picture.
            sample: the key or `sample_id` of a sample of the query, whose vector is taken; it is the first of the k.
            vector: numbers, as many as those of the column have.
            encoder: the model: a signal, or a `Clip`. By default what is recorded of the column names it.
            approximate: of a version that was saved with an index: find them by it, most of them (`index_recall`).

        Raises:
            QueryError, NotFound, SignalError: see `build.searching.target_vector`.
        """
        from factory_lib.build.approximate import nearest_by_index
        from factory_lib.build.searching import Target, target_vector

        wanted = target_vector(self.plan, self.columns, column, Target(text, image, sample, vector), encoder)
        if approximate:
            return self.of(nearest_by_index(self.plan, column, wanted, _count(k, "search")))
        # what signals stored as unit vectors has a direction where it is there
        there = fn.length(C[column]) > 0 if self.plan.is_unit(column) else has_direction(C[column])
        near = self.filter(there).mutate(distance=cosine_distance(C[column], wanted))
        return near.order_by("distance").limit(k)

    def group_by(self, *keys: str | Expr, **named: Any) -> Grouped:
        """Groups of rows, to be followed by `agg`; keys are named as the columns of `select` are."""
        return Grouped(self, self._chosen(keys, named))

    def agg(self, **values: Any) -> DatasetQuery:
        """One row of aggregates over all rows: `agg(n=fn.count(), mean=fn.avg(C.score))`."""
        return Grouped(self, {}).agg(**values)

    def join(
        self,
        other: DatasetQuery,
        on: str | Sequence[str] | Mapping[str, str],
        how: Literal["inner", "left", "right", "full", "semi", "anti"] = "inner",
        suffix: str = "_right",
    ) -> DatasetQuery:
        """Rows side by side with those of another query.

        Args:
            on: column names that both have, or {name here: name there}.
            how: "semi" and "anti" keep the rows that have, or lack, a partner; they are filters and stored as masks.
            suffix: put behind names of the other's columns that are taken here.
        """
        pairs = key_pairs(on)
        for left, right in pairs:
            self.plan.column(left)
            other.plan.column(right)
        if how in ("semi", "anti"):
            keys = tuple(Column(a) for a, _ in pairs)
            left_keys: Expr = keys[0] if len(keys) == 1 else Call("tuple", keys)
            right_keys = other.plan.select({b: Column(b) for _, b in pairs})
            return self.of(self.plan.filter(InQuery(left_keys, right_keys, negated=how == "anti")))
        if how in ("inner", "left", "right", "full"):
            return self.of(joined(self.plan, other.plan, how, pairs, suffix))
        raise QueryError(f"join(how={how!r}): there is no such join.", "inner, left, right, full, semi or anti.")

    def union(self, *others: DatasetQuery) -> DatasetQuery:
        """The rows of all queries; a column that one of them lacks is NULL there."""
        return self.of(Union((self.plan, *(other.plan for other in others))))

    def add_signals(self, *signals: Signal, on_error: Literal["null", "raise"] = "null") -> DatasetQuery:
        """Compute signals over the samples: one column each, and `<name>_error` beside it.

        Args:
            on_error: "null": a sample that fails gets NULL (a vector: empty) and the reason in `<name>_error`;
                "raise": it ends the run.
        """
        from factory_lib.build.signal_rows import signal_rows
        from factory_lib.signals.inputs import check_pointers
        from factory_lib.signals.signal import Signal

        for signal in signals:
            if not isinstance(signal, Signal):
                raise QueryError(f"{signal!r} is not a signal.", "Decorate the function with @signal.")
            for name in signal.reads:
                self.plan.column(name)
            check_pointers(signal, self.columns)
        return self.of(signal_rows(self.plan, self.columns, signals, on_error)) if signals else self

    def add_columns(self, data: Any, on: str | Sequence[str] = "sample_id") -> DatasetQuery:
        """Add or replace columns with values from Arrow; rows that it does not mention get NULL.

        Args:
            data: pyarrow table or reader, or whatever speaks Arrow's stream protocol.
            on: what tells which row a value is for: `sample_id`, `key`, or, the fastest, `("shard", "position")`.
        """
        from factory_lib.build.column_rows import column_rows

        return self.of(column_rows(self.plan, self.columns, data, (on,) if isinstance(on, str) else tuple(on)))

    # Saving ----------------------------------------------------------------------------------------------------

    @renamed({"evolve": "schema_evolution"}, {"mode": {"merge": "overwrite_shards"}})
    def save(
        self,
        name: str,
        mode: Literal["new", "overwrite_shards"] = "new",
        *,
        removed: Sequence[str] = (),
        schema_evolution: bool = False,
        index: str | None = None,
        context: Mapping[str, Any] | None = None,
        executor: str | None = None,
    ) -> Version:
        """Make the next version of a dataset.

        Args:
            name: the dataset.
            mode: "new": exactly these rows; "overwrite_shards": their shards replace or join those of the latest
                version, the rest is carried over. A query restricted to shards replaces these, also where no row of
                them is left.
            removed: with "overwrite_shards", shards that are not carried over.
            schema_evolution: with "overwrite_shards", the columns may differ from the latest version's: NULL where one
                side lacks them.
            index: a column of vectors, of which all rows have one: `search(approximate=True)` finds the nearest by it.
            context: what to add to provenance, as JSON has it.
            executor: where signals are computed, "local" or "ray"; default `FACTORY_EXECUTOR`.

        Returns:
            The version; `str(version) == "name.v1"`.

        Raises:
            InvalidName, QueryError, CommitError: it may not be, or others keep committing.
        """
        from factory_lib.build.requests import SaveRequest
        from factory_lib.build.saving import save

        shards = restricted_to(self.plan) if mode == "overwrite_shards" else None
        python = f"{self!r}.save({name!r}{'' if mode == 'new' else f', mode={mode!r}'})"
        return save(
            SaveRequest(
                name,
                self.plan,
                python,
                mode,
                shards,
                tuple(removed),
                schema_evolution,
                context or {},
                index=index,
                executor=executor,
            )
        )

    def refresh(
        self,
        name: str,
        *,
        context: Mapping[str, Any] | None = None,
        executor: str | None = None,
    ) -> Version:
        """Bring a dataset up to date with this query, shard by shard.

        Shards that are new, whose input (the left side of a join) or what is looked up (its right side) changed, or
        that another query made, are made again and replace those before; shards that are gone from the input leave it.

        Returns:
            The version, or the latest one where nothing changed: then nothing is computed or committed.
        """
        from factory_lib.build.refreshing import refresh

        return refresh(self.plan, f"{self!r}.refresh({name!r})", name, context or {}, executor)

    def update(self, name: str, *, context: Mapping[str, Any] | None = None) -> Version:
        """`refresh`, as it was called before."""
        warn_renamed("update()", "refresh()")
        return self.refresh(name, context=context)

    def restricted_to(self) -> tuple[str, ...] | None:
        """The shards that the query was restricted to, or None."""
        return restricted_to(self.plan)

    # Terminals -------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> dict[str, str]:
        """Column name -> ClickHouse type."""
        passed = {name: of_source for name in self.plan.names if (of_source := self.plan.passed(name)) is not None}
        if isinstance(self.plan.source, Rows) and len(passed) == len(self.plan.names):
            return {name: self.plan.source.columns[of_source] for name, of_source in passed.items()}
        return describe_columns(warehouse(), typed(self.plan))

    def describe(self) -> pa.Table:
        """Columns and their types."""
        columns = self.columns
        return pa.table({"column": list(columns), "type": list(columns.values())})

    def count(self) -> int:
        """Number of rows."""
        plan = self._settled()
        plain = plan.group_by is None and not (plan.distinct or plan.limit_by or plan.offset)
        counted = replace(plan, columns={}, order_by=()) if plain else plan
        rendering = Rendering()
        text = rendering.select(counted)
        with naming_columns(self.plan):
            return int(warehouse().scalar(f"SELECT count() FROM ({text})", rendering.params, rendering.settings))

    def to_batches(self) -> pa.RecordBatchReader:
        """The rows as a stream of Arrow record batches, in constant memory."""
        rendering = Rendering()
        text = rendering.select(readable(self._settled().exposed()))
        with naming_columns(self.plan):
            return warehouse().stream(text, rendering.params, rendering.settings)

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table: in the order asked for, else by shard and position."""
        rendering = Rendering()
        text = rendering.select(readable(self._settled().exposed()))
        with naming_columns(self.plan):
            return warehouse().query(text, rendering.params, rendering.settings)

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a pandas data frame."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def to_polars(self) -> pl.DataFrame:
        """The rows as a polars data frame."""
        import polars

        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    to_torch = to_torch

    def show(self, n: int = 10) -> None:
        """Print the first n rows."""
        from factory_lib.tables import print_table

        print_table(self.limit(n).to_arrow())

    def sql(self) -> str:
        """The query as one SELECT, values written out."""
        return Rendering(inline=True).select(self.plan.exposed())

    def explain(self) -> Explanation:
        """How a save would store the rows, what it would read, compute and cost, and the SQL; readable in notebooks."""
        plan = with_system_columns(self.plan)
        how = storage_plan(plan)
        lines = [f"storage: {how.kind}" + (f" ({how.reason})" if how.reason else "")]
        unwritten = [rows for rows in leaves(plan) if not isinstance(rows, Table)]
        lines += [f"first: {rows.label}" for rows in unwritten]
        lines += to_do(warehouse(), plan)
        if not unwritten:
            lines.append(f"cost: {estimate(warehouse(), plan, how)}")
        lines += [f"writes column {name}" for name in how.computed]
        lines += [f"renames {old} to {new}" for old, new in how.renamed.items()]
        lines += [f"drops {name}" for name in how.dropped]
        return Explanation("\n".join([*lines, f"sql: {self.sql()}"]))

    def __repr__(self) -> str:
        return python_of(self.plan)

    def _repr_html_(self) -> str:
        """The query in a notebook: columns, and the first rows with their pictures where nothing must be made first."""
        from factory_lib.build.shown import query_page

        return query_page(self.plan, repr(self), lambda: self.columns)

    # Inside ----------------------------------------------------------------------------------------------------

    def _chosen(self, columns: Sequence[str | Expr], named: Mapping[str, Any]) -> dict[str, Expr]:
        """Output columns as `select` and `group_by` take them: a text is the name of a column.

        Raises:
            ColumnNotFound: it is none.
        """
        for value in named.values():
            if isinstance(value, str) and value not in self.plan.columns:
                raise ColumnNotFound(
                    f"There is no column {value!r} in {self.plan.label}.",
                    f"{nearest(value, self.plan.columns)} The text itself is lit({value!r}).".strip(),
                )
        return {column_name(c): checked(column_of(c)) for c in columns} | {
            n: checked(column_of(e)) for n, e in named.items()
        }

    def _pinned(self, columns: Sequence[str]) -> tuple[Any, str, dict[str, str]]:
        """What the loader reads: rows in storage order with these columns, their identity, etags of their files."""
        plan = self._settled()
        rows = self.of(plan.exposed().select({n: Column(n) for n in ("shard", "position", *columns)}))
        return rows.to_batches, *identity_of(plan)

    def _settled(self) -> Select:
        return settled(self.plan, Ledger())


@dataclass(frozen=True)
class Grouped:
    """Groups of rows; `agg` makes a row of each."""

    query: DatasetQuery
    keys: Mapping[str, Expr]

    def agg(self, **values: Any) -> DatasetQuery:
        """One row a group: the keys and these aggregates, `agg(n=fn.count(), best=fn.max(C.score))`."""
        return self.query.of(self.query.plan.aggregate(self.keys, {n: checked(lift(e)) for n, e in values.items()}))


def identity_of(plan: Select) -> tuple[str, dict[str, str]]:
    """What the rows of a query depend on, as a string, and the etags of the files that they point into.

    Two queries with the same identity have the same rows: it holds the UUIDs of the tables that are read.
    """
    wh = warehouse()
    names = sorted({table.name for table in tables(plan)})
    found = [resolve(wh, name) for name in names if is_version_name(name)]
    uuids = {str(v): v.uuid for v in found}
    text = "\n".join([Rendering(inline=True).select(plan), *(f"{n} {uuids.get(n, '')}" for n in names)])
    sources = {shard.source for v in found for shard in v.shards.values() if shard.source}
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest(), provenance.etags(wh, sources)


def _count(n: int, verb: str) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise QueryError(f"{verb}({n!r}): the number of rows is a whole number, not negative.")
    return n
