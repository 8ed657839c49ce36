"""From coarse logits to labels at the image's own size: the operator, and its kernels for CPUs and GPUs."""
