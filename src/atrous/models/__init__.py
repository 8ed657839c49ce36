"""Models: one paper, one file."""

from atrous.models import deeplabv3, fcn
from atrous.models.base import ARCHITECTURES, SegmentationModel, create_model
from atrous.models.zoo import load

__all__ = ["ARCHITECTURES", "SegmentationModel", "create_model", "deeplabv3", "fcn", "load"]
