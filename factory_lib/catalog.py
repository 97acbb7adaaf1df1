"""The catalog from Python: which datasets and versions there are, what became of what, and why.

The commands print what these functions return. A version is named as everywhere: `laion` (its latest), `laion.v3`,
`laion@icml`, or is a `Version`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa

from factory_lib.errors import InvalidName
from factory_lib.history.summaries import DatasetSummary, VersionSummary, dataset_summaries, version_summaries
from factory_lib.names import Ref, parse_ref
from factory_lib.sharing.place import SharedPlace, is_address
from factory_lib.sharing.tags import tag_published, untag_published
from factory_lib.tables import arrow_table
from factory_lib.warehouse.client import warehouse
from factory_lib.warehouse.tags import Tag, all_tags, delete_tag, set_tag, tags_of
from factory_lib.warehouse.versions import Version, resolve

if TYPE_CHECKING:  # what only some of the functions need is imported by these: `factory ls` is quick
    from factory_lib.history.comparing import Difference
    from factory_lib.history.descent import Use
    from factory_lib.history.lineage import Lineage
    from factory_lib.history.reproducing import Reproduction
    from factory_lib.history.tracing import Trace
    from factory_lib.sharing.publishing import Publication


def version(name: str | Version) -> Version:
    """The version that a name means: rows, columns, shards, provenance. One that an address names is pulled.

    Raises:
        DatasetNotFound, VersionNotFound: there is no such dataset, version or tag.
    """
    from factory_lib.sharing.pulling import opened

    return name if isinstance(name, Version) else opened(name)


def publish(name: str | Version, uri: str, *, tag: str | None = None) -> Publication:
    """Publish a version below an address, for any engine to open: its rows are written once, with all that is known.

    Args:
        uri: a prefix of a bucket, or a folder.
        tag: to be given to it there.

    Returns:
        The address, `s3://team/datasets/laion.v3`; the number is the next one where another version has its own.

    Raises:
        DatasetNotFound, VersionNotFound: there is no such version.
        PublicationError, StoreError, TagExists: see `sharing.publishing.publish_version`.
    """
    from factory_lib.sharing.publishing import publish_version

    return publish_version(version(name), uri, tag=tag)


def pull(address: str, dataset: str | None = None) -> Version:
    """Open a version that is published elsewhere; nothing of it is copied.

    Args:
        address: `s3://team/datasets/laion.v3`, `…/laion@icml`, or `…/laion` for the latest.
        dataset: what it is to be a version of here; by default the dataset that it was published as.

    Raises:
        DatasetNotFound, VersionNotFound: there is no such version.
        PublicationError, StoreError: see `sharing.pulling.pull_version`.
    """
    from factory_lib.sharing.pulling import pull_version

    return pull_version(address, dataset)


def published(uri: str) -> pa.Table:
    """The versions that are published in a place, or of one dataset there: address, rows, bytes, shards, tags.

    Raises:
        DatasetNotFound: nothing is published there.
    """
    from factory_lib.sharing.listing import PublishedVersion, published_versions

    return arrow_table(PublishedVersion, published_versions(uri))


def datasets() -> pa.Table:
    """All datasets by name: latest version, how many there are, rows, bytes, tags."""
    return arrow_table(DatasetSummary, dataset_summaries(warehouse()))


def versions(dataset: str) -> pa.Table:
    """The versions of a dataset, the oldest first: rows, shards, how it is stored, what it added and is made of, tags.

    Raises:
        DatasetNotFound: there is no such dataset.
    """
    return arrow_table(VersionSummary, summaries(dataset))


def summaries(dataset: str) -> list[VersionSummary]:
    """What `versions` makes a table of."""
    ref = parse_ref(dataset)
    found = version_summaries(warehouse(), ref.dataset)
    if found and ref == Ref(ref.dataset):
        return found
    one = str(resolve(warehouse(), ref))  # says what there is instead
    return [summary for summary in found if summary.name == one]


def diff(before: str | Version, after: str | Version) -> Difference:
    """How two versions differ, of one dataset or of two, by shard and by column, and what explains it.

    Raises:
        DatasetNotFound, VersionNotFound: there is none of that name.
    """
    from factory_lib.history.reasons import explained

    return explained(version(before), version(after))


def lineage(name: str | Version) -> Lineage:
    """What a version was made of, up to the sources.

    Raises:
        DatasetNotFound, VersionNotFound: there is none of that name.
    """
    from factory_lib.history.lineage import lineage as ancestry

    return ancestry(version(name))


def descent(name: str | Version) -> Lineage:
    """What was made of a version, what was made of that, and so on.

    Raises:
        DatasetNotFound, VersionNotFound: there is none of that name.
    """
    from factory_lib.history.descent import descent as descendants

    return descendants(version(name))


def uses(thing: str) -> pa.Table:
    """The versions that computed values of a signal or carry them over, or that point into files, and of what.

    Args:
        thing: a signal's name or fingerprint, or the URI of a file, of a folder of files, or of a source.

    Raises:
        NotFound: no version does.
    """
    from factory_lib.history.descent import Use

    return arrow_table(Use, use_list(thing))


def use_list(thing: str) -> list[Use]:
    """What `uses` makes a table of."""
    from factory_lib.history.descent import uses as found

    return found(warehouse(), thing)


def trace(name: str | Version, sample: str | int) -> Trace:
    """One sample on its way to a version: where its bytes are, what each stage computed, which one dropped it and why.

    Args:
        sample: its key or `sample_id`. It need not be in the version: it may have been dropped on the way.

    Raises:
        DatasetNotFound, VersionNotFound: there is none of that name.
        NotFound: no such sample is in the version nor in what that was made of.
        QueryError: several samples have that key.
    """
    from factory_lib.history.tracing import trace as followed

    return followed(version(name), str(sample))


def reproduce(name: str | Version, say: Callable[[str], None] = lambda _: None) -> Reproduction:
    """Make a version again from its provenance, under a name that goes again, and compare shard by shard.

    Args:
        say: told what is going on.

    Raises:
        DatasetNotFound, VersionNotFound: there is none of that name.
    """
    from factory_lib.history.reproducing import reproduce as again

    return again(version(name), say)


def tag(name: str | Version, tag: str, *, force: bool = False) -> bool:
    """Give a version a tag: from then on `laion@icml` is that version. One that an address names is tagged there.

    Args:
        force: move the tag when another version has it.

    Returns:
        Whether that changed anything.

    Raises:
        DatasetNotFound, VersionNotFound: there is none of that name.
        InvalidName: there can be no such tag.
        TagExists: another version has it.
    """
    if isinstance(name, str) and is_address(name):
        place, ref = SharedPlace.of(name)
        return tag_published(place, place.resolve(ref), tag, force=force)
    found = version(name)
    return set_tag(warehouse(), found.dataset, str(found), found.uuid, tag, force=force)


def untag(name: str) -> Tag:
    """Take a tag away, named as `laion@icml`; the version stays.

    Returns:
        What it was.

    Raises:
        InvalidName: the name has no tag.
        VersionNotFound: the dataset has no such tag.
    """
    place, ref = SharedPlace.of(name) if is_address(name) else (None, parse_ref(name))
    if ref.tag is None:
        raise InvalidName(f"{name!r} names no tag.", "Write laion@icml.")
    if place is not None:
        return untag_published(place, ref.dataset, ref.tag)
    return delete_tag(warehouse(), ref.dataset, ref.tag)


def tags(dataset: str | None = None) -> pa.Table:
    """The tags of all datasets, or of one: which version each is on, and since when.

    Raises:
        DatasetNotFound: there is no such dataset.
    """
    return arrow_table(Tag, tag_list(dataset))


def tag_list(dataset: str | None = None) -> list[Tag]:
    """What `tags` makes a table of."""
    if dataset is None:
        return [one for found in all_tags(warehouse()).values() for one in found.values()]
    if is_address(dataset):
        place, ref = SharedPlace.of(dataset)
        return list(place.tags(ref.dataset).values())
    return list(tags_of(warehouse(), version(dataset).dataset).values())
