"""Backbones: feature extractors with known strides and grids."""
