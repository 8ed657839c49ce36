"""Mean field on a GPU: mean_field.py is the door, the kernels are in Triton."""
