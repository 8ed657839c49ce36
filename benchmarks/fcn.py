"""A forward pass of FCN-8s on VGG-16 on the CPU beside a literal rewrite: ``python -m benchmarks.fcn``."""

from __future__ import annotations

import gc
import subprocess
import sys

import torch
from torch import Tensor, nn

from atrous.models import SegmentationModel
from atrous.models.layers import bilinear_kernel
from benchmarks._compare import Comparison, write_comparisons
from benchmarks._networks import (
    CLASSES,
    DTYPES,
    FLOOR_NOTE,
    MATRIX,
    SEED,
    VGG16,
    compare_forward,
    forward,
    multiply_adds,
    random_image,
    random_network,
)
from benchmarks._processes import peak_bytes, reset_peak

SIDE = 500


class Literal(nn.Module):
    """FCN-8s as github.com/wkentaro/pytorch-fcn writes it: dense transposed convolutions, crops."""

    def __init__(self) -> None:
        super().__init__()
        in_channels = 3
        self.layers: list[tuple[str, ...]] = []
        for block, (count, width) in enumerate(VGG16, 1):
            names = tuple(f"conv{block}_{number}" for number in range(1, count + 1))
            for name in names:
                self.add_module(name, nn.Conv2d(in_channels, width, 3, padding=100 if name == "conv1_1" else 1))
                in_channels = width
            self.layers.append(names)
        self.relu, self.dropout = nn.ReLU(inplace=True), nn.Dropout2d()
        self.pool = nn.MaxPool2d(2, stride=2, ceil_mode=True)
        self.fc6, self.fc7 = nn.Conv2d(512, 4096, 7), nn.Conv2d(4096, 4096, 1)
        self.score_fr, self.score_pool3, self.score_pool4 = (nn.Conv2d(n, CLASSES, 1) for n in (4096, 256, 512))
        for name, kernel, stride in (("upscore2", 4, 2), ("upscore8", 16, 8), ("upscore_pool4", 4, 2)):
            layer = nn.ConvTranspose2d(CLASSES, CLASSES, kernel, stride, bias=False)
            with torch.no_grad():
                layer.weight.copy_(torch.eye(CLASSES)[..., None, None] * bilinear_kernel(kernel))
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        size, pools = x.shape[2:], []
        for names in self.layers:
            for name in names:
                x = self.relu(self.get_submodule(name)(x))
            x = self.pool(x)
            pools.append(x)
        x = self.dropout(self.relu(self.fc6(x)))
        x = self.dropout(self.relu(self.fc7(x)))
        x = self.upscore2(self.score_fr(x))
        x = x + self.score_pool4(pools[3])[:, :, 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
        x = self.upscore_pool4(x)
        x = x + self.score_pool3(pools[2])[:, :, 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
        return self.upscore8(x)[:, :, 31 : 31 + size[0], 31 : 31 + size[1]].contiguous()


def literal(model: SegmentationModel) -> Literal:
    """The rewrite with the model's weights."""
    peer = Literal().eval()
    weights = {key.removeprefix("backbone.net."): value.contiguous() for key, value in model.state_dict().items()}
    left = peer.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(key.startswith("upscore") for key in left.missing_keys)
    return peer


def rows_and_notes() -> tuple[list[Comparison], list[str]]:
    """The table and its notes."""
    rows, notes = [], []
    peer = literal(random_network("fcn8s", "vgg16", torch.float32))
    expected = forward(peer, random_image(SIDE).contiguous())()
    for dtype in DTYPES:
        kind = str(dtype).removeprefix("torch.")
        found = compare_forward(
            f"FCN-8s VGG-16, {SIDE}×{SIDE}, cpu, {kind}", random_network("fcn8s", "vgg16", dtype), peer, SIDE
        )
        rows.append(found.comparison)
        agree = (found.logits.argmax(1) == expected.argmax(1)).float().mean().item()
        notes.append(
            f"cpu, {kind}: {found.multiply_adds / 1e9:.0f} G multiply-adds, at best {found.share:.0f} % of the matrix "
            f"rate ({found.rate / 1e12:.3g} T multiply-adds/s, a product of side {MATRIX}); "
            f"{_memory('ours', kind)}; {100 * agree:.2f} % of labels equal the rewrite's."
        )
    count = multiply_adds(peer, random_image(SIDE))
    notes.append(f"cpu, rewrite: {count / 1e9:.0f} G multiply-adds; {_memory('literal', 'float32')}.")
    return rows, notes


def _memory(name: str, kind: str) -> str:
    """The memory of a contender, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fcn", name, kind]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    before, most = (int(size) / 1e6 for size in answer.split())
    return f"{before:.0f} MB before a forward pass, at most {most:.0f} MB in it"


def contend(name: str, kind: str) -> None:
    """Print resident bytes before a forward pass and their peak in it."""
    dtype = getattr(torch, kind)
    network = Literal().eval() if name == "literal" else random_network("fcn8s", "vgg16", dtype)
    run = forward(network, random_image(SIDE, dtype))
    gc.collect()
    reset_peak()  # forget how much building took
    before = peak_bytes()
    run()
    print(before, peak_bytes())


def main() -> None:
    rows, measured = rows_and_notes()
    notes = [
        "The paper: 210 ms for FCN-VGG16 at 500×500 (table 1), and about 175 ms for FCN-8s on VOC, both on a K40c.",
        "Both networks have the same random weights; ours is channels-last, and its bfloat16 includes the weights. "
        "Images are preprocessed beforehand, logits are float32 at the image's size.",
        f"{FLOOR_NOTE}; more than 100 % of it means convolutions with fewer multiplications, or a machine that was "
        "busy meanwhile.",
        *measured,
    ]
    write_comparisons("fcn", "FCN-8s forward pass", rows, seed=SEED, notes=notes)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        contend(*sys.argv[1:])
    else:
        main()
