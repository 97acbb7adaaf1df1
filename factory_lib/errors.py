"""The tree of errors.

Every error that a user can meet derives from `FactoryError`. Its message says what went wrong and where (dataset,
version, shard, sample); its hint says what to do next, with the nearest valid value where there is one. What a caller
got wrong is one of Python's own errors, too: `LookupError` where something that was named does not exist, `ValueError`
where a value cannot be.
"""

from __future__ import annotations

import difflib
import os
import traceback
from collections.abc import Iterable

from factory_lib.redaction import without_credentials


class FactoryError(Exception):
    """Root of all errors of Dataset Factory.

    Args:
        message: what went wrong, and where. Secrets of URIs are cut out of it, whoever worded it.
        hint: the next step, shown after the message.

    Attributes:
        shard: the shard that it happened in, where it is one shard's doing: the others can be made without it.
        sample: position in that shard of the sample that it happened at, where it is one sample's doing.
        is_transient: the same may succeed a little later, without anybody doing anything.
    """

    shard: str | None = None
    sample: int | None = None
    is_transient: bool = False

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = without_credentials(message)
        self.hint = hint
        super().__init__(f"{self.message} {hint}".strip())

    def _render_traceback_(self) -> list[str]:
        """What notebooks show in place of forty frames: the message, the hint, and the line that led here."""
        frames = [frame for frame in traceback.extract_tb(self.__traceback__) if not _is_ours(frame.filename)]
        where = [f"  in line {frames[-1].lineno}: {frames[-1].line}"] if frames and frames[-1].line else []
        cause = [f"  because of {type(self.__cause__).__name__}: {self.__cause__}"] if self.__cause__ else []
        hint = [self.hint] if self.hint else []
        lines = [f"{type(self).__name__}: {self.message}", *hint, *where, *map(without_credentials, cause)]
        return [*lines, "  (all frames: import traceback; traceback.print_last())"]


def _is_ours(path: str) -> bool:
    """Whether a file is one of the library, or of a package: not what the user wrote."""
    return path.startswith(_HERE) or "site-packages" in path or f"{os.sep}IPython{os.sep}" in path


_HERE = os.path.dirname(__file__) + os.sep


class SettingsError(FactoryError, ValueError):
    """A setting (environment variable) has a value that cannot be used."""


class InvalidName(FactoryError, ValueError):
    """A dataset, version, tag or column name breaks the rules for names."""


class NotFound(FactoryError, LookupError):
    """Something that was named does not exist."""


class DatasetNotFound(NotFound):
    """No such dataset."""


class VersionNotFound(NotFound):
    """The dataset exists, the version does not."""


class ColumnNotFound(NotFound):
    """A query names a column that its input does not have."""


class TagExists(FactoryError, ValueError):
    """A tag is on another version, and tags do not move by themselves."""


class QueryError(FactoryError, ValueError):
    """A query cannot be compiled or executed as written."""


class CommitError(FactoryError):
    """A version could not be published."""


class EngineError(FactoryError):
    """The warehouse refused a statement, or could not be reached.

    Args:
        code: ClickHouse's error code, 0 when the engine could not be reached.
    """

    def __init__(self, message: str, hint: str = "", *, code: int = 0) -> None:
        self.code = code
        self.is_transient = type(self).is_transient or code in _OVERLOADED
        super().__init__(message, hint)


_OVERLOADED = {
    159,  # timeout
    173,  # cannot allocate memory
    202,  # too many queries
    209,  # socket timeout
    210,  # network
    236,  # aborted
    241,  # memory limit
    252,  # too many parts
    999,  # keeper
}
"""ClickHouse's error codes of an engine that has too much to do, or lost its connections."""


class EngineUnreachable(EngineError):
    """The engine does not answer, or was gone before it had answered."""

    is_transient = True


class DiskFull(EngineError):
    """The disk of the warehouse has no room for what is to be written; nothing was published."""


class StoreError(FactoryError):
    """Bytes could not be listed, read or written."""


class StorageAway(StoreError):
    """Storage fails for the time being: that says nothing of what it holds."""

    is_transient = True


class FileMissing(StoreError):
    """A file or folder that was named does not exist."""


class FileChanged(StoreError):
    """A file was overwritten under its name since it was listed: pointers into it are void."""


class FileDamaged(StoreError):
    """Bytes that a file should have cannot be read: it was cut, or its disk gives errors."""


class SourceError(FactoryError):
    """A source (tar, parquet, npz, …) cannot be read as what it claims to be."""


class SignalError(FactoryError):
    """A signal is declared wrongly, or failed on a sample while `on_error="raise"`."""


class ExecutorError(FactoryError):
    """Signals cannot be computed where they were to be: Ray is not installed, not there, or of another version.

    Args:
        is_transient: it may be there a little later.
    """

    def __init__(self, message: str, hint: str = "", *, is_transient: bool = False) -> None:
        self.is_transient = is_transient
        super().__init__(message, hint)


class LoaderError(FactoryError):
    """The training loader was set up or resumed wrongly, or could not deliver a sample."""


class ExportError(FactoryError, ValueError):
    """Samples cannot be exported as asked, or not to where they are to go."""


class PublicationError(FactoryError, ValueError):
    """A version cannot be published as asked, or a published one not be opened."""


class TrainingError(FactoryError):
    """A training cannot be set up as asked, or one of its processes failed."""


class NothingToLearn(LoaderError):
    """There are no captions to learn from, or to be scored on: no fault of the training."""


def nearest(name: str, candidates: Iterable[str]) -> str:
    """A hint that names the nearest valid value.

    Returns:
        ``"Did you mean 'laion'?"``, or the list of candidates when none is near and they are few, or an empty string.
    """
    known = sorted(set(candidates))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"Did you mean {close[0]!r}?"
    if known and len(known) <= 12:
        return f"Known: {', '.join(known)}."
    return ""
