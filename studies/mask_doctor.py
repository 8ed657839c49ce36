"""The mask doctor's report on twenty VOC images as a folder dataset with every mistake that the doctor knows.

    python -m studies.mask_doctor path/to/VOCdevkit

The report is written to results/doctor.md.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.data.opening import open_dataset
from atrous.labels import LabelSet, encode_mask
from studies.results import RESULTS, Result, Section, origin_of

COMMAND = "python -m studies.mask_doctor VOCdevkit"
ORIENTATION = 0x0112
"""The EXIF tag."""
ImageAndMask = tuple[np.ndarray, np.ndarray]
MISTAKES = "missing shared size binary far rgb strange jpeg jpg outside void image mask stored upright half".split()
"""The mistakes, one for each of the first images."""
TURNS = {
    "stored": (6, Image.Transpose.ROTATE_90),
    "upright": (8, Image.Transpose.ROTATE_270),
    "half": (3, Image.Transpose.ROTATE_180),
}
"""EXIF orientation, and how the image is stored then."""
STRANGE = np.array([(250, 250, 5), (5, 120, 250), (90, 20, 5)], np.uint8)
"""Colours of no class."""


class Spoiler:
    """Writes twenty images as a folder dataset and makes each mistake on one of them."""

    def __init__(self, images: Mapping[str, ImageAndMask], label_set: LabelSet, root: Path) -> None:
        self.images, self.label_set, self.root = images, label_set, root
        self.spoilt = dict(zip(MISTAKES, images, strict=False))
        self.twin, self.both, self.good, self.other = list(images)[16:20]

    def mask_file(self, mistake: str) -> Path:
        return self.root / "masks" / f"{self.spoilt[mistake]}.png"

    def mask(self, mistake: str) -> np.ndarray:
        return self.images[self.spoilt[mistake]][1]

    def write(self, mistake: str, mask: np.ndarray) -> None:
        """Replace a mask by other labels."""
        write_mask(self.root, self.spoilt[mistake], mask, self.label_set)

    def spoil_files(self) -> None:
        """Missing, surplus, truncated and wrongly named files."""
        self.mask_file("missing").unlink()
        shutil.copy(self.mask_file("shared"), self.root / "masks/nobody's.png")
        shared = self.spoilt["shared"]
        Image.fromarray(self.images[shared][0]).save(self.root / f"images/{shared}.png")
        truncate(self.root / f"images/{self.spoilt['image']}.jpg")
        truncate(self.mask_file("mask"))
        write_image(self.root, "nowhere", self.images[self.other][0])

    def spoil_masks(self) -> None:
        """Masks of the wrong size, form or content."""
        self.write("size", self.mask("size")[::2, ::2])
        self.write("void", np.full_like(self.mask("void"), 255))
        outside = self.mask("outside").copy()
        outside[:5, :7] = len(self.label_set) + 1
        self.write("outside", outside)
        for mistake, value in (("binary", 255), ("far", 128)):
            drawn = np.where(self.mask(mistake) % 255 > 0, value, 0).astype(np.uint8)
            Image.fromarray(drawn).save(self.mask_file(mistake))
        Image.fromarray(STRANGE[self.mask("strange") % 3]).save(self.mask_file("strange"))

    def spoil_formats(self) -> None:
        """Masks in colours, and as JPEG."""
        for mistake in ("rgb", "jpeg", "jpg"):
            coloured = Image.fromarray(self.label_set.colorize(self.mask(mistake)))
            suffix = ".jpg" if mistake == "jpg" else ".png"
            self.mask_file(mistake).unlink()
            coloured.save(self.mask_file(mistake).with_suffix(suffix), "PNG" if mistake == "rgb" else "JPEG")

    def turn_images(self) -> None:
        """Images with an EXIF orientation, and masks that are turned like the stored image, or not."""
        for mistake, (orientation, turn) in TURNS.items():
            stored = Image.fromarray(self.images[self.spoilt[mistake]][0]).transpose(turn)
            exif = Image.Exif()
            exif[ORIENTATION] = orientation
            stored.save(self.root / f"images/{self.spoilt[mistake]}.jpg", quality=95, exif=exif)
            if mistake != "upright":
                self.write(mistake, np.array(Image.fromarray(self.mask(mistake)).transpose(turn)))

    def duplicate(self) -> None:
        """The same pixels in another file."""
        with Image.open(self.root / f"images/{self.twin}.jpg") as image:
            image.save(self.root / "images/again.png")
        shutil.copy(self.root / f"masks/{self.twin}.png", self.root / "masks/again.png")

    def write_lists(self) -> None:
        """Splits that overlap, repeat a name, list a missing file or are not UTF-8, and the classes."""
        train = [*list(self.images)[:16], self.twin, self.both, self.good, self.good, "not-there"]
        (self.root / "splits").mkdir(parents=True)
        for split, listed in {"train": train, "val": ["again", self.both, self.other]}.items():
            (self.root / f"splits/{split}.txt").write_text("".join(f"{name}\n" for name in listed))
        (self.root / "splits/test.txt").write_text(f"{self.other}\n", encoding="utf-16")
        names = ", ".join(f'"{name}"' for name in self.label_set.names)
        colors = ", ".join(str(list(color)) for color in self.label_set.colors)
        (self.root / "labels.toml").write_text(f"names = [{names}]\ncolors = [{colors}]\n")


def spoil(images: Mapping[str, ImageAndMask], label_set: LabelSet, root: Path) -> dict[str, str]:
    """Write twenty images as a folder dataset with each mistake.

    Args:
        images: images ``(H, W, 3)`` and masks ``(H, W)`` by name; the 14th and 15th must not be square.
        label_set: their classes, more than two.
        root: folder to write.

    Returns:
        The name of the image with each mistake.
    """
    for name, (image, mask) in images.items():
        write_image(root, name, image)
        write_mask(root, name, mask, label_set)
    spoiler = Spoiler(images, label_set, root)
    spoiler.spoil_files()
    spoiler.spoil_masks()
    spoiler.spoil_formats()
    spoiler.turn_images()
    spoiler.duplicate()
    spoiler.write_lists()
    names = {name: getattr(spoiler, name) for name in ("twin", "both", "good", "other")}
    return spoiler.spoilt | names


def write_binary(images: Mapping[str, ImageAndMask], root: Path) -> None:
    """Write images as a folder dataset with black and white masks and no class names."""
    for name, (image, mask) in images.items():
        write_image(root, name, image)
        (root / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.where(mask % 255 > 0, 255, 0).astype(np.uint8)).save(root / f"masks/{name}.png")


def write_image(root: Path, name: str, image: np.ndarray) -> None:
    """An image ``(H, W, 3)`` as JPEG."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(root / f"images/{name}.jpg", quality=95)


