"""Reading the file formats of other programs without these programs."""
