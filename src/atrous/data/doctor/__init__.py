"""The dataset doctor: what is wrong with images, masks and splits, and how to fix it."""
