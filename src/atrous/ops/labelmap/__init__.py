"""Labels at the image's own size from coarse logits: the operator, and its kernels for CPUs and GPUs."""
