"""The demo: segmenting sample images that ship with installed packages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from atrous.data.files.images import ImageError
from atrous.files import write_atomically
from atrous.inference.predict import predict
from atrous.models.base import SegmentationModel
from atrous.viz import encode_jpeg, side_by_side

IMAGES = {
    "matplotlib": ("mpl-data/sample_data/grace_hopper.jpg",),
    "skimage": ("data/astronaut.png", "data/chelsea.png", "data/motorcycle_left.png"),
}
"""Sample images by package, as paths in the package's folder. Only matplotlib is certainly installed."""


@dataclass(frozen=True)
class DemoImage:
    """A sample image and its results.

    Args:
        image: the image.
        fractions: the fraction of each class present, largest first.
        seconds: from reading the file to its labels.
        mask: palette PNG.
        overlay: the labels over the image, with a legend.
        sheet: image, labels and overlay side by side.
    """

    image: Path
    fractions: dict[str, float]
    seconds: float
    mask: Path
    overlay: Path
    sheet: Path


def find_demo_images() -> list[Path]:
    """List the sample images on this machine, without importing their packages and without any download."""
    found = []
    for package, files in IMAGES.items():
        spec = find_spec(package)
        for place in spec.submodule_search_locations or () if spec else ():
            found += [path for path in (Path(place, file) for file in files) if path.is_file()]
    return found


def run_demo(model: SegmentationModel, out: str | Path) -> list[DemoImage]:
    """Segment every sample image; write mask, overlay and a side-by-side image of each into a folder.

    Args:
        model: any model of this package, on the device to use.
        out: folder of the results; created if missing.

    Raises:
        ImageError: no installed package contains a sample image.
    """
    images = find_demo_images()
    if not images:
        raise ImageError("no sample image on this machine; reinstall matplotlib, which contains one")
    predict(model, np.zeros((65, 65, 3), np.uint8))  # warm-up, so that compilation does not count as an image's time
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
