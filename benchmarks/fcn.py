"""A forward of FCN-8s on VGG-16 on the CPU beside a literal rewrite: ``python -m benchmarks.fcn``."""

from __future__ import annotations

import gc
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from atrous.models import SegmentationModel, create_model
from atrous.models.layers import bilinear_kernel
from benchmarks._harness import Comparison, Work, compare, write

SEED = 0
SIDE, CLASSES = 500, 21
ROUNDS = 5
BLOCKS = ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512))
PEER = "literal rewrite, float32"
MATRIX = 4096
"""Side of the matrices whose product tells the machine's rate."""


class Literal(nn.Module):
    """FCN-8s as github.com/wkentaro/pytorch-fcn writes it: dense transposed convolutions, crops."""

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        self.layers: list[tuple[str, ...]] = []
        for block, (count, width) in enumerate(BLOCKS, 1):
            names = tuple(f"conv{block}_{number}" for number in range(1, count + 1))
            for name in names:
                self.add_module(name, nn.Conv2d(inputs, width, 3, padding=100 if name == "conv1_1" else 1))
                inputs = width
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


def ours(dtype: torch.dtype) -> SegmentationModel:
    """With random weights that keep what is in an image, down to scores that differ."""
    torch.manual_seed(SEED)
    model = create_model("fcn8s", backbone="vgg16", num_classes=CLASSES).eval()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return model.to(dtype, memory_format=torch.channels_last)


def literal(model: SegmentationModel) -> Literal:
    peer = Literal().eval()
    weights = {key.removeprefix("backbone.net."): value.contiguous() for key, value in model.state_dict().items()}
    left = peer.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(key.startswith("upscore") for key in left.missing_keys)
    return peer


def image(side: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(SEED)
    coarse = torch.randn(1, 3, 20, 20, generator=generator)
    images = F.interpolate(coarse, (side, side), mode="bicubic").to(dtype)
    return images.contiguous(memory_format=torch.channels_last)


def forward(network: nn.Module, images: Tensor) -> Work:
    def run() -> Tensor:
        with torch.inference_mode():
            logits: Tensor = network(images)
            return logits

    return run


def matrix_rate(dtype: torch.dtype) -> float:
    """Multiply-adds a second of a large matrix product: the best of six."""
    a, b = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))

    def seconds() -> float:
        begin = time.perf_counter()
        torch.mm(a, b)
        return time.perf_counter() - begin

    return MATRIX**3 / min(seconds() for _ in range(6))


def multiply_adds(network: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(images)
    return counter.get_total_flops() // 2


def rows_and_notes() -> tuple[list[Comparison], list[str]]:
    rows, notes = [], []
    model = ours(torch.float32)
    peer = literal(model)
    theirs = forward(peer, image(SIDE, torch.float32).contiguous())
    expected = theirs()
    for dtype in (torch.float32, torch.bfloat16):
        kind = str(dtype).removeprefix("torch.")
        network = model if dtype == torch.float32 else ours(dtype)
        images = image(SIDE, dtype)
        work = forward(network, images)
        logits = work()
        away = ((logits - expected).abs().max() / expected.abs().max()).item()
        agree = (logits.argmax(1) == expected.argmax(1)).float().mean().item()
        assert away < (1e-4 if dtype == torch.float32 else 0.1), f"{kind} scores differ by {away:.1e}"
        count, rate = multiply_adds(network, images), matrix_rate(dtype)
        row = compare(
            f"FCN-8s VGG-16, {SIDE}×{SIDE}, cpu, {kind}",
            work,
            theirs,
            peer_name=PEER,
            floor=count / rate,
            rounds=ROUNDS,
        )
        rows.append(row)
        share = count / rate / min(row.ours_seconds)
        notes.append(
            f"cpu, {kind}: {count / 1e9:.0f} G multiply-adds, at best {100 * share:.0f} % of the matrix rate "
            f"({rate / 1e12:.3g} T multiply-adds/s, a product of side {MATRIX}); "
            f"{_memory('ours', kind)}; {100 * agree:.2f} % of labels as the rewrite's."
        )
    count = multiply_adds(peer, image(SIDE, torch.float32))
    notes.append(f"cpu, rewrite: {count / 1e9:.0f} G multiply-adds; {_memory('literal', 'float32')}.")
    return rows, notes


def _memory(name: str, kind: str) -> str:
    """The memory of a contender, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.fcn", name, kind]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    before, most = (int(size) / 1e6 for size in answer.split())
    return f"{before:.0f} MB before a forward, at most {most:.0f} MB in it"


def contend(name: str, kind: str) -> None:
    """Print the bytes that are held before a forward, and the most that are in it."""
    dtype = getattr(torch, kind)
    network = Literal().eval() if name == "literal" else ours(dtype)
    run = forward(network, image(SIDE, dtype))
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget how much building took
    before = resident()
    run()
    print(before, resident())


def resident() -> int:
    """The most bytes of this process that were in memory at once (Linux)."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def main() -> None:
    rows, said = rows_and_notes()
    notes = [
        "The paper: 210 ms for FCN-VGG16 at 500×500 (table 1), and about 175 ms for FCN-8s on VOC, both on a K40c.",
        "Both networks hold the same random weights; ours is channels-last, and its bfloat16 is in the weights too. "
        "Images are preprocessed beforehand, logits are float32 at the image's size.",
        "Floor: our multiply-adds at the rate of a large matrix product in the same type, measured in this run; more "
        "than 100 % of it means convolutions done with fewer multiplications, or a machine that was busy meanwhile.",
        *said,
    ]
    write("fcn", "FCN-8s forward", rows, seed=SEED, peers=(), notes=notes)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        contend(*sys.argv[1:])
    else:
        main()
