"""Cityscapes (Cordts et al., CVPR 2016): 19 classes, from ids of labels, training or instances, or polygons."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from atrous.data.files.drawn import DrawnMask
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile, MaskRef
from atrous.data.files.shapes import Scene
from atrous.data.sources import mapillary
from atrous.data.sources.base import Listed, PublishedSource
from atrous.data.sources.names import folders_in, require_split, visible
from atrous.errors import DatasetError
from atrous.label_sets import CITYSCAPES

LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The label id of each of the 19 classes; pixels of all other ids are ignored."""
LAST_LABEL_ID = 33
"""Ids begin at 0; -1, the licence plate, is 255 in a mask."""
NAMES = (
    "unlabeled, ego vehicle, rectification border, out of roi, static, dynamic, ground, road, sidewalk, parking, "
    "rail track, building, wall, fence, guard rail, bridge, tunnel, pole, polegroup, traffic light, traffic sign, "
    "vegetation, terrain, sky, person, rider, car, truck, bus, caravan, trailer, train, motorcycle, bicycle"
).split(", ")
"""The name of each label id, from 0 on, as in polygons."""
PLATE = "license plate"
ENDINGS = ("labelIds.png", "labelTrainIds.png", "polygons.json", "instanceIds.png")
"""Of masks, of which the first that there is counts."""


def read_polygons(file: Path, image: str) -> Scene:
    """The polygons of an image, drawn as Cityscapes' scripts draw the label ids: in their order, by Pillow. Several
    objects that could not be told apart (``cargroup``) are of the class; license plates are not drawn.

    Raises:
        InputError: not in this form.
    """
    scene = mapillary.read_polygons(file, image)
    shapes = [
        shape if shape.name in NAMES else shape._replace(name=shape.name.removesuffix("group"))
        for shape in scene.shapes
        if shape.name != PLATE
    ]
    return replace(scene, shapes=tuple(shapes))


class Cityscapes(PublishedSource):
    """Cityscapes with 19 classes: ``leftImg8bit/train/aachen/NAME_leftImg8bit.png`` and
    ``gtFine/train/aachen/NAME_gtFine_labelIds.png``, or ``_labelTrainIds.png``, ``_polygons.json`` or
    ``_instanceIds.png``. The masks of
    ``train_extra`` are in ``gtCoarse``.
    """

    kind = "cityscapes"

    def __init__(self, root: Path) -> None:
        self.root, self.images = root, root / "leftImg8bit"
        if not self.images.is_dir() or not (root / "gtFine").is_dir():
            raise DatasetError(f"{root} is not a Cityscapes dataset: expected leftImg8bit and gtFine in it")
        there = [ending for ending in ENDINGS if next(root.glob(f"gtFine/*/*/*_{ending}"), None)]
        self.ending = there[0] if there else ENDINGS[1]
        others = tuple(value for value in range(LAST_LABEL_ID + 1) if value not in LABEL_IDS)
        by_ids = MaskForm(CITYSCAPES, values=LABEL_IDS, ignore=others)
        self.mask_form = MaskForm(CITYSCAPES) if self.ending == ENDINGS[1] else by_ids
        if self.ending == ENDINGS[3]:
            self.mask_form = replace(by_ids, encoding="objects", divisor=1000)

    def splits(self) -> list[str]:
        return [split for split in folders_in(self.images) if split != "test"]  # which has no labels

    def list_file(self, split: str) -> Path:
        return self.images / split

    def listed(self, split: str) -> list[Listed]:
        if split == "test":
            raise DatasetError(
                f"{self.root}: Cityscapes publishes no labels of its test images; evaluate on val, or predict them: "
                f'atrous predict "{self.images}/test/*/*.png"'
            )
        require_split(self.images / split, self.splits())
        masks = "gtCoarse" if split == "train_extra" else "gtFine"
        pairs = []
        for image in visible((self.images / split).glob("*/*_leftImg8bit.png")):
            name = image.name.removesuffix("_leftImg8bit.png")
            file = self.root / masks / split / image.parent.name / f"{name}_{masks}_{self.ending}"
            pairs.append(Listed(name, image, self._mask(file, image)))
        return pairs

    def _mask(self, file: Path, image: Path) -> MaskRef:
        if file.suffix == ".png":
            return MaskFile(file)
        return DrawnMask(file, "", image, read_polygons, {name: value for value, name in enumerate(NAMES)}, "last")
