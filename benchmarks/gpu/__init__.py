"""Networks, training, the dense CRF and label maps on a GPU: ``python -m benchmarks.gpu``, about a minute."""
