"""Models: one paper, one file."""

from atrous.models import attention_to_scale, deeplab, deeplabv3, fcn
from atrous.models.base import SegmentationModel
from atrous.models.loading import load
from atrous.models.registry import ARCHITECTURES, create_model

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
