"""ClickHouse errors: their code, their text and the HTTP status a ClickHouse server gives them."""

from __future__ import annotations

import re

_CODE = re.compile(r"Code: (\d+)\. (DB::Exception: .*)", re.DOTALL)
_NESTED = re.compile(r"^DB::Exception: (Code: \d+\. DB::Exception: .*)\. \([A-Z_0-9]+\)\s*$", re.DOTALL)
_VERSION = re.compile(r" \(version [\w. ]*(?:\([^()]*\))?\)")

# The same choice as ClickHouse's exceptionCodeToHTTPStatus; whatever is not listed is a 500.
_STATUS = {
    400: (6, 8, 15, 25, 26, 27, 36, 37, 38, 41, 44, 53, 62, 72, 117, 123, 167, 168, 223, 321, 376, 427, 441, 675, 676),
    401: (194,),
    403: (192, 193, 512, 516),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    408: (159,),
    411: (381,),
    413: (229,),
    501: (48,),
    503: (76, 209, 439),
}
STATUS = {code: status for status, codes in _STATUS.items() for code in codes}


class EngineFailure(Exception):
    """A statement failed, or a request cannot be served.

    Args:
        code: ClickHouse's error code.
        text: ClickHouse's whole message, `Code: … DB::Exception: … (NAME)`.
        status: the HTTP status; None takes ClickHouse's choice for the code.
    """

    def __init__(self, code: int, text: str, status: int | None = None) -> None:
        self.code = code
        self.text = text
        self.status = status if status is not None else STATUS.get(code, 500)
        super().__init__(text)


def failure(code: int, name: str, message: str, status: int | None = None) -> EngineFailure:
    """A failure of the server's own, in ClickHouse's wording."""
    return EngineFailure(code, f"Code: {code}. DB::Exception: {message}. ({name})", status)


def from_engine(error: BaseException) -> EngineFailure:
    """What chDB raised, as a failure. chDB gives the text only, and at times wraps one error in another."""
    text = str(error).strip()
    match = _CODE.search(text)
    if match is None:
        return failure(1002, "UNKNOWN_EXCEPTION", text or type(error).__name__)
    nested = _NESTED.match(match[2])
    if nested:
        return from_engine(RuntimeError(nested[1]))
    return EngineFailure(int(match[1]), _VERSION.sub("", match[0]).strip())
