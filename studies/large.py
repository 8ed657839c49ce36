"""Large images: memory and time against size, and what tiles change.

    python -m studies.large path/to/VOCdevkit/VOC2012 [--sizes 2000,4000,8000,20000]

The images are mosaics of VOC photos as GeoTIFFs. The figures are written to results/large.md, with a plot.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image

import atrous
from atrous.data.files.images import read_image
from atrous.data.files.rasters import open_dataset
from atrous.inference.large import tiled_labels
from atrous.inference.memory import model_context
from atrous.inference.prepare import PreparedModel
from atrous.inference.test_time import Inference
from atrous.inference.tiles import ALIGNMENT, Tiling, image_tensor
from atrous.models.base import SegmentationModel
from studies.results import RESULTS, Result, Section, origin_of

COMMAND = "python -m studies.large VOCdevkit/VOC2012"
BUNDLED = "deeplabv3plus_lite0_voc"
ROW, COLUMN = 375, 500
"""Size of a photo in the mosaic."""
SEAM_SIZE = (1500, 2000)
STRIP_SIZE = (257, 4001)
"""For tiles that overlap by twice a network's context: they are wide."""
TILINGS = (Tiling(513, 256), Tiling(1025, 128), Tiling(1025, 256), Tiling(1025, 512))
NOTES = (
    "Memory is the largest resident set of the whole process (`atrous predict`), torch and the model included.",
    "Seams: the share of the pixels whose label differs from that of the whole image, which is a mosaic of VOC photos. "
    "Networks but the bundled one have random weights.",
)


def photos(voc: Path) -> list[np.ndarray]:
    """The first 64 photos of the training split that are large enough, cut to one size."""
    names = (voc / "ImageSets/Segmentation/train.txt").read_text(encoding="ascii").split()
    found: list[np.ndarray] = []
    for name in names:
        image = read_image(voc / f"JPEGImages/{name}.jpg")
        if image.shape[0] >= ROW and image.shape[1] >= COLUMN:
            found.append(image[:ROW, :COLUMN])
        if len(found) == 64:
            break
    return found


