"""Four papers' heads on one backbone: parameters, time and mean IoU after the same few steps. Offline.

python examples/four_papers_one_backbone.py

The backbone is the bundled model's. A few steps show that all of them learn, not which one is best.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

import atrous

from shapes import NAMES, make_folder  # isort: skip

HEADS = {
    "FCN-8s": ("fcn8s", {}),
    "DeepLab v2, ASPP": ("deeplab_aspp", {"rates": (2, 4, 8, 12)}),
    "Attention to Scale": ("attention_to_scale", {"base_options": {"kernel": 1}, "scales": (1, 0.5)}),
    "DeepLabv3+": ("deeplabv3plus", {"separable": True, "rates": (4, 8, 12)}),
}


def main() -> None:
    """Train and evaluate each head, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=160, help="of the images, in pixels")
    arguments = parser.parse_args()

    backbone = atrous.load("deeplabv3plus_lite0_voc").backbone
    print(f"{'head':20} {'parameters':>12} {'ms/image':>9} {'mean IoU':>9}")
    with tempfile.TemporaryDirectory() as place:
        folder = make_folder(Path(place), side=arguments.side)
        train, val = (atrous.open_dataset(f"folder:{folder}", split) for split in ("train", "val"))
        for title, (name, options) in HEADS.items():
            torch.manual_seed(0)
            model = atrous.create_model(name, backbone=backbone.name, label_set=NAMES, output_stride=16, **options)
            model.backbone.load_state_dict(backbone.state_dict())
            fit(model, train, arguments.steps, arguments.batch)
            begin = time.perf_counter()
            evaluation = atrous.evaluate(model, val)
            each = 1000 * (time.perf_counter() - begin) / len(val)
            count = sum(parameter.numel() for parameter in model.parameters())
            print(f"{title:20} {count:12,} {each:9.0f} {100 * evaluation.metrics.mean_iou:8.1f}%")


def fit(model: torch.nn.Module, data: atrous.data.dataset.Dataset, steps: int, batch: int) -> None:
    """A plain loop: the sum of the losses of all outputs, Adam, whole images."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for step in range(steps):
        samples = [data[(step * batch + place) % len(data)] for place in range(batch)]
        images = torch.stack([torch.from_numpy(sample.image).permute(2, 0, 1) for sample in samples])
        labels = torch.stack([torch.from_numpy(sample.mask).long() for sample in samples])
        losses = [
            output.weight * torch.nn.functional.cross_entropy(output.at(labels.shape[1:]), labels, ignore_index=255)
            for output in model.outputs(model.preprocess(images))
        ]
        optimizer.zero_grad()
        sum(losses).backward()
        optimizer.step()
    model.eval()


if __name__ == "__main__":
    main()
