"""Depthwise convolution: the operator, and its kernels for CPUs and GPUs."""
