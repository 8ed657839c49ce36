"""Mean field on a GPU, in Triton."""
