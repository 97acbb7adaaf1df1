"""What heads are made of: linear layers one after the other, and those that are published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from factory_lib.errors import SignalError


@dataclass(frozen=True)
class Architecture:
    """A chain of linear layers that makes one number of a vector.

    Attributes:
        name: for messages.
        widths: how many numbers go into the first layer, and come out of each.
        rectified: how many layers, from the first on, have a ReLU behind them.
        standardised: numbers are made (x - mean) / sqrt(variance) first; mean and variance are part of the weights.
        unit: vectors are scaled to length 1 before anything else.
        output: the last layer's number, its sigmoid, or the first share of the softmax of its numbers.
        made_for: the encoder whose vectors it was trained on, for `HeadFilter(made_for=…)`.

    Raises:
        SignalError: such a chain makes no single number.
    """

    name: str
    widths: tuple[int, ...]
    rectified: int = 0
    standardised: bool = False
    unit: bool = True
    output: Literal["number", "sigmoid", "softmax"] = "number"
    made_for: str = ""

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1 or not 0 <= self.rectified < len(self.widths):
            raise SignalError(
                f"{self.name}: widths={self.widths} with {self.rectified} ReLUs are no chain of layers.",
                "Give the numbers in and out of each layer, for instance (768, 64, 1), and at most one ReLU a layer.",
            )
        if (self.widths[-1] == 1) == (self.output == "softmax"):
            raise SignalError(
                f"{self.name}: a last layer of {self.widths[-1]} with output={self.output!r} makes no score.",
                "A softmax needs two numbers or more, anything else one.",
            )

    def __fingerprint__(self) -> dict[str, str]:
        """What scores depend on: `name` and `made_for` are for people."""
        names = ("widths", "rectified", "standardised", "unit", "output")
        return {name: repr(getattr(self, name)) for name in names}

    @property
    def is_linear(self) -> bool:
        """Whether it is one dot product and a sum: no ReLU, and the last number as it is."""
        return not self.rectified and self.output == "number"

    @property
    def shown(self) -> str:
        """Its widths as text: `768-64-1`."""
        return "-".join(map(str, self.widths))


NSFW_L14 = Architecture(
    "LAION's NSFW head for ViT-L/14",
    (768, 64, 512, 256, 1),
    rectified=3,
    standardised=True,
    output="sigmoid",
    made_for="ViT-L/14",
)
"""https://github.com/LAION-AI/CLIP-based-NSFW-Detector, `clip_autokeras_binary_nsfw`; in torch as DataComp has it
(dataset2metadata's `NsfwImageWrapper`: `BatchNorm1d(768, eps=0)` first). LAION calls a picture unsafe above .5."""

NSFW_B32 = Architecture(
    "LAION's NSFW head for ViT-B/32",
    (512, 32, 32, 1),
    rectified=2,
    standardised=True,
    output="sigmoid",
    made_for="ViT-B/32",
)
"""The same repository, `clip_autokeras_nsfw_b32`."""

NSFW_H14 = Architecture(
    "LAION's NSFW head for ViT-H/14", (1024, 1024, 2048, 1024, 256, 128, 16, 1), rectified=5, made_for="ViT-H/14"
)
"""The same repository, `h14_nsfw_model.py`: no ReLU behind the last two layers, and no sigmoid."""

AESTHETIC_V1_L14 = Architecture("LAION's aesthetic head, v1, for ViT-L/14", (768, 1), made_for="ViT-L/14")
"""https://github.com/LAION-AI/aesthetic-predictor, `sa_0_4_vit_l_14_linear.pth`: about 1 to 10."""

AESTHETIC_V1_B32 = Architecture("LAION's aesthetic head, v1, for ViT-B/32", (512, 1), made_for="ViT-B/32")
"""The same repository, `sa_0_4_vit_b_32_linear.pth`."""

AESTHETIC_V2_L14 = Architecture(
    "LAION's aesthetic head, v2, for ViT-L/14", (768, 1024, 128, 64, 16, 1), made_for="ViT-L/14"
)
"""https://github.com/christophschuhmann/improved-aesthetic-predictor, `sac+logos+ava1-l14-linearMSE.pth`: trained
without activations, so that its five layers are one."""

WATERMARK = Architecture(
    "LAION's watermark head",
    (1536, 625, 256, 2),
    rectified=2,
    unit=False,
    output="softmax",
    made_for="efficientnet_b3a",
)
"""https://github.com/LAION-AI/LAION-5B-WatermarkDetection: the `classifier` behind timm's `efficientnet_b3a`, whose
1,536 pooled features of pictures of 256 x 256 it reads. LAION calls a picture watermarked above .8."""
