"""`factory ls`: datasets, and the versions of one."""

from __future__ import annotations

import click

from factory_lib.catalog import summaries
from factory_lib.commands.naming import DatasetName
from factory_lib.commands.options import command
from factory_lib.commands.output import number, print_json, print_rows, say, seconds, size, when
from factory_lib.history.summaries import DatasetSummary, VersionSummary, dataset_summaries
from factory_lib.sharing.listing import PublishedVersion, published_versions
from factory_lib.sharing.place import is_address
from factory_lib.warehouse.client import warehouse


@command(
    """
    factory ls
    factory ls laion --json
    factory ls s3://team/datasets   # what is published there
    """
)
@click.argument("dataset", metavar="[DATASET|URI]", required=False, type=DatasetName())
def ls_command(dataset: str | None, as_json: bool) -> None:
    """List the datasets, the versions of one, or what is published in a place.

    SIZE is that of the latest version, with what it shares with others; ADDED is what the versions added on disk.
    """
    if dataset is None:
        datasets = dataset_summaries(warehouse())
        print_json(datasets) if as_json else _print_datasets(datasets)
        return
    if is_address(dataset):
        published = published_versions(dataset)
        print_json(published) if as_json else _print_published(published)
        return
    versions = summaries(dataset)
    print_json(versions) if as_json else _print_versions(versions)


def _print_datasets(datasets: list[DatasetSummary]) -> None:
    if not datasets:
        say("There are no datasets yet. Make one: factory ingest URI --name NAME")
        return
    rows = [
        (
            one.dataset,
            one.latest.rpartition(".")[2],
            number(one.versions),
            number(one.rows),
            size(one.bytes),
            size(one.bytes_added),
            when(one.created),
            ", ".join(f"{tag}={version.rpartition('.')[2]}" for tag, version in sorted(one.tags.items())),
        )
        for one in datasets
    ]
    columns = ("dataset", "latest", "versions", "rows", "size", "added", "created", "tags")
    print_rows(columns, rows, numbers=("versions", "rows", "size", "added"))


def _print_versions(versions: list[VersionSummary]) -> None:
    rows = [
        (
            one.name,
            number(one.rows),
            number(one.shards),
            one.storage or "–",
            size(one.bytes_added),
            "–" if one.seconds is None else seconds(one.seconds),
            when(one.created),
            ", ".join(one.parents),
            ", ".join(one.tags),
        )
        for one in versions
    ]
    columns = ("version", "rows", "shards", "storage", "added", "took", "created", "made of", "tags")
    print_rows(columns, rows, numbers=("rows", "shards", "added", "took"))


def _print_published(versions: list[PublishedVersion]) -> None:
    rows = [
        (
            one.address,
            number(one.rows),
            number(one.shards),
            size(one.size),
            when(one.published),
            ", ".join(one.parents),
            ", ".join(one.tags),
        )
        for one in versions
    ]
    columns = ("address", "rows", "shards", "size", "published", "made of", "tags")
    print_rows(columns, rows, numbers=("rows", "shards", "size"))
