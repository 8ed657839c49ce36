"""Public weights of other programs, brought here as models of ours: each parameter of a file used once, or named."""
