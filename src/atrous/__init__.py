"""Atrous: FCN, DeepLab, Attention to Scale and DeepLabv3+ as one toolkit for semantic segmentation."""
