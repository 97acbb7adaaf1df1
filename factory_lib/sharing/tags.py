"""Tags of published versions: `s3://team/datasets/laion@icml`. They move by entries, as those of a warehouse do."""

from __future__ import annotations

import uuid

from factory_lib.errors import TagExists, VersionNotFound, nearest
from factory_lib.redaction import redact
from factory_lib.sharing.manifest import Manifest
from factory_lib.sharing.place import SharedPlace
from factory_lib.warehouse.provenance import now
from factory_lib.warehouse.tags import Tag, check_tag


def tag_published(place: SharedPlace, found: Manifest, tag: str, *, force: bool = False) -> bool:
    """Give a published version a tag.

    Args:
        force: move the tag when another version has it.

    Returns:
        Whether that changed anything.

    Raises:
        InvalidName: there can be no such tag.
        TagExists: another version has it.
    """
    check_tag(tag)
    before = place.tags(found.dataset).get(tag)
    if before is not None and before.uuid == found.uuid:
        return False
    if before is None or force:
        place.record_tag(_entry(found.dataset, tag, found.version, found.uuid, forced=force))
        before = place.tags(found.dataset).get(tag)
        if before is not None and before.uuid == found.uuid:
            return True
    where = before.version if before else "gone again"
    raise TagExists(
        f"{redact(place.uri)}/{found.dataset}@{tag} is {where} already.",
        "Move it with --force (in Python force=True), or choose another tag.",
    )


def untag_published(place: SharedPlace, dataset: str, tag: str) -> Tag:
    """Take a tag away; the version stays.

    Returns:
        What it was.

    Raises:
        VersionNotFound: there is no such tag.
    """
    known = place.tags(dataset)
    if tag not in known:
        raise VersionNotFound(f"{redact(place.uri)}/{dataset} has no tag {tag!r}.", nearest(tag, known))
    place.record_tag(_entry(dataset, tag, known[tag].version, known[tag].uuid, deleted=True))
    return known[tag]


def _entry(
    dataset: str, tag: str, version: str, of: str, *, forced: bool = False, deleted: bool = False
) -> dict[str, str | bool]:
    return {
        "dataset": dataset,
        "tag": tag,
        "version": version,
        "uuid": of,
        "deleted": deleted,
        "forced": forced,
        "since": now().removesuffix("+00:00"),
        "id": str(uuid.uuid4()),  # no two entries are the same, so that each writer knows its own
    }
