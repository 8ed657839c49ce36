"""PASCAL-Context (Mottaghi et al., CVPR 2014): the 59 classes of its task and a background."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.data.files.matlab import MatlabMask, whole_numbers
from atrous.data.sources.base import MatlabSource, voc_2010_folders
from atrous.errors import DatasetError
from atrous.label_sets import PASCAL_CONTEXT
from atrous.labels import Mask

ANNOTATED_NUMBERS = {
    "aeroplane": 2,
    "bicycle": 23,
    "bird": 25,
    "boat": 31,
    "bottle": 34,
    "bus": 45,
    "car": 59,
    "cat": 65,
    "chair": 72,
    "cow": 98,
    "diningtable": 397,
    "dog": 113,
    "horse": 207,
    "motorbike": 258,
    "person": 284,
    "pottedplant": 308,
    "sheep": 347,
    "sofa": 368,
    "train": 416,
    "tvmonitor": 427,
    "bag": 9,
    "bed": 18,
    "bench": 22,
    "book": 33,
    "building": 44,
    "cabinet": 46,
    "ceiling": 68,
    "clothes": 80,
    "computer": 85,
    "cup": 104,
    "door": 115,
    "fence": 144,
    "floor": 158,
    "flower": 159,
    "food": 162,
    "grass": 187,
    "ground": 189,
    "keyboard": 220,
    "light": 232,
    "mountain": 259,
    "mouse": 260,
    "curtain": 105,
    "platform": 296,
    "sign": 355,
    "plate": 295,
    "road": 324,
    "rock": 326,
    "shelves": 349,
    "sidewalk": 354,
    "sky": 360,
    "snow": 366,
    "bedcloth": 19,
    "track": 415,
    "tree": 420,
    "truck": 424,
    "wall": 440,
    "water": 445,
    "window": 454,
    "wood": 458,
}
"""The number of each of the 59 classes among the 459 that were annotated. Three have another name there: diningtable is
table, bedcloth is bedclothes, and clothes is cloth.
"""
ANNOTATED_CLASSES = 459


class PascalContext(MatlabSource):
    """PASCAL-Context with 59 classes and a background: ``trainval/2008_000002.mat`` beside or in a ``VOC2010`` folder
    with ``JPEGImages`` and ``ImageSets/Main``. PNG masks contain the classes, 0–59, or their VOC colours.
    """

    kind = "pascalcontext"

    def __init__(self, root: Path) -> None:
        self.root = root
        places = voc_2010_folders(root)
        base = next((place for place in places if (place / "JPEGImages").is_dir()), None)
        masks = next((place / "trainval" for place in (root, *places) if (place / "trainval").is_dir()), None)
        if base is None or masks is None:
            raise DatasetError(
                f"{root} is not a PASCAL-Context dataset: expected trainval with its .mat files, and VOC2010 with "
                "JPEGImages and ImageSets/Main, in it"
            )
        self.images, self.masks, self.lists = base / "JPEGImages", masks, base / "ImageSets" / "Main"
        self.require_scipy()
        self.mask_form = MaskForm(PASCAL_CONTEXT, known_colors=True)
        image = next(iter(sorted(masks.glob("*.png"))), None)
        if image and MaskFile(image).open().image.mode == "RGB":
            self.mask_form = replace(self.mask_form, encoding="rgb")

    def matrix(self, file: Path) -> MatlabMask:
        return MatlabMask(file, "LabelMap", task_classes)


def task_classes(numbers: NDArray[Any]) -> Mask:
    """The classes of the task ``(H, W)``, from the numbers of all annotated classes; others become background.

    Raises:
        MatrixError: other numbers than 0 to 459.
    """
    classes = np.zeros(ANNOTATED_CLASSES + 1, np.uint8)
    classes[list(ANNOTATED_NUMBERS.values())] = np.arange(1, len(ANNOTATED_NUMBERS) + 1)
    mask: Mask = classes[whole_numbers(numbers, ANNOTATED_CLASSES)]
    return mask
