"""A place where versions are published: a prefix of a bucket, or a folder, that needs no server.

    PLACE/laion/v3.json              what the version is; it is published when this is there
    PLACE/laion/tags/00000001.json   what was done to tags, in order
    PLACE/laion/data/UUID-…/         its table, and what the catalog says of it

Files are written whole, under names that are free, and never changed: of several who want one name the first has it
(`If-None-Match: *` in a bucket, a link in a folder). So the numbers of versions and the entries of tags are given one
by one, and whoever reads sees what is whole. The latest version is the one with the highest number.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from factory_lib.errors import DatasetNotFound, PublicationError, VersionNotFound, nearest
from factory_lib.names import Ref, is_dataset_database, parse_ref, version_number
from factory_lib.redaction import redact
from factory_lib.sharing.manifest import LONGEST, Manifest
from factory_lib.storage.store import store
from factory_lib.warehouse.tags import Tag, left_by

T = TypeVar("T")

_AT_ONCE = 16
_ENTRY = re.compile(r"(\d{8})\.json")
_ENTRY_KINDS = {"dataset": str, "tag": str, "version": str, "uuid": str, "deleted": bool, "forced": bool, "since": str}
_LONGEST_ENTRY = 64 << 10
_TRIES = 1_000


def is_address(name: str) -> bool:
    """Whether a name is that of a published version, `s3://team/datasets/laion.v3`, and not of one that is here."""
    return "/" in name


@dataclass(frozen=True)
class SharedPlace:
    """A place where versions are published.

    Attributes:
        uri: `s3://bucket/prefix` or the absolute path of a folder, without a slash at its end.
    """

    uri: str

    @classmethod
    def at(cls, uri: str) -> SharedPlace:
        """The place that a URI or path names."""
        return cls(store().resolve(uri))

    @classmethod
    def of(cls, address: str) -> tuple[SharedPlace, Ref]:
        """The place and the version that an address names: `PLACE/laion.v3`, `PLACE/laion@icml`, `PLACE/laion`.

        Raises:
            InvalidName: it names no version.
        """
        uri, _, name = store().resolve(address).rpartition("/")
        return cls(uri), parse_ref(name)

    def address(self, dataset: str, number: int) -> str:
        """That of a version, as it may be shown."""
        return f"{redact(self.uri)}/{dataset}.v{number}"

    def folder(self, dataset: str) -> str:
        """Where all of a dataset is."""
        return f"{self.uri}/{dataset}"

    def datasets(self) -> list[str]:
        """The datasets of which versions are published here."""
        names = [name for name in store().names(self.uri) if is_dataset_database(name)]
        return [name for name, numbers in zip(names, _each(self.numbers, names), strict=True) if numbers]

    def numbers(self, dataset: str) -> list[int]:
        """The numbers of the versions of a dataset, in order."""
        files = [name.removesuffix(".json") for name in store().names(self.folder(dataset)) if name.endswith(".json")]
        return sorted(number for name in files if (number := version_number(name)) is not None)

    def manifest(self, dataset: str, number: int) -> Manifest:
        """What a version is.

        Raises:
            FileMissing: there is none of that number.
            PublicationError: a later release published it, or it cannot be read.
        """
        file = f"{self.folder(dataset)}/v{number}.json"
        return Manifest.read(store().read(file, 0, LONGEST + 1), self.address(dataset, number))

    def manifests(self, dataset: str) -> list[Manifest]:
        """What the versions of a dataset are, the oldest first."""
        return list(_each(lambda number: self.manifest(dataset, number), self.numbers(dataset)))

    def find(self, dataset: str, uuid: str) -> Manifest | None:
        """The version with this UUID; None where it is not published."""
        return next((one for one in self.manifests(dataset) if one.uuid == uuid), None)

    def resolve(self, ref: Ref) -> Manifest:
        """The version that a name means; without number and tag the latest.

        Raises:
            DatasetNotFound, VersionNotFound: there is no such version here.
        """
        numbers = self.numbers(ref.dataset)
        where = redact(self.uri)
        if not numbers:
            hint = nearest(ref.dataset, self.datasets()) or f"factory publish {ref.dataset} {where}"
            raise DatasetNotFound(f"No version of {ref.dataset!r} is published in {where}.", hint)
        number = ref.number or numbers[-1]
        if ref.tag is not None:
            tags = self.tags(ref.dataset)
            if ref.tag not in tags:
                raise VersionNotFound(f"{where}/{ref.dataset} has no tag {ref.tag!r}.", nearest(ref.tag, tags))
            number = parse_ref(tags[ref.tag].version).number or 0
        if number not in numbers:
            known = ", ".join(f"v{n}" for n in numbers[-10:])
            raise VersionNotFound(f"There is no {self.address(ref.dataset, number)}.", f"Published are {known}.")
        return self.manifest(ref.dataset, number)

    def add(self, manifest: Manifest) -> Manifest:
        """Publish what was written: under the number it has where that is free, else under the next one.

        Returns:
            It, with the number that it got.

        Raises:
            PublicationError: others take numbers faster.
        """
        wanted = manifest
        for _ in range(_TRIES):
            file = f"{self.folder(wanted.dataset)}/v{wanted.number}.json"
            # Read again in any case: the answer may be lost, and a store may know no conditions.
            store().create(file, wanted.to_json())
            if self.manifest(wanted.dataset, wanted.number) == wanted:
                return wanted
            wanted = replace(wanted, number=max(self.numbers(wanted.dataset), default=0) + 1)
        raise PublicationError(f"Others publish to {redact(self.folder(wanted.dataset))} all the time.", "Try again.")

    def tags(self, dataset: str) -> dict[str, Tag]:
        """The tags of a dataset here."""
        return left_by(self._entries(dataset)).get(dataset, {})

    def record_tag(self, entry: dict[str, Any]) -> None:
        """Add an entry to what was done to tags, behind all that are there.

        Args:
            entry: as `tags.left_by` takes them.

        Raises:
            PublicationError: others do so faster.
        """
        folder = f"{self.folder(str(entry['dataset']))}/tags"
        data = json.dumps(entry).encode()
        for _ in range(_TRIES):
            file = f"{folder}/{len(self._files(folder)) + 1:08}.json"
            store().create(file, data)
            if store().read(file) == data:
                return
        raise PublicationError(f"Others tag {redact(folder)} all the time.", "Try again.")

    def _entries(self, dataset: str) -> Iterator[dict[str, Any]]:
        folder = f"{self.folder(dataset)}/tags"
        yield from _each(lambda name: self._entry(f"{folder}/{name}"), self._files(folder))

    def _entry(self, file: str) -> dict[str, Any]:
        try:
            entry = json.loads(store().read(file, 0, _LONGEST_ENTRY))
            return {name: kind(entry[name]) for name, kind in _ENTRY_KINDS.items()}
        except (ValueError, KeyError, TypeError, RecursionError):
            raise PublicationError(
                f"{redact(file)} says nothing of a tag.", "Remove it, and ask who can write there."
            ) from None

    def _files(self, folder: str) -> list[str]:
        return [name for name in store().names(folder) if _ENTRY.fullmatch(name)]


def _each(call: Callable[[Any], T], of: Iterable[Any]) -> Iterator[T]:
    """A call for each, some at once, in order."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(call, of)
