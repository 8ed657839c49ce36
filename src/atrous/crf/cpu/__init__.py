"""Mean field on a CPU: mean_field.py is the door, strips.py builds the lattices, the kernels are compiled."""
