"""Surgery on existing networks: output stride, fully connected layers made convolutional, and the tracer both use."""