def write_mask(root: Path, name: str, mask: np.ndarray, label_set: LabelSet) -> None:
    """A mask ``(H, W)`` as palette PNG."""
    (root / "masks").mkdir(parents=True, exist_ok=True)
    (root / f"masks/{name}.png").write_bytes(encode_mask(mask, label_set))


def truncate(file: Path) -> None:
    """Keep the first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def transcript(*words: str) -> str:
    """A command with its output, as Markdown."""
    answer = CliRunner().invoke(app, list(words))
    return f"```\n$ atrous {' '.join(words)}\n{answer.output.rstrip()}\n(exit code {answer.exit_code})\n```"


def main(voc: Annotated[str, typer.Argument(help="A VOCdevkit folder.")]) -> None:
    """Write the report."""
    data = open_dataset(f"voc:{voc}", "train")
    samples = [data[index] for index in range(20)]
    images = {Path(sample.name).stem: (sample.image, sample.mask) for sample in samples}
    intro = (
        "Twenty images of PASCAL VOC 2012 as a folder dataset with every mistake that the doctor knows, and its whole "
        "report."
    )
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        ways = spoil(images, data.label_set, Path("twenty"))
        write_binary(images, Path("black-and-white"))
        found = transcript("data", "check", "folder:twenty", "--fix", "repaired")
        unclear = transcript("data", "check", "folder:black-and-white", "--fix", "classes")
    sections = {
        "": Section(text=intro),
        "mistakes": Section("What it finds and what it repairs", found, facts=ways, origin=origin_of(COMMAND)),
        "binary": Section("Black and white masks without class names", unclear, origin=origin_of(COMMAND)),
    }
    Result("The mask doctor's report", COMMAND, (), sections).write(RESULTS / "doctor")


if __name__ == "__main__":
    typer.run(main)
