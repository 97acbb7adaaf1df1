"""What an asset that is no dataset was made of: Dagster keeps with each event which events of its inputs were read."""

from __future__ import annotations

import dagster as dg

from factory_lib.orchestration.dagster_internals import INPUT_EVENT_POINTER_TAG_PREFIX, NULL_EVENT_POINTER


def versions_read(instance: dg.DagsterInstance, asset: str) -> list[str] | None:
    """Names of the versions that an asset was made of when it was made last; None where no run made such an asset."""
    event = instance.get_latest_materialization_event(dg.AssetKey.from_user_string(asset))
    made = event.asset_materialization if event is not None else None
    if made is None:
        return None
    prefix = f"{INPUT_EVENT_POINTER_TAG_PREFIX}/"
    pointers = {
        dg.AssetKey.from_user_string(tag.removeprefix(prefix)): pointer
        for tag, pointer in (made.tags or {}).items()
        if tag.startswith(prefix) and pointer != NULL_EVENT_POINTER
    }
    found = (_version_of(instance, key, int(pointer)) for key, pointer in pointers.items())
    return sorted(name for name in found if name)


def _version_of(instance: dg.DagsterInstance, key: dg.AssetKey, storage_id: int) -> str | None:
    """The version that an event of an asset is about; None where it is about none."""
    wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=[storage_id])
    for record in instance.fetch_materializations(wanted, limit=1).records:
        event = record.asset_materialization
        said = event.metadata.get("version") if event is not None else None
        return str(said.value) if said is not None else None
    return None
