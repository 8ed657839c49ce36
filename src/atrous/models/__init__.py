"""Models: one paper, one file."""

from atrous.models import light_import

light_import.import_timm()

from atrous.models import attention_to_scale, deeplab, deeplabv3, fcn
from atrous.models.base import SegmentationModel
from atrous.models.create import create_model
from atrous.models.loading import load
from atrous.models.registry import ARCHITECTURES, register_backbone, register_model

__all__ = [
    "ARCHITECTURES",
    "SegmentationModel",
    "attention_to_scale",
    "create_model",
    "deeplab",
    "deeplabv3",
    "fcn",
    "load",
    "register_backbone",
    "register_model",
]
