"""Mean field on a CPU: a lattice built strip by strip, and compiled kernels."""
