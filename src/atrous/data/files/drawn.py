"""Masks that are drawn from the shapes of an annotation tool when they are opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from PIL import Image

from atrous.data.files.images import image_size
from atrous.data.files.masks import DecodedMask, MaskHeader, MaskRef
from atrous.data.files.shapes import Overlap, Scene, paint
from atrous.errors import InputError


@dataclass(frozen=True)
class DrawnMask(MaskRef):
    """The mask of an image, drawn from the shapes that an annotation tool has for it.

    Args:
        path: the file of annotations.
        image: which of its images; empty if it has one.
        image_file: the image, which has the size where the annotations have none.
        read: the file and the image → its shapes; a function of a module, which worker processes find by its name.
        classes: the label of each class's name.
        overlap: which of two shapes lies over the other (:func:`atrous.data.files.shapes.paint`).
        base: the label of pixels of no shape.
        optional: whether an image without a file of annotations has no shapes, as for YOLO.
    """

    image: str
    image_file: Path = field(compare=False)
    read: Callable[[Path, str], Scene] = field(repr=False, compare=False)
    classes: Mapping[str, int] = field(repr=False, compare=False)
    overlap: Overlap
    base: int = 0
    optional: bool = False
    expected: ClassVar[str] = "annotations"

    def __str__(self) -> str:
        return f"{self.path}, image {self.image}" if self.image else str(self.path)

    def exists(self) -> bool:
        return self.optional or super().exists()

    def scene(self) -> Scene:
        """Its shapes.

        Raises:
            InputError: they can't be read.
        """
        scene = self.read(self.path, self.image)
        if scene.height:
            return scene
        height, width = image_size(self.image_file)
        return replace(scene, height=height, width=width)

    def header(self) -> MaskHeader:
        scene = self.scene()
        return MaskHeader((scene.height, scene.width))

    def decode(self) -> DecodedMask:
        scene = self.scene()
        if scene.refused:
            raise InputError(
                f"{', '.join(scene.refused)}: shapes without an area of their own, from which no mask can be drawn; "
                "draw these objects as polygons or with the brush, or take the shapes out and export again"
            )
        return DecodedMask(str(self), Image.fromarray(paint(scene, self.classes, self.overlap, self.base)))
