"""Tags: names for versions that stay where they are put.

What was done to tags is written down, never changed: a tag means what the entries, read in order, leave. An entry that
would move a tag without force counts for nothing: of two who take the same tag at once only the first has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from factory_lib.errors import InvalidName, TagExists, VersionNotFound, nearest
from factory_lib.names import CATALOG, LONGEST, TAG, shortened
from factory_lib.warehouse.bucket.keeping import keep
from factory_lib.warehouse.client import Warehouse
from factory_lib.warehouse.locking import locked
from factory_lib.warehouse.schema import ensure_tables

_TAKEN = re.compile(r"latest|v?\d+")


@dataclass(frozen=True)
class Tag:
    """A tag of a dataset.

    Attributes:
        version: name of the version, `laion.v3`.
        uuid: UUID of its table.
        since: when it was put there, in ISO format.
    """

    dataset: str
    tag: str
    version: str
    uuid: str
    since: str

    def __str__(self) -> str:
        return f"{self.dataset}@{self.tag}"


def tags_of(warehouse: Warehouse, dataset: str) -> dict[str, Tag]:
    """Tags of a dataset."""
    return all_tags(warehouse, dataset).get(dataset, {})


def all_tags(warehouse: Warehouse, dataset: str | None = None) -> dict[str, dict[str, Tag]]:
    """Tags of all datasets, or of one: dataset -> tag -> where it is."""
    ensure_tables(warehouse)
    where = "WHERE dataset = {d:String}" if dataset else ""
    rows = warehouse.rows(
        f"SELECT dataset, tag, version, toString(uuid) AS uuid, deleted, forced, toString(at) AS since"
        f" FROM {CATALOG}.tags {where} ORDER BY at, id",
        {"d": dataset} if dataset else {},
    )
    return left_by(rows)


def set_tag(warehouse: Warehouse, dataset: str, version: str, uuid: str, tag: str, *, force: bool = False) -> bool:
    """Give a version a tag.

    Args:
        version: its name, `laion.v3`.
        uuid: UUID of its table.
        force: move the tag when another version has it.

    Returns:
        Whether that changed anything.

    Raises:
        InvalidName: there can be no such tag.
        TagExists: another version has it.
        VersionNotFound: the version was dropped meanwhile.
    """
    check_tag(tag)
    with locked(warehouse, dataset):
        if not warehouse.scalar("SELECT count() FROM system.tables WHERE uuid = {u:UUID}", {"u": uuid}):
            raise VersionNotFound(f"{version} was dropped.", f"factory ls {dataset}")
        return _set(warehouse, dataset, version, uuid, tag, force=force)


def _set(warehouse: Warehouse, dataset: str, version: str, uuid: str, tag: str, *, force: bool) -> bool:
    before = tags_of(warehouse, dataset).get(tag)
    if before is not None and before.uuid == uuid:
        return False
    if before is None or force:
        _write(warehouse, dataset, tag, version, uuid, forced=force)
        after = tags_of(warehouse, dataset).get(tag)
        if after is not None and after.uuid == uuid:
            return True
        before = after
    where = before.version if before else "gone again"
    raise TagExists(
        f"{dataset}@{tag} is {where} already.", "Move it with --force (in Python force=True), or choose another tag."
    )


def delete_tag(warehouse: Warehouse, dataset: str, tag: str) -> Tag:
    """Take a tag away; the version stays.

    Returns:
        What it was.

    Raises:
        VersionNotFound: the dataset has no such tag.
    """
    known = tags_of(warehouse, dataset)
    if tag not in known:
        raise VersionNotFound(f"{dataset!r} has no tag {tag!r}.", nearest(tag, known))
    found = known[tag]
    _write(warehouse, dataset, tag, found.version, found.uuid, deleted=True)
    return found


def check_tag(tag: str) -> str:
    """The tag, when there can be one of that name.

    Raises:
        InvalidName: there cannot.
    """
    if not TAG.fullmatch(tag):
        suggestion = re.sub(r"[^a-z0-9_.-]+", "-", tag.lower()).strip("-._")[:LONGEST]
        raise InvalidName(
            f"{shortened(tag)!r} cannot be a tag: tags are lower-case letters, digits, '.', '_' and '-', and begin with"
            " a letter or digit.",
            f"Try {suggestion!r}." if suggestion else "Such as 'icml'.",
        )
    if _TAKEN.fullmatch(tag):
        raise InvalidName(f"{tag!r} cannot be a tag: it reads like a version.", f"Try 'release-{tag}'.")
    return tag


def _write(
    warehouse: Warehouse,
    dataset: str,
    tag: str,
    version: str,
    uuid: str,
    *,
    forced: bool = False,
    deleted: bool = False,
) -> None:
    # Behind every entry there is, whatever the clock says.
    last = f"(SELECT max(at) FROM {CATALOG}.tags WHERE dataset = {{d:String}} AND tag = {{t:String}})"
    warehouse.execute(
        f"INSERT INTO {CATALOG}.tags SELECT {{d:String}}, {{t:String}}, {{v:String}}, {{u:UUID}}, {{deleted:UInt8}},"
        f" {{forced:UInt8}}, greatest(now64(6, 'UTC'), {last} + toIntervalMicrosecond(1)), generateUUIDv4()",
        {"d": dataset, "t": tag, "v": version, "u": uuid, "deleted": int(deleted), "forced": int(forced)},
    )
    warehouse.sync()
    keep(warehouse)


def left_by(entries: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Tag]]:
    """The tags that entries, in the order in which they were written, leave: dataset -> tag -> where it is.

    Args:
        entries: `dataset`, `tag`, `version`, `uuid`, `deleted`, `forced`, and `since` in UTC without its zone.
    """
    found: dict[str, dict[str, Tag]] = {}
    for row in entries:
        tags = found.setdefault(row["dataset"], {})
        if row["deleted"]:
            tags.pop(row["tag"], None)
        elif row["forced"] or row["tag"] not in tags:
            since = row["since"].replace(" ", "T") + "+00:00"
            tags[row["tag"]] = Tag(row["dataset"], row["tag"], row["version"], row["uuid"], since)
    return found
