"""Segmenting images: one image, many files, test-time views, and any program's predictions with a CRF."""
