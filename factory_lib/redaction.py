"""Secrets do not come out: one redactor for messages, logs, provenance and pages.

In URIs it cuts out user names and passwords, whatever they are made of, and blanks the values of all parameters but a
few that are known to hold none (`?auth=`, `?code=`, the signature of a presigned URL, …). In other text it blanks what
is given to names that speak of secrets, headers of authorization, and identities of AWS keys. It takes time in
proportion to the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

MARK = "***"

_PUBLIC = frozenset(["versionid", "format", "width", "height", "w", "h", "size", "page", "offset", "limit", "q"])
"""Parameters of URIs whose values are shown."""

_URI_END = re.compile(r"[\s'\"<>`|\\^]")
_SHORTEST = 4
"""Characters of a piece of a secret that is looked for in other text: of less would be too much found."""
_LONGEST = 2048
"""Characters of a password, at most."""
_SPACE = re.compile(r"\s")
_PORT = re.compile(r"[^:]*:\d{1,5}")
_WORD = re.compile(r"[\w-]+")
_SPEAKS = re.compile(
    r"secret|passw|token|signature|credential|(?:access|account|api|private|shared|sas)_?key|authorization|cookie"
    r"|connection_?string|(?:^|[_-])(?:pwd|sig|sas|auth)$"
)
_GIVEN = re.compile(r"""['"]?\s{0,8}[=:]\s{0,8}""")
_VALUE = re.compile(r"""(?:bearer |basic |digest |token |aws4-hmac-sha256 )?(?:"[^"]*"?|'[^']*'?|[^\s,'"&)]+)""", re.I)
_BEARER = re.compile(r" +[^\s,'\"]+")
_AWS_KEY = re.compile(r"(?:AKIA|ASIA)[A-Z0-9]{12,}")


def without_credentials(text: str) -> str:
    """The text with the secrets of its URIs cut out, nothing else touched: `s3://key:secret@a/b` -> `s3://a/b`."""
    return "".join(part if plain else _without_credentials(part) for plain, part in _parts(text))


def redact(text: str, uri: str = "") -> str:
    """The text without secrets, of URIs and others, for messages: queries and fragments of URIs are left out.

    Args:
        uri: what the text is about: its secrets go wherever they stand, such as in what a library takes for a bucket.
    """
    for secret in _secrets_of(uri):
        text = text.replace(secret, MARK)
    return "".join(
        _without_named(part) if plain else _halves(_without_credentials(part))[0] for plain, part in _parts(text)
    )


def stripped(value: Any) -> Any:
    """A value made of dictionaries, lists and texts, with the secrets of the URIs in its texts cut out."""
    if isinstance(value, str):
        return without_credentials(value)
    if isinstance(value, dict):
        return {stripped(key): stripped(inner) for key, inner in value.items()}
    return [stripped(inner) for inner in value] if isinstance(value, list | tuple) else value


def quiet(error: BaseException, uri: str = "") -> BaseException:
    """An error to be shown as the cause of another: itself, or its words where it or a cause of it tells a secret."""
    link: BaseException | None = error
    seen: set[int] = set()
    while link is not None and id(link) not in seen:
        seen.add(id(link))
        if redact(str(link), uri) != str(link):
            return OSError(f"{type(error).__name__}: {redact(str(error), uri)}")
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    return error


def _secrets_of(uri: str) -> list[str]:
    """User name, password and parameters of a URI: as they are, decoded, and in the pieces that others make of them."""
    rest = uri.partition("://")[2]
    if not rest:
        return []
    first = re.split(r"[/?#]", rest, maxsplit=1)[0]
    behind = rest if ":" in first and not _PORT.fullmatch(first) else first
    user = behind.rpartition("@")[0]
    query = _halves(rest.removeprefix(user))[2]
    # What a library takes for a bucket or a host may end at any of these, and not at the others.
    pieces = [piece for mark in ":/?#@" for piece in user.split(mark)]
    found = {user, user.partition(":")[2], *pieces, *re.split(r"[:/?#@]", user)}
    found |= set(map(_given, re.split(r"[&;#]", query)))
    found |= {unquote(one) for one in found}
    return sorted((one for one in found if len(one) >= _SHORTEST), key=len, reverse=True)


def _given(parameter: str) -> str:
    name, _, value = parameter.partition("=")
    return "" if name.lower() in _PUBLIC else value or name


def _parts(text: str) -> Iterator[tuple[bool, str]]:
    """Text cut into plain parts and what follows the `://` of a URI."""
    alone = not any(character.isspace() for character in text)  # then it is nothing but one URI, quotes and all
    done = 0
    while (found := text.find("://", done)) >= 0:
        end = None if alone and done == 0 else _URI_END.search(text, found + 3)
        stop = end.start() if end is not None else len(text)
        if end is not None and not end[0].isspace() and _is_cut_short(text[found + 3 : stop]):
            space = _SPACE.search(text, stop, stop + _LONGEST)
            at = text.rfind("@", stop, space.start() if space is not None else stop + _LONGEST)
            next_end = _URI_END.search(text, at) if at >= 0 else None
            stop = stop if at < 0 else next_end.start() if next_end is not None else len(text)
        yield True, text[done : found + 3]
        yield False, text[found + 3 : stop]
        done = stop
    yield True, text[done:]


def _is_cut_short(rest: str) -> bool:
    """Whether a password begins that is not over: one that holds a quote."""
    first = re.split(r"[/?#]", rest, maxsplit=1)[0]
    return ":" in first and "@" not in rest and "::" not in first and not _PORT.fullmatch(first)


def _without_credentials(rest: str) -> str:
    """A URI, from behind its `://`, without user name, password and values of parameters."""
    first = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if ":" in first and "::" not in first and not _PORT.fullmatch(first):
        # What was cut off before its host is no address: all of it may be a password.
        rest = rest.rpartition("@")[2] if "@" in rest else MARK
    path, mark, query = _halves(rest)
    pieces = []
    for piece in path.split("://"):  # of `zip://a::s3://bucket`
        first = piece.partition("/")[0]
        pieces.append(piece.rpartition("@")[2] if "@" in first or ":" in first else piece)
    return "://".join(pieces) + mark + "".join(_blanked(one) for one in re.split(r"([&;#])", query))


def _halves(rest: str) -> tuple[str, str, str]:
    found = re.search(r"[?#]", rest)
    return (rest, "", "") if found is None else (rest[: found.start()], found[0], rest[found.end() :])


def _blanked(parameter: str) -> str:
    if len(parameter) < 2:
        return parameter if parameter in {"&", ";", "#", ""} else MARK
    name, given, _ = parameter.partition("=")
    if not given:
        return MARK
    return parameter if name.lower() in _PUBLIC else f"{name}={MARK}"


def _is_kind(text: str, word: re.Match[str]) -> bool:
    """Whether a word is the class of an error (`NoCredentialsError: …`): what follows says what is wrong."""
    return word[0].endswith(("Error", "Exception")) and text.startswith(": ", word.end())


def _without_named(text: str) -> str:
    """Plain text without what is given to names that speak of secrets."""
    kept, done = [], 0
    for word in _WORD.finditer(text):
        if word.start() < done:
            continue
        lower = word[0].lower()
        if _AWS_KEY.fullmatch(word[0]):
            kept.append(text[done : word.start()] + MARK)
            done = word.end()
        elif lower == "bearer" and (token := _BEARER.match(text, word.end())):
            kept.append(f"{text[done : word.end()]} {MARK}")
            done = token.end()
        elif _SPEAKS.search(lower[:200]) and not _is_kind(text, word) and (given := _GIVEN.match(text, word.end())):
            value = _VALUE.match(text, given.end())
            if value is not None:
                quote = value[0][0] if value[0][0] in "'\"" else ""
                kept.append(text[done : given.end()] + MARK + quote)
                done = value.end()
    return "".join([*kept, text[done:]])
