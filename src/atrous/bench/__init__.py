"""What a model costs on this machine: each runtime and precision in a process of its own, and where its time goes."""
