"""What is in a zip archive: members with places, copies of those that have none, and tables."""

from __future__ import annotations

import hashlib
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from factory_lib.home import private_folder
from factory_lib.settings import settings
from factory_lib.sources.account import EXAMPLES, Account, extension_of, printable, reason_of
from factory_lib.sources.descriptions import tables_among, texts_among
from factory_lib.sources.entries import Entry, split_path
from factory_lib.sources.keyindex import remove_older
from factory_lib.sources.shards import ShardReport
from factory_lib.sources.streams import STREAM_ERRORS
from factory_lib.sources.surviving import worded
from factory_lib.sources.tablefiles import DOCUMENT_SUFFIXES, TABLE_SUFFIXES
from factory_lib.sources.tables import TablePair
from factory_lib.sources.tar import TarReader
from factory_lib.sources.unpack import Unpacking, UnpackNotes, readable, told
from factory_lib.sources.ziparchives import is_encrypted, is_stored, members, offsets
from factory_lib.storage.store import FileInfo, store

MAX_TABLE_BYTES = 2**30
"""Larger tables are not copied out of an archive."""
MAX_MEMBER_BYTES = 2 * 2**30
"""The largest compressed member that is copied."""


def entries_of(archive: FileInfo, report: ShardReport) -> list[Entry]:
    """The members of an archive, by name; hidden ones and those that cannot be read are left out, and stand in the
    report's account.

    Raises:
        SourceError: it is no archive, or is damaged.
    """
    name, overwritten = name_of(archive), list[str]()
    found = members(archive, overwritten)
    for path in overwritten:
        report.account.member(name, path, "a later member has the same name")
    encrypted = [about for about in found if is_encrypted(about)]
    if encrypted:
        report.count("encrypted_members", len(encrypted))
        report.problem(
            f"{len(encrypted)} members are encrypted, such as {printable(encrypted[0].filename)!r}: left out"
        )
    plain = []
    for about in found:
        if is_encrypted(about):
            report.account.member(name, about.filename, "encrypted")
        elif _is_hidden(about):
            report.account.member(name, about.filename, "hidden", loss=False)
        else:
            plain.append(about)
    stored = [about for about in plain if is_stored(about)]
    places = dict(zip((about.filename for about in stored), offsets(archive, stored), strict=True))
    return [
        Entry(about.filename, archive, about.file_size, places[about.filename])
        if about.filename in places
        else Entry(about.filename, archive, about.file_size, -1, about)
        for about in plain
    ]


def name_of(archive: FileInfo) -> str:
    """What an archive is called in accounts."""
    return archive.path.rsplit("/", 1)[-1]


def unpacked(archive: FileInfo, entries: Sequence[Entry], to: str, report: ShardReport) -> list[Entry]:
    """Entries out of the unpacked copy of their archive, which is made where it is not there."""
    copy = Unpacking(archive, to)
    noted = UnpackNotes.read(copy.recorded()) if copy.is_done else _copied(copy, archive, entries)
    noted.tell(report)
    places: dict[str, tuple[FileInfo, int]] = {}
    for part in copy.parts:
        for block in TarReader(store(), part, report.problem).blocks():
            places |= {
                name: (part, offset)
                for name, offset in zip(block.names.to_pylist(), block.offsets.tolist(), strict=True)
            }
    found = ((entry, places.get(readable(entry.path))) for entry in entries)
    return [replace(entry, file=at[0], offset=at[1], packed=None) for entry, at in found if at is not None]


def _copied(copy: Unpacking, archive: FileInfo, entries: Sequence[Entry]) -> UnpackNotes:
    noted = UnpackNotes()
    with told(archive) as progress:
        for _, sample in groupby(entries, key=lambda entry: split_path(entry.path)[0]):
            if copy.is_full:
                copy.end_part()
            for entry in sample:
                data = _content(entry, noted)
                if data is not None:
                    copy.add(entry.path, data)
            progress()
    if copy.has_members:
        copy.end_part()
    copy.finish(**noted.record())
    return noted


def _content(entry: Entry, noted: UnpackNotes) -> bytes | None:
    reason = ""
    if entry.size > MAX_MEMBER_BYTES:
        reason = f"has {entry.size} bytes"
    else:
        try:
            return entry.read()
        except (zipfile.BadZipFile, *STREAM_ERRORS, NotImplementedError) as error:
            reason = worded(error)
    noted.count("unreadable_members")
    noted.problems.append(f"member {printable(entry.path)!r} is left out: {reason}")
    return None


def is_table(entry: Entry) -> bool:
    """Whether a member may be a table."""
    return entry.path.lower().endswith((*TABLE_SUFFIXES, *DOCUMENT_SUFFIXES))


def tables_in(archive: FileInfo, entries: Sequence[Entry]) -> tuple[str, list[TablePair]]:
    """The tables among the members of an archive, copied into the data folder, and the folder that they are in."""
    identity = hashlib.sha256(f"{archive.etag}\t{archive.size}".encode()).hexdigest()[:12]
    folder = settings().home / "sources" / f"{hashlib.sha256(archive.uri.encode()).hexdigest()[:12]}-{identity}"
    names = [FileInfo(f"{folder}/{entry.path}", entry.size, "") for entry in entries if _is_inside(entry.path)]
    by_uri = {f"{folder}/{entry.path}": entry for entry in entries}
    found = [*tables_among(names), *texts_among(names)]
    for file in (file for pair in found for file in pair.files):
        if not store().exists(file.uri) and file.size <= MAX_TABLE_BYTES:
            private_folder(folder)
            store().write(file.uri, by_uri[file.uri].read())
    if found:
        remove_older(folder)
    return str(folder), [pair for pair in map(_there, found) if pair.files]


def _there(pair: TablePair) -> TablePair:
    """A table of what was copied."""
    kept = {file: store().info(file.uri) for file in pair.files if store().exists(file.uri)}
    return TablePair(kept.get(pair.table) if pair.table else None, kept.get(pair.arrays) if pair.arrays else None)


def account_members(archive: FileInfo, entries: Iterable[Entry], used: set[str], account: Account) -> None:
    """Account for the members of an archive.

    Args:
        entries: as `entries_of` gives them.
        used: paths of those that are in samples, or are tables that describe some.
    """
    name = name_of(archive)
    for entry in entries:
        reason, loss = ("", False) if entry.path in used else reason_of(entry.path, "zip")
        account.member(name, entry.path, reason, used=entry.path in used, loss=loss)


def tell_left_out(entries: Iterable[Entry], used: set[str], report: ShardReport) -> None:
    """Count members that are in no sample, by their kind."""
    names = [entry.path for entry in entries if entry.path not in used]
    report.count("members_left_out", len(names))
    kinds = Counter((extension_of(name), reason_of(name, "zip")[0]) for name in names)
    for (kind, reason), number in kinds.most_common():
        some = [printable(name) for name in names if extension_of(name) == kind][:EXAMPLES]
        report.problem(f"{number} members {kind} ({', '.join(some)}) are left out: {reason}")


def _is_hidden(about: zipfile.ZipInfo) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in about.filename.split("/"))


def _is_inside(path: str) -> bool:
    """Whether a name stays below the folder that it is put into."""
    return not path.startswith("/") and ".." not in path.split("/") and "\\" not in path
