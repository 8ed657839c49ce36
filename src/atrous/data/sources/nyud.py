"""NYUDv2 (Silberman et al., ECCV 2012) with the 40 classes of Gupta et al. (CVPR 2013), as fcn.berkeleyvision.org."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atrous.data.extras import Extras, Layer
from atrous.data.files.exif import Pixels
from atrous.data.files.images import ImageError
from atrous.data.files.limits import read_file
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.pillow import open_with_pillow
from atrous.data.sources.base import MatlabSource
from atrous.errors import DatasetError
from atrous.label_sets import NYUD

HHA_MEAN = (132.431, 94.076, 118.477)
"""Mean of horizontal disparity, height above ground and angle with gravity, 0–255."""
LOG_DEPTH_MEAN = 7.844
"""Mean of the natural logarithm of depth in millimetres."""
NEAREST, FARTHEST = math.log(500), math.log(10_000)
"""Logarithms of the depths, in millimetres, that become 0 and 255: steps of 1.2 %. A Kinect sees 0.5 to 10 metres."""
KINDS = ("nyud", "nyud-hha", "nyud-rgbd", "nyud-rgb-hha")


def read_log_depth(path: Path) -> Pixels:
    """Read depth in millimetres (16-bit PNG) as a channel on the scale of colours: its logarithm, uint8 ``(H, W, 1)``.

    A pixel without depth (0) gets the mean. The released code feeds the network the bare logarithm, which varies by
    about one where colours vary by a hundred; on one scale the first convolution, which begins with the mean of the
    colour filters, sees both alike.

    Raises:
        ImageError: missing, unreadable, or not an integer image.
    """
    try:
        with open_with_pillow(read_file(path)) as image:
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


class Nyud(MatlabSource):
    """NYUDv2 with 40 classes, from Gupta's data: ``train.txt``, ``data/images/img_5449.png``,
    ``segmentation/img_5449.mat``, ``data/hha``, ``data/depth``.

    Args:
        root: the folder of the lists.
        kind: the channels of an image: ``nyud``: RGB; ``nyud-hha``: HHA alone; ``nyud-rgbd``: RGB and the logarithm of
            depth, 4 channels; ``nyud-rgb-hha``: RGB and HHA, 6 channels.
    """

    mask_form = MaskForm(NYUD, values=tuple(range(1, 41)), ignore=(0,))
    suffix, prefix, variable = ".png", "img_", "segmentation"

    def __init__(self, root: Path, kind: str = "nyud") -> None:
        self.kind, self.root = kind, root
        data = root / "data" if (root / "data").is_dir() else root
        self.lists, self.masks = root, root / "segmentation"
        self.images = data / ("hha" if kind == "nyud-hha" else "images")
        for folder in (self.images, self.masks):
            if not folder.is_dir():
                raise DatasetError(
                    f"{root} is not an NYUDv2 dataset: {folder} does not exist; expected train.txt and test.txt, "
                    "data/images, data/hha, data/depth and segmentation in it"
                )
        self.require_scipy()
        hha, depth = Layer(HHA_MEAN, data / "hha"), Layer(_depth_mean(), data / "depth", read_log_depth)
        extras = {
            "nyud-hha": Extras(uncolored=HHA_MEAN),
            "nyud-rgbd": Extras((depth,)),
            "nyud-rgb-hha": Extras((hha,)),
        }
        self.extras = extras.get(kind, Extras())


def _depth_mean() -> tuple[float]:
    return (float(_scaled(np.array(LOG_DEPTH_MEAN))),)
