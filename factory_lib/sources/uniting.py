"""Columns of several sources as one: what a source lacks is NULL there, what two type differently is an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from factory_lib.errors import SourceError
from factory_lib.plan.supertypes import supertype
from factory_lib.redaction import redact
from factory_lib.sources.columns import shown_type
from factory_lib.sources.shards import POINTER
from factory_lib.warehouse.arrow_types import clickhouse_type

SOURCE = "source"
"""Column with the name of the source that a sample is from."""
LICENSE = "license"
_ABSENT = {"uri": "", "offset": 0, "size": 0}


def own_names(schema: pa.Schema) -> dict[str, str]:
    """Columns of one of several sources: name in the dataset -> name there. `SOURCE` says which source it is."""
    taken = set(schema.names)
    free = next(name for name in (f"{SOURCE}{'_' * n}" for n in range(1, len(taken) + 2)) if name not in taken)
    return {free if name == SOURCE else name: name for name in schema.names}


def united(schemas: Mapping[str, pa.Schema], licensed: Iterable[str], where: str) -> pa.Schema:
    """The columns of all sources, those of the first in front.

    A column has the type that the first source has it in; narrower types of later ones are widened to it, so that a
    source that is added changes nothing of those before.

    Args:
        schemas: name of a source -> its columns as the dataset has them.
        licensed: sources whose samples have a license by declaration.
        where: the file that declares them, for messages.

    Raises:
        SourceError: a later source has a column in a type that the first one's does not hold.
    """
    fields: dict[str, pa.Field] = {"key": pa.field("key", pa.string()), SOURCE: pa.field(SOURCE, pa.string())}
    first: dict[str, str] = {}
    for source, schema in schemas.items():
        for field in schema:
            known = fields.setdefault(field.name, pa.field(field.name, field.type))
            owner = first.setdefault(field.name, source)
            if field.name != "key" and not _holds(known.type, field.type):
                raise SourceError(
                    f"{redact(where)}: the column {field.name!r} is {shown_type(known.type)} in {owner!r} and"
                    f" {shown_type(field.type)} in {source!r}.",
                    f'Under [{source}] say rename = {{ {source.replace("-", "_")}_{field.name} = "{field.name}" }}'
                    f' or drop_columns = ["{field.name}"].',
                )
    if any(licensed):
        fields.setdefault(LICENSE, pa.field(LICENSE, pa.string()))
    pictures = [name for name in ("image",) if name in fields]
    front = ["key", SOURCE, *pictures]
    return pa.schema([fields[name] for name in (*front, *(name for name in fields if name not in front))])


def places(schema: pa.Schema) -> list[str]:
    """The pointers of samples, the one before that counts first: in an order that no other source changes."""
    pointers = sorted(field.name for field in schema if field.type.equals(POINTER))
    return sorted(pointers, key=lambda name: name != "image")


def widened(
    batch: pa.RecordBatch, names: Mapping[str, str], given: Mapping[str, str], schema: pa.Schema
) -> pa.RecordBatch:
    """Rows of one source with the columns of all.

    Args:
        names: column of the dataset -> column of the batch.
        given: column -> the text that all rows have in it.
        schema: columns of all sources.
    """
    arrays = []
    for field in schema:
        if field.name in names:
            arrays.append(batch.column(names[field.name]).cast(field.type))
        elif field.name in given:
            arrays.append(pa.repeat(pa.scalar(given[field.name], field.type), len(batch)))
        elif field.type.equals(POINTER):
            arrays.append(pa.repeat(pa.scalar(_ABSENT, POINTER), len(batch)))
        else:
            arrays.append(pa.nulls(len(batch), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _holds(wide: pa.DataType, narrow: pa.DataType) -> bool:
    """Whether a type holds all values of another, to the digit."""
    if wide.equals(narrow) or pa.types.is_null(narrow):
        return True
    if pa.types.is_fixed_size_list(wide) or pa.types.is_fixed_size_list(narrow):
        sizes = {kind.list_size for kind in (wide, narrow) if pa.types.is_fixed_size_list(kind)}
        same = clickhouse_type(pa.field("", wide)) == clickhouse_type(pa.field("", narrow))
        return same and len(sizes) == 1 and not pa.types.is_fixed_size_list(wide)
    try:
        both = pa.unify_schemas([pa.schema([("", wide)]), pa.schema([("", narrow)])], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    # Arrow would have whole numbers of 64 bits become floats
    kinds = [clickhouse_type(pa.field("", kind)) for kind in (wide, narrow)]
    return bool(both.field(0).type.equals(wide)) and supertype(kinds[0], kinds[1]) == kinds[0]
