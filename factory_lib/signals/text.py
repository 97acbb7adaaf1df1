"""Statistics of captions."""

from __future__ import annotations

import re
from typing import NamedTuple

from factory_lib.signals.signal import signal

_FILE_NAME = re.compile(
    r"\S+\.(?:jpe?g|png|gif|webp|bmp|tiff?|svg|heic|pdf)|(?:img|dsc[nf]?|pict?|image|photo)[_\- ]?\d{2,}",
    re.IGNORECASE,
)
_URL = re.compile(r"(?:https?://|www\.)\S+", re.IGNORECASE)


class CaptionStats(NamedTuple):
    """Counts and ratios of one caption.

    Attributes:
        n_chars: code points.
        n_words: words separated by Unicode whitespace (as `str.split`).
        digit_ratio: decimal digits / characters; 0 for an empty caption.
        upper_ratio: upper-case letters / letters; 0 without letters.
        letter_ratio: letters / characters; 0 for an empty caption.
        unique_ratio: different words (case ignored) / words; 1 for an empty caption.
        longest_word: code points of the longest word.
        is_file_name: nothing but a file name such as `IMG_1234.jpg` or `DSC01234`.
        has_url: contains a URL.
    """

    n_chars: int
    n_words: int
    digit_ratio: float
    upper_ratio: float
    letter_ratio: float
    unique_ratio: float
    longest_word: int
    is_file_name: bool
    has_url: bool


@signal
def caption_stats(caption: str) -> CaptionStats:
    """Length in code points and words; ratios of digits, capitals and letters; file name or URL in place of a text."""
    words = caption.split()
    length = len(caption)
    letters = sum(map(str.isalpha, caption))
    return CaptionStats(
        n_chars=length,
        n_words=len(words),
        digit_ratio=sum(map(str.isdecimal, caption)) / length if length else 0.0,
        upper_ratio=sum(map(str.isupper, caption)) / letters if letters else 0.0,
        letter_ratio=letters / length if length else 0.0,
        unique_ratio=len({word.casefold() for word in words}) / len(words) if words else 1.0,
        longest_word=max(map(len, words), default=0),
        is_file_name=_FILE_NAME.fullmatch(caption.strip()) is not None,
        has_url=_URL.search(caption) is not None,
    )
