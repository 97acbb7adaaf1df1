"""What an operation is: a frozen value that makes one sample of another."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal

from factory_lib.signals.member import Member

if TYPE_CHECKING:
    from PIL import Image

Keeps = Literal["places", "shares", "nothing"]
"""What an operation leaves true of boxes and outlines: `places`, all of them; `shares`, those that are told in shares
of the picture's sides and not in pixels; `nothing`, none."""


@dataclass(frozen=True)
class SampleInMaking:
    """A sample between two operations.

    Attributes:
        member: the bytes that it was made of.
        caption: its caption; None where it has none.
        changed: the picture, RGB, once an operation changed pixels; None: it is that of the bytes.
    """

    member: Member
    caption: str | None = None
    changed: Image.Image | None = None

    @property
    def picture(self) -> Image.Image:
        """The picture as all of the factory sees it (see `factory_lib.pictures`); not to be written to.

        Raises:
            OSError: it does not decode.
        """
        return self.member.picture() if self.changed is None else self.changed

    def with_picture(self, picture: Image.Image) -> SampleInMaking:
        """The sample with other pixels."""
        return replace(self, changed=picture)

    def with_bytes(self, data: bytes) -> SampleInMaking:
        """The sample with other bytes that hold the same pixels."""
        return replace(self, member=Member(data))

    def with_caption(self, caption: str | None) -> SampleInMaking:
        """The sample with another caption."""
        return replace(self, caption=caption)


@dataclass(frozen=True)
class Operation(ABC):
    """Makes one sample of another. Its fields are its parameters: they and its code are part of its fingerprint."""

    @property
    def name(self) -> str:
        """Its name, such as `blur_faces`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @property
    def keeps(self) -> Keeps:
        """What stays true of boxes and outlines."""
        return "places"

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that it reads, besides picture and caption."""
        return ()

    @property
    def reads_if_there(self) -> tuple[str, ...]:
        """Columns that it reads where the samples have them."""
        return ()

    @abstractmethod
    def apply(self, sample: SampleInMaking, values: Mapping[str, Any]) -> SampleInMaking:
        """The new sample.

        Args:
            values: of the columns that it reads; None for those that are not there, or NULL.

        Raises:
            Exception: there is no new sample; the message is the reason.
        """

    def __str__(self) -> str:
        """Name and parameters, as it is written in Python."""
        return f"{type(self).__name__}({', '.join(f'{f.name}={getattr(self, f.name)!r}' for f in fields(self))})"
