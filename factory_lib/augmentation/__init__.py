"""Operations that make new samples of samples: faces blurred, metadata cut out, other sizes, mirrored, recaptioned."""

from factory_lib.augmentation.blurring import BlurFaces
from factory_lib.augmentation.captions import Recaption
from factory_lib.augmentation.cropping import CenterCrop, CropToBox, RandomCrop
from factory_lib.augmentation.encoding import Encoding
from factory_lib.augmentation.flipping import HorizontalFlip
from factory_lib.augmentation.metadata import StripExif
from factory_lib.augmentation.operation import Operation
from factory_lib.augmentation.resizing import Resize

__all__ = [
    "BlurFaces",
    "CenterCrop",
    "CropToBox",
    "Encoding",
    "HorizontalFlip",
    "Operation",
    "RandomCrop",
    "Recaption",
    "Resize",
    "StripExif",
]
