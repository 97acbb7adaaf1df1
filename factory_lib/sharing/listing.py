"""What is published in a place."""

from __future__ import annotations

from dataclasses import dataclass

from factory_lib.errors import DatasetNotFound, nearest
from factory_lib.names import is_dataset_database
from factory_lib.redaction import redact
from factory_lib.sharing.manifest import Manifest
from factory_lib.sharing.place import SharedPlace


@dataclass(frozen=True)
class PublishedVersion:
    """A version that is published.

    Attributes:
        name: `laion.v3`.
        address: what is pulled.
        rows, size, shards: of its table; the size in bytes.
        created, published: in ISO format, UTC.
        parents: names of the versions that it was made of.
        tags: that it has there.
        fingerprint: of its content.
    """

    name: str
    address: str
    rows: int
    size: int
    shards: int
    created: str
    published: str
    parents: tuple[str, ...]
    tags: tuple[str, ...]
    fingerprint: str
    uuid: str


def published_versions(uri: str) -> list[PublishedVersion]:
    """The versions that are published in a place, or of one dataset in it (`PLACE/laion`), the oldest first.

    Raises:
        DatasetNotFound: nothing is published there.
        PublicationError: a later release published one of them.
        StoreError: the place cannot be read.
    """
    place = SharedPlace.at(uri)
    datasets = place.datasets()
    if not datasets:
        above, _, name = place.uri.rpartition("/")
        if not is_dataset_database(name) or not SharedPlace(above).numbers(name):
            known = SharedPlace(above).datasets() if above else []
            raise DatasetNotFound(f"Nothing is published in {redact(place.uri)}.", nearest(name, known))
        place, datasets = SharedPlace(above), [name]
    return [one for dataset in datasets for one in _of(place, dataset)]


def _of(place: SharedPlace, dataset: str) -> list[PublishedVersion]:
    tags = place.tags(dataset)
    return [
        _described(place, one, sorted(n for n, t in tags.items() if t.uuid == one.uuid))
        for one in place.manifests(dataset)
    ]


def _described(place: SharedPlace, one: Manifest, tags: list[str]) -> PublishedVersion:
    return PublishedVersion(
        one.version,
        place.address(one.dataset, one.number),
        one.rows,
        one.size,
        one.shards,
        one.created,
        one.published,
        tuple(parent["name"] for parent in one.parents),
        tuple(tags),
        one.fingerprint,
        one.uuid,
    )
