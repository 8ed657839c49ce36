"""Operators with compiled kernels for CPUs and GPUs, and what the kernels share."""
