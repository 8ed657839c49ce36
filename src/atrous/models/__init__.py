"""Models: one paper, one file."""

from atrous.models import attention_to_scale, deeplab, deeplabv3, fcn
from atrous.models.base import SegmentationModel
from atrous.models.registry import ARCHITECTURES, create_model
from atrous.models.zoo import load

__all__ = [
    "ARCHITECTURES",
    "SegmentationModel",
    "attention_to_scale",
    "create_model",
    "deeplab",
    "deeplabv3",
    "fcn",
    "load",
]
