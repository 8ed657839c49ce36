"""A first look without anybody's data: sample images that installed packages already carry."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from atrous.data.files.images import ImageError
from atrous.files import write_atomically
from atrous.inference.predictor import predict
from atrous.models.base import SegmentationModel
from atrous.viz import encode_jpeg, side_by_side

IMAGES = {
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "skimage": ("data/astronaut.png", "data/chelsea.png", "data/motorcycle_left.png"),
}
"""Images by the package that carries them, as files in its own folder. Only matplotlib is sure to be installed."""


@dataclass(frozen=True)
class DemoImage:
    """One sample image and what was made of it.

    Args:
        image: the image.
        fractions: the share of each class present, largest first.
        seconds: from reading the file to its labels.
        mask: palette PNG.
        overlay: colours over the image, with a legend.
        sheet: image, labels and overlay side by side.
    """

    image: Path
    fractions: dict[str, float]
    seconds: float
    mask: Path
    overlay: Path
    sheet: Path


def find_demo_images() -> list[Path]:
    """List the sample images on this machine; the packages that carry them are not imported, nothing is downloaded."""
    found = []
    for package, files in IMAGES.items():
        spec = find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            found += [path for path in (Path(place, file) for file in files) if path.is_file()]
    return found


def run_demo(model: SegmentationModel, out: str | Path) -> list[DemoImage]:
    """Segment every sample image; write mask, overlay and a side-by-side image of each into a folder.

    Args:
        model: any model of this package, where it is to compute.
        out: folder of the results; made if missing.

    Raises:
        ImageError: no installed package carries a sample image.
    """
    images = find_demo_images()
    if not images:
        raise ImageError("no sample image on this machine; reinstall matplotlib, which carries one")
    predict(model, np.zeros((65, 65, 3), np.uint8))  # what is compiled or allocated once is not the image's time
    return [_segment_one(model, image, Path(out)) for image in images]


def _segment_one(model: SegmentationModel, image: Path, out: Path) -> DemoImage:
    begin = time.perf_counter()
    result = predict(model, image)
    seconds = time.perf_counter() - begin
    mask, overlay, sheet = (out / f"{image.stem}{ending}" for ending in (".png", ".overlay.jpg", ".side_by_side.jpg"))
    result.save(mask)
    write_atomically(overlay, encode_jpeg(result.overlay()))
    write_atomically(sheet, encode_jpeg(side_by_side(result.image, result.labels, result.label_set)))
    return DemoImage(image, result.fractions(), seconds, mask, overlay, sheet)
