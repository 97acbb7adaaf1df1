"""One bad file or sample among good ones does not end a run: whatever a reader raises is counted and reported.

There is no list of what may go wrong in foreign files. Only what says nothing of a file goes on up: storage that fails,
and a file that changed while it was read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from factory_lib.errors import FactoryError, SourceError, StoreError
from factory_lib.redaction import redact
from factory_lib.sources.account import printable
from factory_lib.sources.shards import ShardReport
from factory_lib.storage.store import is_local

T = TypeVar("T")
_LONGEST = 300
_ABOUT_ONE_FILE = (PermissionError, IsADirectoryError)


def worded(error: BaseException) -> str:
    """What went wrong, in a line that can be printed and stored."""
    text = " ".join(printable(redact(str(error)[: 4 * _LONGEST])).split())[:_LONGEST]
    return text if isinstance(error, FactoryError) else f"{type(error).__name__}: {text}".rstrip(": ")


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Whatever goes wrong within, with the file `where`, is a `SourceError` that names it.

    Raises:
        StoreError: the storage failed, or the file changed.
    """
    try:
        yield
    except StoreError as error:
        # On a local disk the rights are those of one file; elsewhere they are more likely those of all.
        if not is_local(where) or not isinstance(error.__cause__, _ABOUT_ONE_FILE):
            raise
        raise SourceError(error.message, error.hint) from error
    except FactoryError:
        raise
    except Exception as error:
        raise SourceError(f"{printable(redact(where))} cannot be read: {worded(error)}.") from error


def surviving(rows: Iterable[T], where: str, kind: str, report: ShardReport) -> Iterator[T]:
    """The rows up to the point at which something goes wrong, which is counted as `kind` and reported.

    Raises:
        StoreError: the storage failed, or the file changed.
    """
    try:
        with reading(where):
            yield from rows
    except SourceError as error:
        report.count(kind)
        report.problem(printable(str(error)), loses=True)


def survived(act: Callable[[], T], where: str, kind: str, report: ShardReport) -> T | None:
    """What a function returns; None where something goes wrong, which is counted as `kind` and reported.

    Raises:
        StoreError: the storage failed, or the file changed.
    """
    return next(surviving((act() for _ in (0,)), where, kind, report), None)


def without_the_bad(
    size: int, build: Callable[[int, int], T], name: Callable[[int], str], kind: str, report: ShardReport
) -> Iterator[T]:
    """Build something of `size` samples; where that fails, of the halves, until the sample that is to blame is alone.

    Four samples, the third of them bad -> what 0 to 2 gives, what 3 to 4 gives, and one sample counted as `kind`.

    Args:
        build: makes samples from `start` to `stop`.
        name: how a sample is called in the report.
        kind: what bad samples are counted as.
    """
    spans = [(0, size)]
    while spans:
        start, stop = spans.pop()
        kept = report.copy()
        try:
            yield build(start, stop)
            continue
        except FactoryError:
            raise
        except Exception as error:
            report.restore(kept)
            if stop - start > 1:
                middle = (start + stop) // 2
                spans += [(middle, stop), (start, middle)]
                continue
            report.count(kind)
            report.problem(f"sample {printable(name(start))!r} cannot be read: {worded(error)}", loses=True)
