"""Hugging Face ``datasets``: a folder that ``save_to_disk`` wrote, or of Parquet files, with two columns of images."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from atrous.data.dataset import Dataset
from atrous.data.sources.labels_toml import read_form
from atrous.data.sources.names import did_you_mean, drawn_for_validation, usual_split
from atrous.data.wrap import wrap
from atrous.errors import DatasetError
from atrous.labels import IGNORE

IMAGES = ("image", "pixel_values", "img", "photo")
MASKS = ("mask", "label", "labels", "annotation", "segmentation", "semantic_mask", "seg", "gt")
"""Names of the columns, of which the first that there is counts."""


def open_huggingface(path: str, split: str) -> Dataset:
    """Open a split of ``hf:PATH``; the classes are those of a ``labels.toml`` in the folder.

    Raises:
        DatasetError: it is not such a folder, datasets is not installed, or a split, column or class is missing.
    """
    root = Path(path).expanduser()
    rows = _split(_load(root), split, path)
    columns = {name: feature for name, feature in rows.features.items() if type(feature).__name__ == "Image"}
    image = next((name for name in IMAGES if name in columns), None)
    mask = next((name for name in MASKS if name in columns), None)
    if image is None or mask is None:
        raise DatasetError(
            f"hf:{path} has the columns {', '.join(rows.features)}; expected two of images, called one of "
            f"{', '.join(IMAGES)} and one of {', '.join(MASKS)}: rename_column and save_to_disk"
        )
    labels = root / "labels.toml"
    if not labels.is_file():
        raise DatasetError(f'hf:{path} does not name its classes; write {labels}: names = ["background", …]')
    form = read_form(labels)
    if form.encoding != "index" or form.values:
        raise DatasetError(f"{labels} has an encoding or values, which can't be used here; the values are the classes")
    ignored = tuple(value for value in form.ignore if isinstance(value, int))
    return wrap(rows, form.label_set, image=image, mask=mask, name=f"hf:{split}", ignore=(*ignored, IGNORE))


def _load(root: Path) -> Mapping[str, Any]:
    """The splits of a folder."""
    try:
        import datasets
    except ImportError as error:
        raise DatasetError(f"hf:{root} needs Hugging Face's datasets: pip install 'atrous[hf]'") from error
    if not root.is_dir():
        raise DatasetError(
            f"hf:{root} is not a folder; a dataset of the hub is stored in one by "
            f"datasets.load_dataset('{root}').save_to_disk('FOLDER')"
        )
    try:
        if (root / "dataset_dict.json").is_file() or (root / "dataset_info.json").is_file():
            found = datasets.load_from_disk(str(root))
        else:
            found = datasets.load_dataset("parquet", data_dir=str(root))
    except Exception as error:  # of pyarrow, or of datasets, which has errors of many kinds
        raise DatasetError(
            f"hf:{root} can't be read ({error}); expected a folder of save_to_disk, or Parquet files"
        ) from error
    return found if isinstance(found, Mapping) else {"": found}


def _split(found: Mapping[str, Any], split: str, path: str) -> Any:
    there = {usual_split(name): rows for name, rows in found.items()}
    if split in there:
        return there[split]
    if len(there) == 1 and split in ("train", "val", "all"):
        (rows,) = there.values()
        chosen = [
            row for row in range(len(rows)) if split == "all" or drawn_for_validation(str(row)) == (split == "val")
        ]
        return rows.select(chosen)
    raise DatasetError(
        f"hf:{path} has no split '{split}'{did_you_mean(split, there)}; available splits: {', '.join(there)}"
    )
