"""Datasets, decoding, augmentation and loading."""

from atrous.data.dataset import Dataset, DatasetError, PairedDataset, Sample, open_dataset

__all__ = ["Dataset", "DatasetError", "PairedDataset", "Sample", "open_dataset"]
