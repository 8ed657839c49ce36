"""Backbones: feature extractors whose feature maps have known strides and grids."""

from atrous.models.backbones.base import Backbone
from atrous.models.backbones.timm import TimmBackbone
from atrous.models.backbones.traced import TracedBackbone
from atrous.models.backbones.transformer import TransformerBackbone

__all__ = ["Backbone", "TimmBackbone", "TracedBackbone", "TransformerBackbone"]
