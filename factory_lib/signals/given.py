"""Files that users bring for a signal, wherever they lie: word lists, centroids, weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from factory_lib.errors import SignalError
from factory_lib.signals.checkpoint import file_digest
from factory_lib.storage.store import is_local, store


@dataclass(frozen=True)
class GivenFile:
    """A file that values depend on by its content, and by nothing else.

    Attributes:
        uri: a path, or the URI of a file.
    """

    uri: str

    def read(self) -> bytes:
        """What it holds.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        return store().read(self.uri)

    def text(self) -> str:
        """What it holds, as text.

        Raises:
            SignalError: it is not UTF-8.
            StoreError: it is not there, or cannot be read.
        """
        data = self.read()
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise SignalError(
                f"{self.uri}, line {line}: {data[error.start : error.end]!r} is no UTF-8.",
                "Save the file as UTF-8, or give another one.",
            ) from None

    def __fingerprint__(self) -> dict[str, str]:
        """SHA-256 of what it holds, the same wherever the file lies; taken again when its etag changes.

        Raises:
            StoreError: it is not there, or cannot be read.
        """
        if is_local(self.uri):
            store().info(self.uri)  # says what is there instead
            return {"sha256": file_digest(Path(store().resolve(self.uri)))[:16]}
        return {"sha256": _digest(self.uri, store().info(self.uri).etag)[:16]}


@lru_cache(maxsize=256)
def _digest(uri: str, etag: str) -> str:
    digest = hashlib.sha256()
    for chunk in store().chunks(uri, etag=etag or None):
        digest.update(chunk)
    return digest.hexdigest()
