"""From the tensors of a file to a model, by architecture."""
