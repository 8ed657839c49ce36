"""PASCAL-Person-Part (Chen et al., CVPR 2014; Attention to Scale, section 5.1): six parts of persons, a background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.matlab import MatlabMask, MatrixError
from atrous.data.sources.base import MatlabSource, voc_2010_folders
from atrous.errors import DatasetError
from atrous.label_sets import PERSON_PART
from atrous.labels import Mask

PARTS = {
    "head": "head leye reye lear rear lebrow rebrow nose mouth hair".split(),
    "torso": "torso neck".split(),
    "upper arms": "luarm ruarm".split(),
    "lower arms": "llarm rlarm lhand rhand".split(),
    "upper legs": "luleg ruleg".split(),
    "lower legs": "llleg rlleg lfoot rfoot".split(),
}
"""The 24 parts of a person in PASCAL-Part that make up each class. The papers do not say where the neck belongs;
here it is part of the torso, as usual.
"""
CLASS_OF_PART = {part: PERSON_PART.names.index(name) for name, parts in PARTS.items() for part in parts}


class PersonPart(MatlabSource):
    """PASCAL-Person-Part with 7 classes: ``Annotations_Part/2008_000003.mat`` of PASCAL-Part, where the parts of
    persons are merged, or PNG masks of the classes, 0–6, in ``pascal_person_part_gt``; images in ``JPEGImages`` of
    VOC 2010; ``train.txt`` and ``val.txt``, also in ``pascal_person_part_trainval_list``.
    """

    kind = "personpart"
    mask_form = MaskForm(PERSON_PART, known_colors=True)

    def __init__(self, root: Path) -> None:
        self.root = root
        places = (root, root / "pascal_person_part", *voc_2010_folders(root)[1:])
        inside = [place / name for name in ("pascal_person_part_gt", "Annotations_Part") for place in places]
        lists = [place / name for place in places for name in (".", "pascal_person_part_trainval_list")]
        images = next((place / "JPEGImages" for place in places if (place / "JPEGImages").is_dir()), None)
        masks = next((folder for folder in inside if folder.is_dir()), None)
        if images is None or masks is None:
            raise DatasetError(
                f"{root} is not a PASCAL-Person-Part dataset: expected Annotations_Part with its .mat files (or "
                "pascal_person_part_gt with PNGs), VOC2010 with JPEGImages, train.txt and val.txt in it"
            )
        self.images, self.masks = images, masks
        self.lists = next((place for place in lists if (place / "train.txt").is_file()), root)
        self.require_scipy()

    def matrix(self, file: Path) -> MatlabMask:
        return MatlabMask(file, "anno", merge_parts, same_size=False)


def merge_parts(annotation: NDArray[Any]) -> Mask:
    """The classes ``(H, W)`` from an annotation of PASCAL-Part; where persons overlap, later parts cover earlier ones.

    Raises:
        MatrixError: not such an annotation.
    """
    try:
        (annotated,) = annotation.ravel()
        things = annotated["objects"].ravel()
        mask: Mask = np.zeros(things[0]["mask"].shape, np.uint8)
        for person in (thing for thing in things if thing["class"].item() == "person"):
            for part in person["parts"].ravel():
                mask[part["mask"] > 0] = CLASS_OF_PART[part["part_name"].item()]
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise MatrixError(
            f"is not as in PASCAL-Part ({type(error).__name__}: {error}); expected objects with class, mask and parts, "
            f"and of a person the parts {', '.join(CLASS_OF_PART)}"
        ) from error
    return mask
