"""The models that the graph asks about photos, by the names that `FACTORY_MODELS` has for them."""

from collections.abc import Collection, Sequence

from factory_lib.curation.basic import UNSAFE
from factory_lib.errors import SettingsError, nearest
from factory_lib.settings import models
from factory_lib.signals.models.faces import faces
from factory_lib.signals.models.photos import photo_embedding
from factory_lib.signals.models.text_area import text_area
from factory_lib.signals.models.unsafe import open_nsfw
from factory_lib.signals.signal import Signal

MODELS = {"unsafe": open_nsfw, "photo": photo_embedding, "text": text_area, "faces": faces}
SAID_BY = {open_nsfw.name: UNSAFE}
"""Column of a model -> column of a source that says the same."""


def is_asked(name: str) -> bool:
    """Whether the graph asks a model."""
    return MODELS[name] in chosen_models()


def chosen_models() -> tuple[Signal, ...]:
    """The signals of the models that `FACTORY_MODELS` names.

    Raises:
        SettingsError: it names one that there is not.
    """
    for name in models():
        if name not in MODELS:
            raise SettingsError(f"FACTORY_MODELS names {name!r}: there is no such model.", nearest(name, list(MODELS)))
    return tuple(MODELS[name] for name in models())


def not_said(signals: Sequence[Signal], columns: Collection[str]) -> list[Signal]:
    """Those signals that samples do not have from their source, under their own name or another."""
    return [one for one in signals if not {one.name, SAID_BY.get(one.name)} & set(columns)]
