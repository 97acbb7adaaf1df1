"""The head: the object of a bucket that says which versions are there, and whose they are.

A data folder has a bucket to itself: only its engine knows which objects belong together, and removes those that
nothing needs any more. So each change replaces the head on the condition that it is the one that this folder wrote last
(`If-Match`). A second folder, a copy of the first, or one that the versions were restored into since, is told so before
it publishes or drops anything.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from factory_lib.errors import FactoryError, StoreError
from factory_lib.filelocks import exclusive
from factory_lib.home import private_folder
from factory_lib.owners import write_whole
from factory_lib.storage.store import store

STATE = "bucket.json"
"""File of a data folder that says where its versions lie."""

HEAD = "head.json.gz"
FORMAT = 1


class BucketError(FactoryError):
    """Versions cannot be kept in a bucket, or no longer in this one."""


@dataclass(frozen=True)
class BucketHead:
    """What the head says.

    Attributes:
        token: of whoever wrote it.
        folder: the data folder that it belongs to, `host:path`.
        at: when it was written, UTC.
        versions: UUID of a version's table -> name.
        catalog: part of a table of the catalog, `table's UUID/part/checksum` -> the pack that holds it.
        unpublished: UUIDs of sealed tables that are not published.
    """

    token: str
    folder: str
    at: str
    versions: dict[str, str] = field(default_factory=dict)
    catalog: dict[str, str] = field(default_factory=dict)
    unpublished: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Bound:
    """The bucket of a data folder.

    Attributes:
        uri: `s3://bucket/prefix`.
        tokens: of the head that it wrote last, and of the one that it was writing, should it have been killed.
    """

    uri: str
    tokens: list[str]

    @staticmethod
    def of(home: Path) -> Bound | None:
        """The bucket of a data folder; None where versions lie on its disk."""
        try:
            return Bound(**json.loads((home / STATE).read_text()))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, home: Path) -> None:
        """Keep it for later processes."""
        write_whole(home / STATE, json.dumps(asdict(self)).encode(), durable=True)

    def head(self) -> tuple[BucketHead, str]:
        """The head and its etag.

        Raises:
            BucketError: it is not there, or another folder has written it.
            StoreError: the bucket cannot be read.
        """
        found = read_head(self.uri)
        if found is None:
            raise BucketError(
                f"{self.uri} does not hold the versions of this data folder any more: {HEAD} is gone.",
                "Was the bucket removed or emptied? Bring back what it held, or begin with another data folder.",
            )
        if found[0].token not in self.tokens:
            raise taken(self.uri, found[0])
        return found


def taken(uri: str, head: BucketHead) -> BucketError:
    """The error of a folder that is not the one whose versions a bucket holds."""
    return BucketError(
        f"{uri} holds the versions of another data folder, {head.folder}, written at {head.at[:16]}.",
        "Two engines cannot share a prefix: name another one. If that folder is lost:"
        f" FACTORY_HOME=EMPTY_FOLDER factory restore {uri}.",
    )


def read_head(uri: str) -> tuple[BucketHead, str] | None:
    """The head below a prefix and its etag; None where there is none.

    Raises:
        BucketError: a later release wrote it.
        StoreError: the bucket cannot be read.
    """
    where = f"{uri}/{HEAD}"
    if not store().exists(where):
        return None
    about = store().info(where)
    said: dict[str, Any] = json.loads(gzip.decompress(store().read(where, etag=about.etag)))
    if (number := said.pop("format")) > FORMAT:
        raise BucketError(
            f"A later release of Dataset Factory wrote {where} (format {number}; this one knows {FORMAT}).",
            "Use that release, or a later one.",
        )
    return BucketHead(**said), about.etag


def claim(home: Path, uri: str) -> Bound:
    """Have a data folder keep its versions below a prefix that nobody has.

    Raises:
        BucketError: another data folder has it, or the bucket cannot be written.
    """
    head = _signed(BucketHead("", "", ""), home)
    bound = Bound(uri, [head.token])
    bound.write(home)
    try:
        if not store().create(f"{uri}/{HEAD}", _packed(head)):
            found = read_head(uri)
            # An answer may be lost on its way, and the request be made again.
            if found is None or found[0].token != head.token:
                raise taken(uri, found[0] if found else head)
    except StoreError as error:
        (home / STATE).unlink()
        raise BucketError(f"No versions can be kept in {uri}: {error.message}", error.hint) from None
    except BucketError:
        (home / STATE).unlink()
        raise
    return bound


def put_head(home: Path, bound: Bound, head: BucketHead, etag: str, named: Path | None = None) -> None:
    """Replace the head.

    Args:
        etag: of the one that it replaces.
        named: what the data folder will be called, where it is being made.

    Raises:
        BucketError: another folder has written it meanwhile.
        StoreError: the bucket cannot be written.
    """
    head = _signed(head, named or home)
    replace(bound, tokens=[bound.tokens[0], head.token]).write(home)
    if not store().replace(f"{bound.uri}/{HEAD}", _packed(head), etag):
        found = read_head(bound.uri)
        if found is None or found[0].token != head.token:
            raise taken(bound.uri, found[0] if found else head)
    replace(bound, tokens=[head.token]).write(home)


@contextmanager
def bucket_lock(home: Path) -> Iterator[None]:
    """Hold the lock of what a data folder does to its bucket."""
    with open(private_folder(home / "locks", home) / ".bucket", "w") as file, exclusive(file):
        yield


def _signed(head: BucketHead, home: Path) -> BucketHead:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    return replace(head, token=uuid.uuid4().hex, folder=f"{socket.gethostname()}:{home}", at=now)


def _packed(head: BucketHead) -> bytes:
    return gzip.compress(json.dumps({"format": FORMAT, **asdict(head)}, separators=(",", ":")).encode(), mtime=0)
