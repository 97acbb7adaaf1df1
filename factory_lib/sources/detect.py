"""Finds out what is at a URI and opens it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from factory_lib.errors import SourceError
from factory_lib.sources.layout import Layout, LayoutBuilder, first_blocks
from factory_lib.sources.shards import Source
from factory_lib.sources.tar import TarReader
from factory_lib.sources.webdataset import WebDataset
from factory_lib.storage.retry import redact
from factory_lib.storage.store import FileInfo, Store, store

TAR_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tar.zst", ".tar.bz2", ".tar.xz")
SCHEMA_MEMBERS = 6_000
"""Members of each tar that the schema is settled from."""


def open_source(uri: str, *, tars_per_shard: int | None = None, schema_tars: int = 3) -> Source:
    """Open whatever is at `uri`: the format is found out.

    Args:
        uri: a file or folder; a local path, `s3://…`, or what else fsspec opens.
        tars_per_shard: how many consecutive tars make one shard; None for `FACTORY_TARS_PER_SHARD`.
        schema_tars: how many tars, from the first, are looked into to settle the columns of all of them.

    Raises:
        FileMissing: nothing is there.
        SourceError: what is there is of no known format, or none of it can be read.
    """
    from factory_lib.settings import settings

    origin = store()
    uri = origin.resolve(uri)
    files = [file for file in origin.list(uri) if not _hidden(uri, file.uri)]
    per_shard = settings().tars_per_shard if tars_per_shard is None else tars_per_shard
    tars = tuple(file for file in files if file.uri.lower().endswith(TAR_SUFFIXES))
    if tars:
        return WebDataset(uri, tars, settle_layout(origin, tars[:], schema_tars), per_shard)
    raise SourceError(f"{redact(uri)} holds no samples of a known format: {_contents(files)}.", _KNOWN)


_KNOWN = "Known: WebDataset tars."


def settle_layout(origin: Store, tars: Sequence[FileInfo], schema_tars: int, parse_json: bool = True) -> Layout:
    """Look into the first tars that can be read.

    Raises:
        SourceError: none of them holds a sample; the message is that of the first.
    """
    builder = LayoutBuilder(parse_json)
    problems: list[str] = []
    looked_into = 0
    for tar in tars:
        reader = TarReader(origin, tar, problems.append)
        seen = len(builder.extensions)
        try:
            for block in first_blocks(reader.blocks(), SCHEMA_MEMBERS):
                builder.add(block)
        except SourceError as error:
            problems.append(str(error))
            continue
        looked_into += bool(seen or builder.extensions)
        if looked_into >= schema_tars:
            break
    if not builder.extensions:
        reason = problems[0] if problems else f"{redact(tars[0].uri)} has no members with an extension."
        raise SourceError(reason, f"No sample was found in {len(tars)} tar{'s' * (len(tars) > 1)}.")
    return builder.build()


def _hidden(root: str, uri: str) -> bool:
    return any(part.startswith(".") for part in uri.removeprefix(root).split("/"))


def _contents(files: Sequence[FileInfo]) -> str:
    """What is there, by extension."""
    if not files:
        return "it is empty"
    endings = Counter(
        f".{name.rsplit('.', 1)[1]}" if "." in (name := file.uri.rsplit("/", 1)[-1]) else "without extension"
        for file in files
    )
    return ", ".join(f"{number} x {ending}" for ending, number in endings.most_common(6))
