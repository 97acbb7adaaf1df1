"""Which signal made a column: as the plan says, and behind it what is recorded of the versions that it reads."""

from __future__ import annotations

from factory_lib.errors import NotFound, QueryError, SignalError
from factory_lib.names import is_version_name
from factory_lib.plan.nodes import Join, Over, Plan, Signals, Table, Union
from factory_lib.plan.recorded import RecordedSignal, recorded
from factory_lib.plan.select import Select
from factory_lib.signals.naming import signal_of
from factory_lib.signals.signal import Signal
from factory_lib.warehouse import provenance
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.versions import resolve


def signal_behind(plan: Plan, column: str) -> Signal:
    """The signal that computed a column.

    Raises:
        QueryError: none did, or it is not known which.
        SignalError: it cannot be found any more, or would compute other values now.
    """
    found = _made_by(plan, column)
    if isinstance(found, Signal):
        return found
    if found is None:
        raise QueryError(
            f"It is not recorded which signal made the column {column!r}.",
            "Name the model by encoder=, such as encoder=clip.encode_image, or give the vector itself by vector=.",
        )
    try:
        known = signal_of(found.reference)
    except SignalError as error:
        raise SignalError(error.message, "Name the model by encoder=.") from error
    if known.fingerprint != found.fingerprint:
        raise SignalError(
            f"The column {column!r} was made by signal {found.name!r} when its fingerprint was"
            f" {found.fingerprint[:16]}. It is {known.fingerprint[:16]} now: vectors of the two may not be comparable.",
            "Compute the column again, or name the model by encoder=.",
        )
    return known


def _made_by(plan: Plan, column: str) -> Signal | RecordedSignal | None:
    match plan:
        case Signals():
            own = next((one for one in plan.signals if one.name == column), None)
            return own or _made_by(plan.input, column)
        case Select():
            name = plan.passed(column)
            return None if name is None else _made_by(plan.source, name)
        case Join():
            side, name = plan.side(column)
            return _made_by(side, name)
        case Union():
            having = [query for query in plan.queries if column in query.names]
            return _made_by(having[0], column) if having else None
        case Over():
            return None if column in plan.written else _made_by(plan.input, column)
        case Table():
            return _recorded(plan, column)
    return None


def _recorded(table: Table, column: str) -> Signal | RecordedSignal | None:
    """The signal by what is recorded of the version, and of those that it was made of."""
    if not is_version_name(table.name):
        return None
    try:
        version = resolve(warehouse(), table.name)
    except NotFound:  # dropped since
        return None
    maker = next((shard.origin for shard in version.shards.values()), version.uuid)
    recipe = provenance.read_recipes(warehouse(), [maker]).get(maker)
    return None if recipe is None else _made_by(recorded(recipe), column)
