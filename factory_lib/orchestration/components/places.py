"""Errors of YAML at their places: file, line and column."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from dagster_shared.yaml_utils.source_position import SourcePositionTree
from pydantic import ValidationError

from factory_lib.errors import QueryError
from factory_lib.orchestration.components.names import unknown

Place = tuple[str | int, ...]
"""A path in the attributes of a component."""


def located(error: ValidationError, position: SourcePositionTree | None) -> QueryError:
    """All that is wrong with the attributes of a component, each at its place."""
    said = [(one["loc"], one["msg"].removeprefix("Value error, ")) for one in error.errors()]
    return QueryError("\n".join(_line(place, text, position) for place, text in said))


def refuse_unmade(asked: Iterable[tuple[Place, str]], made: set[str], position: SourcePositionTree | None) -> None:
    """Raise where a stage reads a dataset that nothing makes.

    Args:
        asked: where in its attributes, and the dataset.
        made: the datasets that there are.
        position: of the YAML, where it is known.

    Raises:
        QueryError: there is no such dataset; the nearest is told.
    """
    for place, name in asked:
        if name not in made:
            raise QueryError(
                _line(place, unknown(name, made), position), f"If another code location makes it: elsewhere: [{name}]."
            )


def _line(place: Place, said: str, position: SourcePositionTree | None) -> str:
    where = f"{_where(position, ['attributes', *place])}: " if position else ""
    return f"{where}{'.'.join(map(str, place))}: {said}"


def _where(tree: SourcePositionTree, path: Sequence[str | int]) -> str:
    position, _ = tree.lookup_closest_and_path(path, None)
    return f"{position.filename}:{position.start.line}:{position.start.col}"
