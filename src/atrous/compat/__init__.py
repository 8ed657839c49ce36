"""Other packages' interfaces over this package's code: change an import, keep the script."""
