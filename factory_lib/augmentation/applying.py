"""Operations one after the other, as something that workers compute: a signal from a picture to the new sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from factory_lib.augmentation.encoding import USUAL_EXTENSION, Encoding
from factory_lib.augmentation.operation import Keeps, Operation, SampleInMaking
from factory_lib.errors import ColumnNotFound, QueryError, nearest
from factory_lib.signals.inputs import Input
from factory_lib.signals.member import Member
from factory_lib.signals.outputs import output_of
from factory_lib.signals.signal import Signal

IMAGE, CAPTION = "image", "caption"
MADE = "made"
"""Name of the signal."""
_KEEPS: Sequence[Keeps] = ("places", "shares", "nothing")


class MadeSample(NamedTuple):
    """What became of a sample.

    Attributes:
        data: the bytes of its picture.
        extension: of a file with such bytes.
        width, height: of the picture as it is stored, in pixels.
        caption: its caption; None where there is none.
    """

    data: bytes
    extension: str
    width: np.uint32
    height: np.uint32
    caption: str | None


_OUTPUT = output_of(MadeSample, f"signal {MADE!r}")
"""Taken when the module is imported: that settles the annotations of the class, and has to be so in workers, too."""


@dataclass(frozen=True)
class Augmentation:
    """Operations in their order, and how what comes out is written.

    Attributes:
        operations: what is done.
        encoding: of pictures whose pixels change; the others keep their bytes.
        columns: those whose values are given, after picture and caption.
    """

    operations: tuple[Operation, ...]
    encoding: Encoding
    columns: tuple[str, ...]

    @classmethod
    def over(cls, operations: Sequence[Operation], encoding: Encoding, columns: Collection[str]) -> Augmentation:
        """The augmentation of samples with some columns.

        Raises:
            QueryError: there is no operation, or something else than one.
            ColumnNotFound: an operation reads a column that is not there.
        """
        if not operations:
            raise QueryError("No operation is given.", "For instance HorizontalFlip(), of factory_lib.augmentation.")
        for one in operations:
            if not isinstance(one, Operation):
                raise QueryError(f"{one!r} is no operation.", "They are in factory_lib.augmentation: BlurFaces(), …")
            for name in (IMAGE, *one.reads):
                if name not in columns:
                    raise ColumnNotFound(
                        f"{one} reads the column {name!r}, which is not there.", nearest(name, columns)
                    )
        wanted = dict.fromkeys(name for one in operations for name in (*one.reads, *one.reads_if_there))
        return cls(tuple(operations), encoding, tuple(name for name in wanted if name in columns))

    @property
    def name(self) -> str:
        """Names of the operations, joined: `blur_faces-strip_exif`."""
        return "-".join(one.name for one in self.operations)

    @property
    def keeps(self) -> Keeps:
        """What stays true of boxes and outlines."""
        return max((one.keeps for one in self.operations), key=_KEEPS.index)

    def signal(self, columns: Collection[str]) -> Signal:
        """What workers compute. Its fingerprint is that of the operations: their code, parameters and libraries.

        Args:
            columns: of the samples; one without captions gets none.
        """
        captions = (CAPTION,) if CAPTION in columns else ()
        inputs = [Input(IMAGE, IMAGE, "member")]
        inputs += [Input(name, name, "value", optional=True) for name in (*captions, *self.columns)]
        target = _Applied(self, bool(captions))
        return Signal(MADE, target, tuple(inputs), _OUTPUT)

    def apply(self, image: Member, caption: str | None, values: Mapping[str, Any]) -> MadeSample:
        """The new sample.

        Args:
            values: of the columns that operations read.

        Raises:
            Exception: there is none; the message is the reason.
        """
        image.picture()  # a picture that does not decode is no sample, whatever is done to it
        sample = SampleInMaking(image, caption)
        for one in self.operations:
            sample = one.apply(sample, values)
        header = sample.member.header()
        if sample.changed is None:
            data, extension = sample.member.data, USUAL_EXTENSION[header.format]
            width, height = header.width, header.height
        else:
            data, extension = self.encoding.encode(sample.changed, header.format)
            width, height = sample.changed.size
        return MadeSample(data, extension, np.uint32(width), np.uint32(height), sample.caption)

    def __str__(self) -> str:
        return " | ".join(map(str, self.operations))


@dataclass(frozen=True)
class _Applied:
    """The augmentation as a function of a row.

    Attributes:
        has_caption: whether a caption is given, before the values of the columns.
    """

    augmentation: Augmentation
    has_caption: bool

    def __call__(self, image: Member, *given: Any) -> MadeSample:
        caption, values = (given[0], given[1:]) if self.has_caption else (None, given)
        return self.augmentation.apply(image, caption, dict(zip(self.augmentation.columns, values, strict=True)))
