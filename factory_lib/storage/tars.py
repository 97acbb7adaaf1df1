"""Tars of samples as WebDataset reads them: the same samples make the same bytes.

Members are files of mode 0644 of user and group 0 at time 0, with headers of ustar; a name that is longer than its 100
bytes, or not ASCII, has a PAX header before it. The members of a sample stand together. The end is that of POSIX: two
blocks of zeros, filled up to a record of 10,240 bytes.
Format: POSIX.1-2017 "pax"; https://github.com/webdataset/webdataset.
"""

from __future__ import annotations

import contextlib
import re
import tarfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import BinaryIO

from factory_lib.errors import InvalidName
from factory_lib.storage.store import store

KEY = r"^(?:[^/.][^/]*/)*[^/.]+$"
"""What a key of a sample is, as a regular expression of Python and of RE2; and `NO_KEY`, what none has in it."""
NO_KEY = r"^__[^/]*__(?:/|$)|[\x00-\x1f\x7f]"
_EXTENSION = re.compile(r"[^/.]+(?:\.[^/.]+)*")
_CONTROL = re.compile(r"[\0-\x1f\x7f\ud800-\udfff]")
_MOST_BYTES = 8**11 - 1
_EMPTY = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_EMPTY_SUM = int(_EMPTY[148:154], 8) - 11 * ord("0")
"""The checksum without a name and without the digits of a size."""


class TarWriter:
    """Writes samples, one after another, to a file that need not be seekable.

    Args:
        out: gets the bytes.

    Attributes:
        samples: how many were added.
        size: bytes written.
    """

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._keys: set[str] = set()
        self.size = 0

    @property
    def samples(self) -> int:
        return len(self._keys)

    def add(self, key: str, members: Mapping[str, bytes | memoryview]) -> dict[str, tuple[int, int]]:
        """Append a sample.

        Args:
            key: what its members are called before their extension; it may be a path.
            members: extension (`jpg`, `seg.png`) -> bytes, in the order in which they are to stand.

        Returns:
            Extension -> (offset, size) of the member's bytes in the tar.

        Raises:
            InvalidName: readers would take the key or an extension for another, or the key is in the tar already.
        """
        check_key(key)
        if key in self._keys:
            raise InvalidName(f"The key {key!r} comes twice in one tar: readers would make one sample of the two.")
        for extension in members:
            check_extension(extension)
        self._keys.add(key)
        places = {}
        for extension, data in members.items():
            self._put(_header(f"{key}.{extension}", len(data)))
            places[extension] = (self.size, len(data))
            self._put(data)
            self._put(bytes(-len(data) % tarfile.BLOCKSIZE))
        return places

    def close(self) -> None:
        """Write the end of the archive; the file itself stays open."""
        self._put(bytes(2 * tarfile.BLOCKSIZE))
        self._put(bytes(-self.size % tarfile.RECORDSIZE))

    def _put(self, data: bytes | memoryview) -> None:
        self._out.write(data)
        self.size += len(data)


@contextlib.contextmanager
def writing_tar(uri: str) -> Iterator[TarWriter]:
    """A tar to add samples to; it is at `uri` whole, and durable, when the block ends, and not at all after an error.

    ```python
    from factory_lib.storage.tars import writing_tar

    with writing_tar("s3://bucket/made/00000.tar") as tar:
        offset, size = tar.add("000000001", {"jpg": picture, "txt": b"a red dress"})["jpg"]
    ```

    Raises:
        StoreError: it cannot be written there.
    """
    with store().writing(uri) as file:
        tar = TarWriter(file)
        yield tar
        tar.close()


def check_key(key: str) -> None:
    """Refuse a key that readers of tars would not give back.

    Raises:
        InvalidName: it is one.
    """
    if not re.search(KEY, key) or re.search(NO_KEY, key) or _CONTROL.search(key):
        raise InvalidName(
            f"{key!r} can be no key of a sample in a tar: a key is a relative path without a dot in its last part; no "
            "part of it begins with a dot, and the first is not __of_this_kind__."
        )


@lru_cache(maxsize=1024)
def check_extension(extension: str) -> None:
    """Refuse an extension that readers of tars would not give back.

    Raises:
        InvalidName: it is one.
    """
    if not _EXTENSION.fullmatch(extension) or extension != extension.lower() or _CONTROL.search(extension):
        raise InvalidName(
            f"{extension!r} can be no extension of a member in a tar: it is in lower case, without slashes, and does "
            "not begin or end with a dot."
        )


def _header(name: str, size: int) -> bytes:
    """What stands before a member: of a plain one put together here, which takes a tenth of tarfile's time."""
    if not name.isascii() or len(name) > tarfile.LENGTH_NAME or size > _MOST_BYTES:
        about = tarfile.TarInfo(name)
        about.size = size
        return about.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
    written, digits = name.encode(), b"%011o" % size
    checksum = b"%06o" % (_EMPTY_SUM + sum(written) + sum(digits))
    return b"".join(
        [written.ljust(tarfile.LENGTH_NAME, b"\0"), _EMPTY[100:124], digits, _EMPTY[135:148], checksum, _EMPTY[154:]]
    )
