"""labelme's own export of masks in VOC's folders (``labelme2voc.py``): ``class_names.txt`` has the classes."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.data.sources.annotated import BACKGROUND, UnsplitMasks
from atrous.data.sources.base import Listed
from atrous.data.sources.names import read_lines, visible
from atrous.errors import DatasetError, InputError
from atrous.labels import LabelSet

CLASSES = "class_names.txt"


class LabelmeMasks(UnsplitMasks):
    """``class_names.txt``, ``JPEGImages/NAME.jpg`` and ``SegmentationClass/NAME.png``; ``__ignore__`` is 255."""

    kind = "labelme"

    def __init__(self, root: Path) -> None:
        self.root = root
        names = [name for name in read_lines(root / CLASSES, root) if name != "__ignore__"]
        names = ["background" if name in BACKGROUND else name for name in names]
        try:
            self.mask_form = MaskForm(LabelSet(tuple(names)), orientation="upright")
        except InputError as error:
            raise DatasetError(f"{root / CLASSES}: {error}") from error

    @cached_property
    def pairs(self) -> list[Listed]:
        masks = visible((self.root / "SegmentationClass").glob("*.png"))
        images = self.root / "JPEGImages"
        return [Listed(mask.stem, images / f"{mask.stem}.jpg", MaskFile(mask)) for mask in masks]
