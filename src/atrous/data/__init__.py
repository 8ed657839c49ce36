"""Datasets, decoding, augmentation and loading."""

from atrous.data.dataset import Dataset, PairedDataset, Sample, dataset_extras, dataset_name, subset
from atrous.data.doctor.check import check
from atrous.data.doctor.in_memory import check_dataset, check_datasets
from atrous.data.extras import Extras
from atrous.data.files.image_form import ImageForm
from atrous.data.opening import open_dataset
from atrous.data.sources.registry import register_dataset
from atrous.data.wrap import wrap
from atrous.errors import DatasetError

__all__ = [
    "Dataset",
    "DatasetError",
    "Extras",
    "ImageForm",
    "PairedDataset",
    "Sample",
    "check",
    "check_dataset",
    "check_datasets",
    "dataset_extras",
    "dataset_name",
    "open_dataset",
    "register_dataset",
    "subset",
    "wrap",
]
