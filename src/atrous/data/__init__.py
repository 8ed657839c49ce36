"""Datasets, decoding, augmentation and loading."""

from atrous.data.dataset import Dataset, PairedDataset, Sample
from atrous.data.extras import Extras
from atrous.data.opening import open_dataset
from atrous.errors import DatasetError

__all__ = ["Dataset", "DatasetError", "Extras", "PairedDataset", "Sample", "open_dataset"]
