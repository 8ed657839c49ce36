"""Write results/doctor.md: twenty VOC images as a folder dataset, spoilt in every way the mask doctor knows, and all
that it says of them.

    python scripts/doctor_report.py path/to/VOCdevkit
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.data.dataset import open_dataset
from atrous.labels import LabelSet, encode_mask
from atrous.provenance import provenance

TARGET = Path(__file__).resolve().parents[1] / "results" / "doctor.md"
ImageAndMask = tuple[np.ndarray, np.ndarray]
STRANGE = np.array([(250, 250, 5), (5, 120, 250), (90, 20, 5)], np.uint8)


def spoil(images: Mapping[str, ImageAndMask], label_set: LabelSet, root: Path) -> dict[str, str]:
    """Write twenty images as a folder dataset in which each mistake is made.

    Args:
        images: images ``(H, W, 3)`` and masks ``(H, W)`` by name; the 14th and 15th must not be square.
        label_set: their classes, more than two.
        root: where to write.

    Returns:
        Which drawing (by its name) is spoilt in which way.
    """
    names = list(images)
    ways = "missing shared size binary far rgb strange jpeg jpg outside void image mask stored upright half"
    spoilt = dict(zip(ways.split(), names, strict=False))
    twin, both, good, other = names[16:20]
    (root / "splits").mkdir(parents=True)
    for name, (image, mask) in images.items():
        write_image(root, name, image)
        write_mask(root, name, mask, label_set)

    def mask_of(way: str) -> Path:
        return root / "masks" / f"{spoilt[way]}.png"

    def drawn(way: str) -> np.ndarray:
        return images[spoilt[way]][1]

    mask_of("missing").unlink()
    shutil.copy(mask_of("shared"), root / "masks/nobody's.png")
    Image.fromarray(images[spoilt["shared"]][0]).save(root / f"images/{spoilt['shared']}.png")
    write_mask(root, spoilt["size"], drawn("size")[::2, ::2], label_set)
    Image.fromarray(np.where(drawn("binary") % 255 > 0, 255, 0).astype(np.uint8)).save(mask_of("binary"))
    Image.fromarray(np.where(drawn("far") % 255 > 0, 128, 0).astype(np.uint8)).save(mask_of("far"))
    Image.fromarray(label_set.colorize(drawn("rgb"))).save(mask_of("rgb"))
    Image.fromarray(STRANGE[drawn("strange") % 3]).save(mask_of("strange"))
    Image.fromarray(label_set.colorize(drawn("jpeg"))).save(mask_of("jpeg"), "JPEG")
    mask_of("jpg").unlink()
    Image.fromarray(label_set.colorize(drawn("jpg"))).save(mask_of("jpg").with_suffix(".jpg"))
    outside = drawn("outside").copy()
    outside[:5, :7] = len(label_set) + 1
    write_mask(root, spoilt["outside"], outside, label_set)
    write_mask(root, spoilt["void"], np.full_like(drawn("void"), 255), label_set)
    cut(root / f"images/{spoilt['image']}.jpg")
    cut(mask_of("mask"))
    turns = {"stored": (6, Image.Transpose.ROTATE_90), "upright": (8, Image.Transpose.ROTATE_270)}
    turns["half"] = (3, Image.Transpose.ROTATE_180)
    for way, (orientation, turn) in turns.items():
        stored = Image.fromarray(images[spoilt[way]][0]).transpose(turn)
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored.save(root / f"images/{spoilt[way]}.jpg", quality=95, exif=exif)
        if way != "upright":
            write_mask(root, spoilt[way], np.array(Image.fromarray(drawn(way)).transpose(turn)), label_set)
    with Image.open(root / f"images/{twin}.jpg") as drawing:  # the same pixels in another file
        drawing.save(root / "images/again.png")
    shutil.copy(root / f"masks/{twin}.png", root / "masks/again.png")
    write_image(root, "nowhere", images[other][0])
    lists = {"train": [*names[:16], twin, both, good, good, "not-there"], "val": ["again", both, other]}
    for split, listed in lists.items():
        (root / f"splits/{split}.txt").write_text("".join(f"{name}\n" for name in listed))
    (root / "splits/test.txt").write_text(f"{other}\n", encoding="utf-16")
    quoted = ", ".join(f'"{name}"' for name in label_set.names)
    colors = ", ".join(str(list(color)) for color in label_set.colors)
    (root / "labels.toml").write_text(f"names = [{quoted}]\ncolors = [{colors}]\n")
    return spoilt | {"twin": twin, "both": both, "good": good, "other": other}


def binary(images: Mapping[str, ImageAndMask], root: Path) -> None:
    """Write images as a folder dataset whose masks are black and white, and nothing says what that means."""
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


def cut(file: Path) -> None:
    """Leave the first half of a file."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def run(*words: str) -> str:
    """A command with what it prints, as a page shows it."""
    answer = CliRunner().invoke(app, list(words))
    return f"```\n$ atrous {' '.join(words)}\n{answer.output.rstrip()}\n(exit code {answer.exit_code})\n```\n"


def page(voc: str) -> str:
    """The whole page."""
    facts = provenance()
    data = open_dataset(f"voc:{voc}", "train")
    samples = [data[index] for index in range(20)]
    images = {Path(sample.name).stem: (sample.image, sample.mask) for sample in samples}
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        spoil(images, data.label_set, Path("twenty"))
        binary(images, Path("black-and-white"))
        return "\n".join(
            [
                "# The mask doctor's report\n",
                "Twenty images of PASCAL VOC 2012 as a folder dataset, spoilt in every way the doctor knows, and all "
                "that it says.\n",
                f"Generated by `python scripts/doctor_report.py VOCdevkit`, commit {facts['commit']}; do not edit.\n",
                "## What it finds, and what it mends\n",
                run("data", "check", "folder:twenty", "--fix", "mended"),
                "## Black and white masks, and nothing that says what they mean\n",
                run("data", "check", "folder:black-and-white", "--fix", "classes"),
            ]
        )


if __name__ == "__main__":
    TARGET.write_text(page(sys.argv[1]), encoding="utf-8")
