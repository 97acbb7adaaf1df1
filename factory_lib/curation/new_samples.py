"""New samples of samples: for privacy, and for more to learn from."""

from __future__ import annotations

from collections.abc import Sequence

from factory_lib.augmentation.applying import CAPTION, IMAGE, Augmentation
from factory_lib.augmentation.captions import Recaption
from factory_lib.augmentation.encoding import Encoding
from factory_lib.augmentation.operation import Operation
from factory_lib.build.attributes import chosen, true_of_new_samples
from factory_lib.errors import QueryError
from factory_lib.plan.nodes import OPERATION, OPERATION_FINGERPRINT, PARENT, NewSamples
from factory_lib.plan.storing import SYSTEM, with_system_columns
from factory_lib.query import DatasetQuery
from factory_lib.settings import settings
from factory_lib.storage.store import store
from factory_lib.warehouse.arrow_types import POINTER_TYPE, is_pointer
from factory_lib.warehouse.client import warehouse


def make_samples(
    samples: DatasetQuery,
    *operations: Operation,
    into: str | None = None,
    suffix: str | None = None,
    keep: Sequence[str] | None = None,
    encoding: Encoding | None = None,
) -> DatasetQuery:
    """A new sample of each sample: operations one after the other, their result in tars of a store.

    Nothing runs before rows are asked for. What was made before of the same parents by the same operations is taken
    over; of a shard that changed, new samples of parents that did not are copied. A parent of which none can be made is
    counted among the losses of the version, with the reason.

    Args:
        samples: with the pointer `image`; and `caption`, where they have captions.
        operations: see `factory_lib.augmentation`.
        into: folder or bucket of the tars; default `FACTORY_DERIVED`.
        suffix: what goes behind the key of a parent; default `-` and the names of the operations.
        keep: columns of the parents that new samples have; default: those that the source brought, without
            uids, scores, hashes, boxes and languages that are not true any more.
        encoding: of pictures whose pixels change; default: the parent's format, JPEG and WebP at quality 95.

    Returns:
        Rows in the places of their parents: `shard`, `position`, `sample_id`, `key`, `image`, `caption`, the kept
        columns, `width` and `height` in pixels, `parent_sample_id`, `operation` and `operation_fingerprint`.

    Raises:
        QueryError: no store is named, or an operation cannot be done. When it runs: the store lies inside of a source,
            or holds something else.
        ColumnNotFound: an operation reads a column that is not there.
    """
    place = into or settings().derived
    if not place:
        raise QueryError(
            "make_samples() has no place for the tars of new samples.", "Give into=…, or set FACTORY_DERIVED."
        )
    types = samples.columns
    augmentation = Augmentation.over(operations, encoding or Encoding(), types)
    if not is_pointer(types[IMAGE]):
        raise QueryError(f"make_samples() reads the bytes that {IMAGE!r} points at, but it is {types[IMAGE]}.")
    query = with_system_columns(samples.plan)
    recaptioned = any(isinstance(one, Recaption) for one in operations)
    kept = (
        true_of_new_samples(warehouse(), query, types, augmentation.keeps, recaptioned=recaptioned)
        if keep is None
        else chosen(keep, types)
    )
    captions = CAPTION in types or recaptioned
    columns = {
        **SYSTEM,
        IMAGE: POINTER_TYPE,
        **({CAPTION: types.get(CAPTION, "Nullable(String)")} if captions else {}),
        **{name: types[name] for name in kept},
        **{name: types.get(name, "Nullable(Int32)") for name in ("width", "height")},
        PARENT: "UInt64",
        **dict.fromkeys((OPERATION, OPERATION_FINGERPRINT), "LowCardinality(String)"),
    }
    unit = frozenset(name for name in kept if query.is_unit(name))
    behind = f"-{augmentation.name}" if suffix is None else suffix
    return DatasetQuery.of(NewSamples(query, augmentation, store().resolve(place), behind, columns=columns, unit=unit))


def superset(originals: DatasetQuery, *made: DatasetQuery) -> DatasetQuery:
    """Samples together with new samples made of them, to be told apart by `parent_sample_id`, NULL for originals.

    Signals are best computed behind it: of what one side lacks there is NULL, and values of originals are taken over.

    Raises:
        QueryError: one of them was not made by `make_samples`.
    """
    for one in made:
        if PARENT not in one.columns:
            raise QueryError("superset() takes what make_samples() gave behind the originals.")
    return originals.union(*made)
