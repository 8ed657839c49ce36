"""From a folder of images to a folder of masks, beside a plain loop over segmentation-models-pytorch:
``python -m benchmarks.folders [IMAGES ROUNDS]``.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from PIL import Image

from atrous.data.files.find import FoundImage
from atrous.data.files.images import DecodedImage
from atrous.export.model import export_model
from atrous.inference.batch import label_files, predict_files
from atrous.inference.results import OutputOptions
from atrous.inference.segmentation import Segmentation
from atrous.inference.side_by_side import Processors
from atrous.label_sets import VOC
from atrous.models import create_model
from atrous.models.base import SegmentationModel
from atrous.runtime.exported import open_exported
from benchmarks._compare import Comparison, write_comparisons
from benchmarks._images import SEED, make_images
from benchmarks._processes import answer, peak_bytes, race

IMAGES, ROUNDS = 40, 5
"""Images of a round, and rounds: 200 images in all."""
NETWORKS = {"EfficientNet-Lite0": "tf_efficientnet_lite0", "MobileNetV2": "mobilenetv2_100"}
CLASSES = 21
TARGET = 4.0
Block = Callable[[Path, Path], None]
"""Writes a mask for each image of a folder into another."""


def random_model(backbone: str) -> SegmentationModel:
    """The network, with random weights."""
    torch.manual_seed(SEED)
    options = {"num_classes": CLASSES, "output_stride": 16, "separable": True}
    return create_model("deeplabv3plus", backbone=backbone, **options).eval()


def ours_in_torch(backbone: str) -> Block:
    """A folder as `atrous predict` does it."""
    model = random_model(backbone)

    def block(images: Path, out: Path) -> None:
        assert not predict_files(model, [images], out).failed

    return block


def ours_in_openvino(backbone: str) -> Block:
    """A folder with the exported model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "model.onnx")
        export_model(random_model(backbone), file)
        model = open_exported(file, "openvino")

    def label(_: FoundImage, decoded: DecodedImage) -> Segmentation:
        return Segmentation(model.labels(decoded.pixels[None])[0], decoded.pixels, model.label_set)

    def block(images: Path, out: Path) -> None:
        processors = Processors(torch.get_num_threads())
        assert not label_files([images], out, label, outputs=OutputOptions(), processors=processors).failed

    return block


def smp_loop(backbone: str) -> Block:
    """One image after the other: Pillow, the network as its documentation calls it, argmax, Pillow."""
    import segmentation_models_pytorch as smp

    model = smp.DeepLabV3Plus(f"tu-{backbone}", encoder_weights=None, classes=CLASSES).eval()
    palette = VOC.palette().tobytes()

    def block(images: Path, out: Path) -> None:
        out.mkdir()
        for file in sorted(images.iterdir()):
            pixels = np.array(Image.open(file).convert("RGB"))
            height, width = pixels.shape[:2]
            x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
            x = torch.nn.functional.pad(x, (0, -width % 16, 0, -height % 16))  # its encoders want multiples of 16
            with torch.inference_mode():
                labels = model((x - 0.5) / 0.5)[..., :height, :width].argmax(1)[0]
            mask = Image.fromarray(labels.numpy().astype(np.uint8))
            mask.putpalette(palette)
            mask.save(out / f"{file.stem}.png")

    return block


CONTENDERS = {"torch": ours_in_torch, "OpenVINO": ours_in_openvino, "smp": smp_loop}


def contend(name: str, backbone: str, room: Path) -> None:
    """A contender: seconds of a round, processor seconds of it, and peak memory."""
    block = CONTENDERS[name](backbone)
    images = room / "images"

    def measured() -> tuple[float, ...]:
        out = room / f"{name}-{backbone}"
        begin, processor = time.perf_counter(), time.process_time()
        block(images, out)
        seconds, processor = time.perf_counter() - begin, time.process_time() - processor
        shutil.rmtree(out)
        return seconds, processor, peak_bytes()

    warm = room / f"warm-{name}-{backbone}"
    warm.mkdir()
    for file in sorted(images.iterdir())[:2]:
        shutil.copy(file, warm)
    block(warm, room / f"warm-out-{name}-{backbone}")
    answer(measured)


def main(images: int, rounds: int) -> None:
    rows, notes = [], []
    with tempfile.TemporaryDirectory() as folder:
        make_images(Path(folder), images)
        for title, backbone in NETWORKS.items():
            measured = race("folders", {name: (name, backbone, folder) for name in CONTENDERS}, rounds)
            seconds = {name: [found[0] for found in measured[name]] for name in measured}
            work = f"{images} images of 500×375 → masks, DeepLabv3+ {title}"
            for name in ("torch", "OpenVINO"):
                rows.append(Comparison(f"{work}, {name}", "smp loop", seconds[name], seconds["smp"], target=TARGET))
            for name, found in measured.items():
                processor = min(each[1] for each in found) / images
                notes.append(
                    f"{title}, {name}: {images / min(seconds[name]):.2f} images/s at best, {processor:.3f} s of "
                    f"processor time an image at best, at most {max(each[2] for each in found) / 1e6:.0f} MB resident."
                )
    write_comparisons(
        "folders",
        "Folders",
        rows,
        seed=SEED,
        peers=["segmentation-models-pytorch", "openvino"],
        notes=[
            "Files to files: decode, network, labels at the image's own size, palette PNG; output stride 16.",
            "Torch and OpenVINO are ours, in float32; the loop runs in torch with all threads.",
            f"Each contender is a process of its own; they run in turns, {rounds} rounds each. Random weights.",
            *notes,
        ],
    )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        contend(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:3])) if len(sys.argv) == 3 else main(IMAGES, ROUNDS)
