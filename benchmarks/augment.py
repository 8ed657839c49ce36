"""From a JPEG and its mask to an augmented crop, one thread: ``python -m benchmarks.augment``."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"

import albumentations as A
import cv2
import numpy as np
import torch
import torchvision
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from atrous.data.augment import Augmentation
from atrous.data.dataset import PairedDataset, Sample
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile
from atrous.label_sets import VOC
from benchmarks._compare import compare, write_comparisons
from benchmarks._images import SEED, image_and_mask

CROP = 513
SCALE = (0.5, 2.0)
FILL = (124, 116, 104)


def main() -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        image_file, mask = image_and_mask(Path(folder))
        dataset = PairedDataset("bench", MaskForm(VOC), ((image_file, MaskFile(mask)),))
        decoded = dataset[0]
        augment = Augmentation(CROP, SCALE, flip=True)
        random = np.random.default_rng(SEED)

        theirs = v2.Compose(
            [
                v2.RandomResize(int(375 * SCALE[0]), int(375 * SCALE[1]), antialias=True),
                v2.RandomHorizontalFlip(0.5),
                v2.RandomCrop(CROP, pad_if_needed=True, fill={tv_tensors.Image: FILL, tv_tensors.Mask: 255}),
            ]
        )
        album = A.Compose(
            [
                A.RandomScale((SCALE[0] - 1, SCALE[1] - 1), p=1),
                A.PadIfNeeded(CROP, CROP, border_mode=cv2.BORDER_CONSTANT, fill=FILL, fill_mask=255),
                A.RandomCrop(CROP, CROP),
                A.HorizontalFlip(p=0.5),
            ]
        )

        def ours_from_file() -> Sample:
            return augment(dataset[0], random)

        def torchvision_from_file() -> object:
            image = torchvision.io.decode_image(str(image_file), torchvision.io.ImageReadMode.RGB)
            with Image.open(mask) as opened:  # torchvision's decoder would turn the palette into colours
                labels = torch.from_numpy(np.array(opened))
            return theirs(tv_tensors.Image(image), tv_tensors.Mask(labels))

        def albumentations_from_file() -> object:
            image = cv2.cvtColor(cv2.imread(str(image_file)), cv2.COLOR_BGR2RGB)
            with Image.open(mask) as opened:
                return album(image=image, mask=np.array(opened))

        def ours_decoded() -> Sample:
            return augment(decoded, random)

        def albumentations_decoded() -> object:
            return album(image=decoded.image, mask=decoded.mask)

        work = f"500×375 image → {CROP} crop, scale {SCALE[0]}–{SCALE[1]}, flip"
        rows = [
            compare(f"{work}, from JPEG and PNG", ours_from_file, torchvision_from_file, peer_name="torchvision v2"),
            compare(f"{work}, from JPEG and PNG", ours_from_file, albumentations_from_file, peer_name="albumentations"),
            compare(f"{work}, decoded", ours_decoded, albumentations_decoded, peer_name="albumentations"),
        ]
        rates = ", ".join(f"{1 / min(r.ours_seconds):.0f}/s" for r in rows)
        write_comparisons(
            "augment",
            "Augmentation",
            rows,
            seed=SEED,
            peers=["albumentations", "opencv-python-headless"],
            notes=[f"One thread each. Ours at best: {rates} (target: 280/s from JPEG, 1000/s decoded)."],
        )


if __name__ == "__main__":
    main()
