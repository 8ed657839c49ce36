"""Dataset sources: one dataset or annotation tool per file."""
