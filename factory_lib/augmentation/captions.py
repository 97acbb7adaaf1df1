"""Captions by a function of the user."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from factory_lib.augmentation.operation import Operation, SampleInMaking
from factory_lib.errors import QueryError
from factory_lib.signals.member import Member
from factory_lib.signals.signal import Signal, signal

_CAPTION = "caption"


@dataclass(frozen=True)
class Recaption(Operation):
    """Gives samples the caption that a function returns; None, or an error, makes none.

    Attributes:
        function: a signal of single samples that returns a text, or a function that can be one (see
            `factory_lib.signal`). It reads the caption, the picture or the values of columns.
    """

    function: Callable[..., Any]

    def __post_init__(self) -> None:
        made = self.function if isinstance(self.function, Signal) else signal(self.function)
        if made.batch or made.output.clickhouse != "Nullable(String)":
            raise QueryError(
                f"Recaption({made.name}): it returns {made.output.clickhouse}{' of batches' * bool(made.batch)}.",
                "A caption is a text of one sample: -> str, without batch=.",
            )
        object.__setattr__(self, "function", made)

    @property
    def signal(self) -> Signal:
        """The function as a signal."""
        assert isinstance(self.function, Signal)
        return self.function

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(name for name in self.signal.values if name != _CAPTION)

    def apply(self, sample: SampleInMaking, values: Mapping[str, Any]) -> SampleInMaking:
        """The sample with its new caption."""
        known = {**values, _CAPTION: sample.caption}
        given: list[Any] = []
        for wanted in self.signal.inputs:
            if wanted.kind == "value":
                value = known[wanted.column]
                if value is None and not wanted.optional:
                    raise ValueError(f"no {wanted.column}")
            elif wanted.kind == "image":
                value = sample.picture
            else:
                member = sample.member if sample.changed is None else Member(b"", sample.changed)
                value = member if wanted.kind == "member" else member.data
            given.append(value)
        caption = self.signal.ready()(*given)
        if not isinstance(caption, str):
            raise ValueError(f"{self.signal.name} gave {caption!r} in place of a caption")
        return sample.with_caption(caption)

    def __str__(self) -> str:
        return f"Recaption({self.signal.name})"
