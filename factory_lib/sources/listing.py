"""The files of a source, with account of those that cannot be read as files."""

from __future__ import annotations

from collections.abc import Sequence

from factory_lib.sources.account import Account, extension_of
from factory_lib.storage.store import FileInfo, store


def list_files(uri: str, account: Account) -> list[FileInfo]:
    """All files below a folder, or the file itself; what is there and is no readable file stands in the account.

    Raises:
        FileMissing: nothing is there.
    """
    odd: dict[str, str] = {}
    files = []
    for file in store().list(uri, odd=odd):
        try:
            file.uri.encode()
        except UnicodeEncodeError:
            odd[file.uri] = "its name is not UTF-8: rename it"
        else:
            files.append(file)
    for path, reason in sorted(odd.items()):
        account.leave_out("files", extension_of(path), path.removeprefix(uri).lstrip("/"), reason)
    return files


def visible(uri: str, files: Sequence[FileInfo]) -> list[FileInfo]:
    """Those that are not hidden."""
    return [file for file in files if not any(part.startswith(".") for part in file.uri.removeprefix(uri).split("/"))]