def mosaic_rows(images: list[np.ndarray], height: int, width: int) -> list[Callable[[], np.ndarray]]:
    """Functions that make the rows of a mosaic, from top to bottom."""

    def row(number: int, rows: int) -> np.ndarray:
        across = [images[(7 * number + i) % len(images)] for i in range(-(-width // COLUMN))]
        return np.concatenate(across, axis=1)[:rows, :width]

    tops = range(0, height, ROW)
    return [partial(row, number, min(ROW, height - top)) for number, top in enumerate(tops)]


def write_mosaic(path: Path, images: list[np.ndarray], side: int) -> None:
    """Write a square mosaic as a tiled GeoTIFF."""
    from rasterio import Affine  # type: ignore[import-untyped]

    form = {"driver": "GTiff", "count": 3, "dtype": "uint8", "height": side, "width": side, "photometric": "RGB"}
    storage = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "bigtiff": "if_safer"}
    place = {"crs": "EPSG:32632", "transform": Affine(0.2, 0, 400_000, 0, -0.2, 5_600_000)}
    with open_dataset(path, "w", **form, **storage, **place) as file:
        top = 0
        for make in mosaic_rows(images, side, side):
            row = make()
            file.write(np.moveaxis(row, -1, 0), window=((top, top + len(row)), (0, side)))
            top += len(row)


TILES, WHOLE = "atrous, tiles", "atrous, whole image"
MONAI, SMP = "MONAI's sliding_window_inference", "plain loop over smp"
WAYS = {TILES: "#1b6ca8", WHOLE: "#c8553d", MONAI: "#5b8c5a", SMP: "#8a6d9e"}
"""What is measured, and its colour in the plot."""
WHOLE_LIMIT = 4000
"""Side of the largest image that is computed whole: beyond it, an ordinary machine's memory does not suffice."""
MONAI_LIMIT = 8000
"""Side of the largest image that MONAI, which keeps the logits of the whole image, is tried on."""
_REPORT = (
    "\npeak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024"
    "\nprint(json.dumps({'seconds': time.perf_counter() - begin, 'processor': time.process_time(), 'bytes': peak}))"
)


def measure(path: Path, out: Path, way: str) -> dict[str, float]:
    """Seconds and peak bytes from a file to its mask, in a process of its own."""
    if way in (TILES, WHOLE):
        code = (
            "import json, resource, sys, time; from atrous.cli import main; begin = time.perf_counter()\n"
            "try: main()\n"
            "except SystemExit as stop: assert not stop.code, stop.code" + _REPORT
        )
        options = ["--tile", str(Tiling.tile)] if way == TILES else ["--tile", "100001", "--overlap", "0"]
        command = ["predict", str(path), "--model", BUNDLED, "--out", str(out), *options]
    else:
        out.mkdir()
        code = (
            "import json, resource, time; begin = time.perf_counter()\n"
            f"from studies.large import segment_as_peers; segment_as_peers({str(path)!r}, {str(out)!r}, {way!r})"
            + _REPORT
        )
        command = []
    done = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def segment_as_peers(path: str, out: str, way: str) -> None:
    """A file to a mask as other libraries' documentation does it, with the bundled model's architecture."""
    import segmentation_models_pytorch as smp

    model = smp.DeepLabV3Plus("tu-tf_efficientnet_lite0", encoder_weights=None, classes=21).eval()
    with open_dataset(Path(path)) as file:
        pixels = torch.from_numpy(file.read())[None].float() / 255
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = (pixels - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        if way == MONAI:
            from monai.inferers import sliding_window_inference

            windows = Tiling.tile - 1  # the encoder wants multiples of 16
            logits = sliding_window_inference(images, (windows, windows), 1, model, overlap=0.1, mode="gaussian")
        else:
            below, right = -images.shape[2] % 16, -images.shape[3] % 16
            logits = model(torch.nn.functional.pad(images, (0, right, 0, below)))
        labels = logits.argmax(1)[0, : pixels.shape[2], : pixels.shape[3]].to(torch.uint8)
    Image.fromarray(labels.numpy()).save(Path(out, "mask.png"))


def memory(images: list[np.ndarray], sizes: list[int]) -> Section:
    """Memory and time against the size of the image."""
    facts: list[dict[str, Any]] = []
    for side in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "mosaic.tif")
            write_mosaic(path, images, side)
            for number, way in enumerate(WAYS):
                if side <= {TILES: side, MONAI: MONAI_LIMIT}.get(way, WHOLE_LIMIT):
                    found = measure(path, Path(folder, f"out{number}"), way)
                    facts.append({"side": side, "way": way, "tile": Tiling.tile, **found})
                    typer.echo(str(facts[-1]))
    rows = [
        (
            f"{fact['side']:,}²",
            f"{fact['way']} of {fact['tile']}" if fact["way"] == TILES else fact["way"],
            f"{fact['bytes'] / 1e9:.2f}",
            f"{fact['seconds']:.0f}",
            f"{fact['processor']:.0f}",
            f"{fact['side'] ** 2 / 1e6 / fact['seconds']:.2f}",
        )
        for fact in facts
    ]
    header = ("pixels", "how", "peak memory, GB", "seconds, imports included", "processor seconds", "megapixels/s")
    below = "![Peak memory against the size of the image](large.png)"
    origin = origin_of(" ".join([COMMAND, *sys.argv[2:]]), peers=["segmentation-models-pytorch", "monai"])
    return Section("Memory and time", "", [header, *rows], below, facts, origin)


def plot(facts: list[dict[str, Any]], path: Path) -> None:
    """Peak memory against megapixels."""
    from matplotlib.figure import Figure

    figure = Figure((6.4, 4), layout="constrained")
    axes = figure.subplots()
    for way, color in WAYS.items():
        chosen = [fact for fact in facts if fact["way"] == way]
        x, y = [f["side"] ** 2 / 1e6 for f in chosen], [f["bytes"] / 1e9 for f in chosen]
        axes.plot(x, y, "o-", color=color, label=way)
    axes.set(xscale="log", xlabel="megapixels", ylabel="peak memory, GB", ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _random(name: str, backbone: str, **options: Any) -> SegmentationModel:
    torch.manual_seed(0)
    model = atrous.create_model(name, backbone=backbone, num_classes=21, pretrained=False, **options)
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():  # classifiers that begin with zeros
            torch.nn.init.normal_(parameter)
    return model.eval()


V3PLUS = "deeplabv3plus"
MODELS: dict[str, Callable[[], SegmentationModel]] = {
    "FCN-8s on ResNet-18": lambda: _random("fcn8s", "resnet18"),
    "LargeFOV on MobileNetV2": lambda: _random("deeplab_largefov", "mobilenetv2_050"),
    "v3+ on MobileNetV2, without image pooling": lambda: _random(
        "deeplabv3plus", "mobilenetv2_050", image_pooling=False
    ),
    "the bundled model": lambda: atrous.load(BUNDLED),
}


def seams(images: list[np.ndarray]) -> Section:
    """What tiles change in the labels."""
    image = np.concatenate([make() for make in mosaic_rows(images, *SEAM_SIZE)])
    rows, facts = [], {}
    for name, make in MODELS.items():
        network = PreparedModel(make(), precision="float32")
        with network.running():
            whole = Inference()(network, torch.from_numpy(image).permute(2, 0, 1)[None])[0].numpy()
        shares = [_difference(network, image, whole, tiling) for tiling in TILINGS]
        facts[name] = shares
        rows.append((name, *(f"{share:.3%}" for share in shares)))
        typer.echo(str(rows[-1]))
    header = ("network", *(f"tiles of {t.tile}, overlap {t.overlap}" for t in TILINGS))
    return Section("Seams", "", [header, *rows], "", facts, origin_of(" ".join([COMMAND, *sys.argv[2:]]), seed=0))


def exact_overlap(images: list[np.ndarray]) -> Section:
    """What tiles change that overlap by twice the network's context."""
    image = np.concatenate([make() for make in mosaic_rows(images, *STRIP_SIZE)])
    rows, facts = [], {}
    for name, make in MODELS.items():
        network = PreparedModel(make(), precision="float32")
        context = model_context(network.model)
        tiling = Tiling(-(-4 * context.pixels // ALIGNMENT) * ALIGNMENT + 65, 2 * context.pixels, context.pixels)
        with network.running():
            whole = Inference()(network, image_tensor(image, network.device))[0].numpy()
        share = _difference(network, image, whole, tiling)
        sees = f"{context.pixels} px" + (" and the whole image" if context.whole else "")
        facts[name] = {"context": context.pixels, "whole": context.whole, "difference": share, "tile": tiling.tile}
        rows.append((name, sees, f"{tiling.tile}, {tiling.overlap}", f"{share:.4%}"))
        typer.echo(str(rows[-1]))
    header = ("network", "sees to each side", "tile, overlap", "labels that differ")
    return Section(
        "Seams at twice the context",
        "",
        [header, *rows],
        "",
        facts,
        origin_of(" ".join([COMMAND, *sys.argv[2:]]), seed=0),
    )


def _difference(network: PreparedModel, image: np.ndarray, whole: np.ndarray, tiling: Tiling) -> float:
    def read(rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        return np.ascontiguousarray(image[slice(*rows), slice(*columns)])

    with network.running():
        strips = tiled_labels(network, read, (image.shape[0], image.shape[1]), Inference(), tiling)
        return float((np.concatenate([strip for _, strip in strips]) != whole).mean())


def main(
    voc: Path,
    sizes: Annotated[str, typer.Option(help="Sides of the mosaics.")] = "2000,4000,8000,20000",
    part: Annotated[str, typer.Option(help="memory, seams, context or all.")] = "all",
) -> None:
    """Measure, and write the page."""
    begin, images = time.perf_counter(), photos(voc)
    sections: dict[str, Section] = {}
    if part in ("memory", "all"):
        sections["memory"] = memory(images, [int(side) for side in sizes.split(",")])
        plot(sections["memory"].facts, RESULTS / "large.png")
    if part in ("seams", "all"):
        sections["seams"] = seams(images)
    if part in ("context", "all"):
        sections["context"] = exact_overlap(images)
    Result("Large images", COMMAND, NOTES, sections).write(RESULTS / "large")
    typer.echo(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    typer.run(main)
