"""The layouts of datasets whose masks are MATLAB's files: NYUDv2, SIFT Flow, PASCAL-Context and PASCAL-Person-Part.

Images, lists and places of the first three are as in shelhamer/fcn.berkeleyvision.org.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from atrous.data.files.images import ImageError, Pixels, read_image
from atrous.data.files.masks import MaskForm, open_mask
from atrous.data.files.matlab import MatrixError, scipy_io
from atrous.data.sources.base import Extras, FurtherMasks, Layer, Listed, read_lines
from atrous.data.sources.published import Published
from atrous.errors import DatasetError
from atrous.label_sets import GEOMETRIC, NYUD, PASCAL_CONTEXT, PERSON_PART, SIFT_FLOW

HHA_MEAN = (132.431, 94.076, 118.477)
LOG_DEPTH_MEAN = 7.844
"""Of NYUDv2: of horizontal disparity, height above ground and angle with gravity; of the logarithm of millimetres."""
NEAREST, FARTHEST = math.log(500), math.log(10_000)
"""Logarithms of the depths, in millimetres, that become 0 and 255: steps of 1.2 %. A Kinect sees 0.5 to 10 metres."""
NYUD_INPUTS = ("nyud", "nyud-hha", "nyud-rgbd", "nyud-rgb-hha")


def read_log_depth(path: Path) -> Pixels:
    """Read depth in millimetres (16-bit PNG) as a channel on the scale of colours: its logarithm, uint8 ``(H, W, 1)``.

    A pixel without depth (0) gets the mean. The released code feeds the network the bare logarithm, which varies by
    about one where colours vary by a hundred; on one scale the first convolution, which begins with the mean of the
    colour filters, sees both alike.

    Raises:
        ImageError: missing, unreadable, or no image of integers.
    """
    try:
        with Image.open(path) as image:
            depth = np.asarray(image)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file; expected the depth of an image") from None
    except Exception as error:  # a damaged file can raise nearly anything inside a decoder
        raise ImageError(f"{path}: not a readable image ({error}); expected depth as a 16-bit PNG") from error
    if depth.ndim != 2 or depth.dtype.kind not in "iu":
        raise ImageError(f"{path}: a {depth.dtype} image of shape {depth.shape}; expected depth as a 16-bit PNG")
    log = np.where(depth > 0, np.log(np.maximum(depth, 1)), LOG_DEPTH_MEAN)
    channel: Pixels = np.rint(_scaled(log).clip(0, 255)).astype(np.uint8)
    return channel[..., None]


def _scaled(log: NDArray[np.float64]) -> NDArray[np.float64]:
    return (log - NEAREST) * (255 / (FARTHEST - NEAREST))


class _Scenes(Published):
    """What they have in common: a list a split, and masks in ``.mat`` files, or PNGs in their place."""

    lists: Path
    images: Path
    masks: Path
    suffix = ".jpg"
    prefix = ""

    def _require_scipy(self) -> None:
        """Say at once what matrices need; PNGs in their place need nothing."""
        if next(self.masks.glob("*.mat"), None):
            try:
                scipy_io()
            except MatrixError as error:
                raise DatasetError(f"{self.spec}: {error}") from error

    def splits(self) -> list[str]:
        return sorted(file.stem for file in self.lists.glob("*.txt") if "_" not in file.stem)

    def list_file(self, split: str) -> Path:
        return self.lists / f"{split}.txt"

    def listed(self, split: str) -> list[Listed]:
        lines = read_lines(self.list_file(split), self.root)
        names = [f"{self.prefix}{Path(line.split()[0]).stem}" for line in lines]  # some name image and mask
        return [Listed(name, self.images / f"{name}{self.suffix}", self._mask(name)) for name in names]

    def _mask(self, name: str) -> Path:
        matrix, image = (self.masks / f"{name}{suffix}" for suffix in (".mat", ".png"))
        return image if image.is_file() and not matrix.is_file() else matrix


class Nyud(_Scenes):
    """NYUDv2 with 40 classes (SPEC §6.2), of Gupta's data: ``train.txt``, ``data/images/img_5449.png``,
    ``segmentation/img_5449.mat``, ``data/hha``, ``data/depth``.

    Args:
        root: the folder of the lists.
        kind: what its images are: ``nyud`` RGB; ``nyud-hha`` HHA alone; ``nyud-rgbd`` RGB and the logarithm of depth,
            4 channels; ``nyud-rgb-hha`` RGB and HHA, 6 channels.
    """

    written = MaskForm(NYUD, values=tuple(range(1, 41)), ignore=(0,))
    suffix, prefix = ".png", "img_"

    def __init__(self, root: Path, kind: str = "nyud") -> None:
        self.kind, self.root = kind, root
        data = root / "data" if (root / "data").is_dir() else root
        self.lists, self.masks = root, root / "segmentation"
        self.images = data / ("hha" if kind == "nyud-hha" else "images")
        for folder in (self.images, self.masks):
            if not folder.is_dir():
                raise DatasetError(
                    f"{root} is no NYUDv2 dataset: there is no {folder}; expected train.txt and test.txt, data/images, "
                    "data/hha, data/depth and segmentation in it"
                )
        self._require_scipy()
        hha, depth = Layer(data / "hha", HHA_MEAN, read_image), Layer(data / "depth", _depth_mean(), read_log_depth)
        self.extras = {
            "nyud-hha": Extras(uncolored=HHA_MEAN),
            "nyud-rgbd": Extras((depth,)),
            "nyud-rgb-hha": Extras((hha,)),
        }.get(kind, Extras())


def _depth_mean() -> tuple[float]:
    return (float(_scaled(np.array(LOG_DEPTH_MEAN))),)


class SiftFlow(_Scenes):
    """SIFT Flow with 33 classes, and 3 geometric ones as masks ``geometric`` (SPEC §6.3): ``trainval.txt``, ``Images``,
    ``SemanticLabels`` and ``GeoLabels``, each with one folder in it.
    """

    kind = "siftflow"
    written = MaskForm(SIFT_FLOW, values=tuple(range(1, 34)), ignore=(0,))

    def __init__(self, root: Path) -> None:
        self.root = root
        inner = "spatial_envelope_256x256_static_8outdoorcategories"
        self.lists = root
        self.images, self.masks, shapes = (root / name / inner for name in ("Images", "SemanticLabels", "GeoLabels"))
        for folder in (self.images, self.masks, shapes):
            if not folder.is_dir():
                raise DatasetError(
                    f"{root} is no SIFT Flow dataset: there is no {folder}; expected Images, SemanticLabels and "
                    f"GeoLabels with {inner} in each, and the lists trainval.txt and test.txt"
                )
        self._require_scipy()
        form = MaskForm(GEOMETRIC, values=(1, 2, 3), ignore=(0,))
        self.extras = Extras(masks={"geometric": FurtherMasks(shapes, form)})


class PascalContext(_Scenes):
    """PASCAL-Context with 59 classes and a background (SPEC §6.4): ``trainval/2008_000002.mat`` beside or in a
    ``VOC2010`` folder with ``JPEGImages`` and ``ImageSets/Main``. PNG masks hold the classes, 0–59, or their VOC
    colours.
    """

    kind = "pascalcontext"

    def __init__(self, root: Path) -> None:
        self.root = root
        places = _voc_2010(root)
        base = next((place for place in places if (place / "JPEGImages").is_dir()), None)
        masks = next((place / "trainval" for place in (root, *places) if (place / "trainval").is_dir()), None)
        if base is None or masks is None:
            raise DatasetError(
                f"{root} is no PASCAL-Context dataset: expected trainval with its .mat files, and VOC2010 with "
                "JPEGImages and ImageSets/Main, in it"
            )
        self.images, self.masks, self.lists = base / "JPEGImages", masks, base / "ImageSets" / "Main"
        self._require_scipy()
        self.written = MaskForm(PASCAL_CONTEXT)
        image = next(iter(sorted(masks.glob("*.png"))), None)
        if image and open_mask(image).image.mode == "RGB":
            self.written = replace(self.written, encoding="rgb")


class PersonPart(_Scenes):
    """PASCAL-Person-Part with 7 classes (SPEC §6.5): ``Annotations_Part/2008_000003.mat`` of PASCAL-Part, where the
    parts of persons are merged, or PNG masks of the classes, 0–6, in ``pascal_person_part_gt``; images in
    ``JPEGImages`` of VOC 2010; ``train.txt`` and ``val.txt``, also in ``pascal_person_part_trainval_list``.
    """

    kind = "personpart"
    written = MaskForm(PERSON_PART)

    def __init__(self, root: Path) -> None:
        self.root = root
        places = (root, root / "pascal_person_part", *_voc_2010(root)[1:])
        inside = [place / name for name in ("pascal_person_part_gt", "Annotations_Part") for place in places]
        lists = [place / name for place in places for name in (".", "pascal_person_part_trainval_list")]
        images = next((place / "JPEGImages" for place in places if (place / "JPEGImages").is_dir()), None)
        masks = next((folder for folder in inside if folder.is_dir()), None)
        if images is None or masks is None:
            raise DatasetError(
                f"{root} is no PASCAL-Person-Part dataset: expected Annotations_Part with its .mat files (or "
                "pascal_person_part_gt with PNGs), VOC2010 with JPEGImages, train.txt and val.txt in it"
            )
        self.images, self.masks = images, masks
        self.lists = next((place for place in lists if (place / "train.txt").is_file()), root)
        self._require_scipy()


def _voc_2010(root: Path) -> tuple[Path, Path, Path]:
    """Where a ``VOC2010`` folder may be."""
    return root, root / "VOC2010", root / "VOCdevkit" / "VOC2010"
