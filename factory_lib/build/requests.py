"""What is asked for when a query is saved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from factory_lib.plan.select import Select
from factory_lib.warehouse.provenance import ShardInput

Mode = Literal["new", "overwrite_shards"]


@dataclass(frozen=True)
class SaveRequest:
    """What is to be saved, and how.

    Attributes:
        dataset: name of the dataset.
        query: the query.
        python: the query as it was written.
        mode: "new": a version of exactly these rows; "overwrite_shards": their shards replace or join those of the
            latest version.
        shards: with "overwrite_shards", the shards that are replaced, also where no row of them is left; None: those of
            the rows.
        removed: with "overwrite_shards", shards of the latest version that are not carried over.
        schema_evolution: with "overwrite_shards", columns may differ from the latest version's; what one side lacks is
            NULL there.
        context: what the caller adds to provenance, as JSON has it.
        inputs: what the shards were made of, to be recorded.
        index: with "new", the column of vectors that gets an index.
        executor: where signals are computed; None for where the settings say.
    """

    dataset: str
    query: Select
    python: str
    mode: Mode = "new"
    shards: tuple[str, ...] | None = None
    removed: tuple[str, ...] = ()
    schema_evolution: bool = False
    context: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, ShardInput] = field(default_factory=dict)
    index: str | None = None
    executor: str | None = None
