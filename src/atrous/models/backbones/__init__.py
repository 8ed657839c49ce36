"""Backbones: feature extractors whose feature maps have known strides and grids."""

from atrous.models.backbones.base import Backbone
from atrous.models.backbones.timm import TimmBackbone

__all__ = ["Backbone", "TimmBackbone"]
