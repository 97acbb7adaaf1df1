"""How the failure of one sample is worded, in the `_error` columns and by signals that tell of failures themselves.

The module keeps its name: it is part of the fingerprint of signals that use it.
"""

from __future__ import annotations

import re

from factory_lib.redaction import redact

MAX_ERROR = 300
_ADDRESS = re.compile(r"<[\w.]+ object at 0x[0-9a-fA-F]+>|\b(at )?0x[0-9a-fA-F]{8,}")


class MissingInputError(Exception):
    """A sample lacks an input; its text is the whole error."""


def describe(error: BaseException) -> str:
    """An error as the text of an `_error` column: type and message on one line, bounded, the same in every run."""
    if isinstance(error, MissingInputError):
        return str(error)
    # Object addresses change with every run: they would make equal versions look different.
    message = " ".join(redact(_ADDRESS.sub("", str(error)[: 8 * MAX_ERROR])).split())
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    return text if len(text) <= MAX_ERROR else text[: MAX_ERROR - 1] + "…"
