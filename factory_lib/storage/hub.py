"""Hugging Face's hub: `hf://datasets/USER/NAME[@REVISION]/…`. A token is taken from HF_TOKEN or the hub's own login."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from factory_lib.storage.files import FileInfo
from factory_lib.storage.remote import RemoteFiles

AT_ONCE = 8
"""Requests in flight for one call."""


class HubFiles(RemoteFiles):
    """Storage backend for ``hf://``."""

    def info(self, uri: str) -> FileInfo:
        """Describe one file, by one request; asked plainly, the hub's file system would list the whole folder."""
        about = self._retried(lambda: self.filesystem.info(self._path(uri), refresh=True, expand_info=True))
        if about.get("type") == "directory":
            raise IsADirectoryError(uri)
        return self._described(about, uri)

    def find(self, uri: str, odd: dict[str, str] | None = None) -> list[FileInfo]:
        """All files below a folder, or the file itself."""
        if not self._retried(lambda: self.filesystem.resolve_path(self._path(uri)).path):
            return super().find(uri, odd)  # the whole repository
        try:
            return [self.info(uri)]
        except IsADirectoryError:
            return super().find(uri, odd)

    def spans(self, uri: str, spans: Sequence[tuple[int, int | None]], etag: str | None) -> list[bytes | memoryview]:
        """Read each (start, end), `AT_ONCE` at a time."""
        if etag is not None:
            self._checked(uri, etag)
        path = self._path(uri)

        def fetch(span: tuple[int, int | None]) -> bytes:
            return bytes(self._retried(lambda: self.filesystem.cat_file(path, start=span[0], end=span[1])))

        if len(spans) == 1:
            return [fetch(spans[0])]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(fetch, spans))
