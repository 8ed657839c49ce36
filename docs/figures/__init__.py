"""The figures of the documentation, drawn from our own networks: ``python -m docs.figures [NAME ...]``.

The image is the one of ``atrous demo``, a portrait of 1984 by the US Navy (public domain) that matplotlib ships; the
trained network is the bundled one. Nothing is downloaded.
"""
