"""Hasty's export "Semantic Segmentation (png images)": ``label_classes.json`` has the value of each class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from atrous.data.files.documents import form_of, parsed, read_json
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.data.sources.annotated import BACKGROUND, VOID, ImageFinder, UnsplitMasks, hex_color
from atrous.data.sources.base import Listed
from atrous.data.sources.names import visible
from atrous.errors import DatasetError, InputError
from atrous.labels import LabelSet

CLASSES = "label_classes.json"
FORM = "Hasty's label_classes.json: a list of classes, each with png_index, class_name and color"


class HastyMasks(UnsplitMasks):
    """``label_classes.json`` and ``DATASET/NAME.png``, grey masks in which 0 is the background. The export has no
    images: they are put into ``images/DATASET``, or into ``images``.
    """

    kind = "hasty"

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / "images").is_dir():
            raise DatasetError(
                f"{root} has {CLASSES} and no folder images: the export has masks alone; put the project's images into "
                f"{root / 'images'}, under the names that they have in Hasty"
            )
        self.mask_form = parsed(root / CLASSES, read_classes)

    @cached_property
    def pairs(self) -> list[Listed]:
        images: dict[str, list[Path]] = {}
        for image in ImageFinder(self.root / "images").every():
            images.setdefault(image.stem, []).append(image)
        masks = [mask for mask in visible(self.root.glob("**/*.png")) if self.root / "images" not in mask.parents]
        return [self._pair(mask, images.get(mask.stem, [])) for mask in masks]

    def _pair(self, mask: Path, images: Sequence[Path]) -> Listed:
        """A mask with its image, one of those that have its name, beside others of the same folder."""
        name = mask.relative_to(self.root).with_suffix("").as_posix()
        found = [image for image in images if image.parent.name == mask.parent.name] or images
        if len(found) > 1:
            raise DatasetError(f"{mask} may belong to any of {', '.join(map(str, found[:3]))}; put them into folders")
        return Listed(name, found[0] if found else self.root / "images" / f"{name}.jpg", MaskFile(mask))

    def unlisted_images(self) -> list[Path]:
        listed = {pair.image for pair in self.pairs}
        return [image for image in ImageFinder(self.root / "images").every() if image not in listed]


def read_classes(file: Path) -> MaskForm:
    """How masks are written, by a ``label_classes.json``.

    Raises:
        InputError: not in Hasty's form.
    """
    with form_of(FORM):
        rows = {int(row["png_index"]): row for row in read_json(file)}
        kept = {0: ("background", (0, 0, 0))}
        for value, row in sorted(rows.items()):
            called = row["class_name"].lower()
            if called in BACKGROUND and value != 0:
                raise InputError(
                    f"{row['class_name']} has png_index {value}, expected 0, the value of pixels without a class; give "
                    "it 0 in Hasty, or another name here, to merge both with a class table (--classes)"
                )
            if called not in BACKGROUND | VOID:
                kept[value] = row["class_name"], hex_color((row.get("color") or "#808080")[:7])
        if len(kept) < 2 or not 0 <= min(rows) <= max(rows) <= 255:
            raise InputError(f"{len(kept) - 1} classes with values {', '.join(map(str, sorted(rows)))}")
        names, colors = zip(*kept.values(), strict=True)
        void = tuple(value for value, row in rows.items() if row["class_name"].lower() in VOID)
        return MaskForm(LabelSet(names, colors), values=tuple(kept), ignore=void, orientation="upright")
