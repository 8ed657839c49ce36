"""Serving models over HTTP: an endpoint, the shapes that other tools speak, and a page to try a model on."""
