"""What a GPU gives: networks, training, the dense CRF and label maps: ``python -m benchmarks.gpu``, about a minute.

Each row stands alone: one that fails says why, and the others go on. ``--trial`` shows on any machine that all of it
runs, at sizes that say nothing.
"""

from __future__ import annotations

import argparse
import copy
import gc
import importlib.metadata
import itertools
import statistics
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import atrous
from atrous.crf import Bilateral, DenseCRF, Gaussian, unary_from_logits
from atrous.grid import Grid
from atrous.inference.demo import find_demo_images
from atrous.ops.depthwise.op import compiled_depthwise
from atrous.ops.labelmap.op import logits_to_labels
from benchmarks._harness import RESULTS, Table, Work, origin_of, write_sections
from benchmarks._images import SEED, make_images

CLASSES = 21
WARM, LEAST, FEWEST, MOST = 3, 0.2, 5, 200
"""Calls that don't count; seconds that counted ones fill, and how many they are."""
SMP = "segmentation-models-pytorch"


@dataclass(frozen=True)
class Sizes:
    """How large the work is."""

    matrix: int = 8192
    copied: int = 1 << 30
    side: int = 512
    batches: tuple[int, ...] = (1, 32)
    crop: int = 513
    batch: int = 16
    crf: tuple[int, int] = (333, 500)
    labels: tuple[int, int] = (1024, 2048)


TRIAL = Sizes(256, 1 << 20, 64, (1, 2), 65, 2, (33, 50), (64, 128))


@dataclass(frozen=True)
class Network:
    """A network as its paper or recipe has it, and those of others that are the same or nearly so."""

    architecture: str
    backbone: str
    output_stride: int | None = None
    options: dict[str, object] = field(default_factory=dict)
    peer: str | None = None

    @property
    def name(self) -> str:
        stride = f", output stride {self.output_stride}" if self.output_stride else ""
        return f"{self.architecture} {self.backbone}{stride}"


SEPARABLE = {"separable": True}
NETWORKS = (
    Network("fcn8s", "vgg16"),
    Network("deeplab_largefov", "vgg16"),
    Network("deeplab_aspp", "vgg16"),
    Network("deeplab_aspp", "resnet101"),
    Network("deeplabv3plus", "resnet101", 16, peer="smp:resnet101"),
    Network("deeplabv3plus", "xception65", 16, SEPARABLE),
    Network("deeplabv3plus", "mobilenetv2_100", 16, SEPARABLE, peer="smp:tu-mobilenetv2_100"),
    Network("deeplabv3plus", "tf_efficientnet_lite0", 16, SEPARABLE, peer="smp:tu-tf_efficientnet_lite0"),
)
DILATED = (
    Network("deeplabv3", "resnet101", 8, peer="torchvision:deeplabv3_resnet101"),
    Network("fcn", "resnet101", 8, peer="torchvision:fcn_resnet101"),
)
TRAINED = (NETWORKS[7], NETWORKS[4])


@dataclass(frozen=True)
class Measured:
    """What some calls of a work took.

    Args:
        work: what it is.
        seconds: of each call.
        images: a call; 0 where it is about none.
        operations: floating-point operations a call, 2 for a multiply-add; 0 where they are not what it is about.
        memory: most bytes at once beyond what was held before.
        said: what else is to be told.
    """

    work: str
    seconds: list[float]
    images: int = 1
    operations: float = 0.0
    memory: int = 0
    said: str = ""


@dataclass(frozen=True)
class Failed:
    """A work that could not be measured, and why."""

    work: str
    reason: str


Row = Measured | Failed
Section = Iterator[Row]


def attempt(work: str, measure: Callable[[], Measured]) -> Row:
    """A row, whatever happens."""
    try:
        row: Row = measure()
    except Exception as error:  # a benchmark of twenty rows does not end with one of them
        traceback.print_exc()
        row = Failed(work, f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    told = f"{1000 * statistics.median(row.seconds):.3f} ms  {row.said}" if isinstance(row, Measured) else row.reason
    print(f"{work}: {told}", flush=True)
    return row


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def clocked(work: Work, device: torch.device) -> list[float]:
    """Seconds from the end of a call to the end of the next, of calls one behind the other."""
    for _ in range(WARM):
        work()
    synchronise(device)
    begin = time.perf_counter()
    work()
    synchronise(device)
    calls = min(MOST, max(FEWEST, round(LEAST / (time.perf_counter() - begin))))
    if device.type != "cuda":
        ends = [time.perf_counter()]
        for _ in range(calls):
            work()
            ends.append(time.perf_counter())
        return [b - a for a, b in itertools.pairwise(ends)]
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(calls + 1)]
    marks[0].record()
    for mark in marks[1:]:
        work()
        mark.record()
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1000 for a, b in itertools.pairwise(marks)]


def measured(name: str, work: Work, device: torch.device, **facts: object) -> Measured:
    """A work's times and memory."""
    held = 0
    if device.type == "cuda":
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    seconds = clocked(work, device)
    memory = torch.cuda.max_memory_allocated() - held if device.type == "cuda" else 0
    return Measured(name, seconds, memory=memory, **facts)  # type: ignore[arg-type]


def operations(work: Work) -> float:
    """Floating-point operations of a call, by PyTorch's counter."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def card(device: torch.device, sizes: Sizes) -> Section:
    """The rates that all others are held to."""

    def product() -> Measured:
        a, b = (torch.randn(sizes.matrix, sizes.matrix, device=device, dtype=torch.bfloat16) for _ in range(2))
        work = partial(torch.mm, a, b, out=torch.empty_like(a))
        return measured(
            f"matrix product, bfloat16, {sizes.matrix}³", work, device, images=0, operations=2.0 * sizes.matrix**3
        )

    def copying() -> Measured:
        source = torch.randint(256, (sizes.copied,), device=device, dtype=torch.uint8)
        row = measured(
            f"copy of {sizes.copied / 2**20:.0f} MiB", partial(torch.empty_like(source).copy_, source), device
        )
        rate = 2 * sizes.copied / statistics.median(row.seconds)
        return replace(row, images=0, said=f"{rate / 1e12:.2f} TB/s, read and written")

    yield attempt("matrix product", product)
    yield attempt("copy", copying)


def random_images(device: torch.device, batch: int, side: int) -> Tensor:
    coarse = torch.randn(batch, 3, 20, 20, generator=torch.Generator().manual_seed(SEED))
    return F.interpolate(coarse.to(device), (side, side), mode="bicubic")


Wrap = Callable[[nn.Module], nn.Module]


def forwards(
    name: str,
    network: nn.Module,
    device: torch.device,
    sizes: Sizes,
    batch: int,
    *,
    low: bool = False,
    last: bool = True,
    wrap: Wrap | None = None,
) -> Measured:
    """A network on a batch of images.

    Args:
        name: of the row.
        network: on the device, in eval mode.
        device: where.
        sizes: of the images.
        batch: how many.
        low: weights and images are bfloat16; else they are float32, under autocast.
        last: channels-last memory.
        wrap: makes of the network what is called.
    """
    images = random_images(device, batch, sizes.side).to(torch.bfloat16 if low else torch.float32)
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    autocast = nullcontext() if low else torch.autocast(device.type, torch.bfloat16)
    with torch.inference_mode(), autocast:  # one context for all calls: autocast casts the weights once in it
        count = operations(partial(network, images[:1])) * batch
        work = partial(wrap(network) if wrap else network, images)
        return measured(name, work, device, images=batch, operations=count)


class Peer(nn.Module):
    """A network of another library, called as its documentation says."""

    def __init__(self, which: str) -> None:
        super().__init__()
        library, _, name = which.partition(":")
        if library == "torchvision":
            from torchvision.models import segmentation

            build = getattr(segmentation, name)
            self.network = build(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
        else:
            import segmentation_models_pytorch as smp

            self.network = smp.DeepLabV3Plus(name, encoder_weights=None, classes=CLASSES).eval()

    def forward(self, images: Tensor) -> Tensor:
        found = self.network(images)
        logits: Tensor = found["out"] if isinstance(found, dict) else found
        return logits


def inference(cases: Sequence[Network], device: torch.device, sizes: Sizes, compiled: bool) -> Section:
    """Networks from preprocessed images on the device to logits of their size."""
    for case in cases:
        yield from ours(case, device, sizes, compiled)
        if case.peer:
            yield from theirs(case.peer, device, sizes)


def ours(case: Network, device: torch.device, sizes: Sizes, compiled: bool) -> Section:
    """One of our networks: as prediction runs it, compiled if that is asked for, and with bfloat16 weights."""

    @cache
    def network() -> nn.Module:
        torch.manual_seed(SEED)
        stride = {"output_stride": case.output_stride} if case.output_stride else {}
        model = atrous.create_model(
            case.architecture, backbone=case.backbone, num_classes=CLASSES, **stride, **case.options
        )
        return model.eval().to(device).to(memory_format=torch.channels_last)

    def run(name: str, batch: int, low: bool, wrap: Wrap | None) -> Measured:
        chosen = network().to(torch.bfloat16) if low else network()
        return forwards(name, chosen, device, sizes, batch, low=low, wrap=wrap)

    forms: list[tuple[str, bool, Wrap | None]] = [("autocast", False, None)]
    if compiled:
        forms.append(("autocast, compiled", False, torch.compile))
    forms.append(("bfloat16 weights", True, None))  # the last, as the network stays so
    for (form, low, wrap), batch in itertools.product(forms, sizes.batches):
        name = f"{case.name}, {form}, batch {batch}"
        yield attempt(name, partial(run, name, batch, low, wrap))


def theirs(which: str, device: torch.device, sizes: Sizes) -> Section:
    """A peer, as its users run it, and with the memory format that a careful one gives it."""
    if which.startswith("smp:") and not installed(SMP):
        yield Failed(f"peer {which}", f"{SMP} is not installed")
        return

    @cache
    def network() -> nn.Module:
        return Peer(which).to(device)

    def run(name: str, batch: int, last: bool) -> Measured:
        peer = network().to(memory_format=torch.channels_last) if last else network()
        return forwards(name, peer, device, sizes, batch, last=last)

    for last, batch in itertools.product((False, True), sizes.batches):  # the latter last, as the network stays so
        name = f"peer {which}, autocast{', channels-last' if last else ''}, batch {batch}"
        yield attempt(name, partial(run, name, batch, last))


def training(device: torch.device, sizes: Sizes, autotune: bool) -> Section:
    """The steps of a training, from a batch in pinned memory to new weights and their average."""
    with tempfile.TemporaryDirectory() as folder:
        room = Path(folder)
        make_images(room, sizes.batch)
        for case, tuned in itertools.product(TRAINED, (False, True)[: 1 + autotune]):
            name = f"step of {case.name}, {sizes.batch} × {sizes.crop}²" + (", cudnn.benchmark" if tuned else "")
            yield attempt(name, partial(steps, name, case, room, device, sizes, tuned))


def steps(name: str, case: Network, room: Path, device: torch.device, sizes: Sizes, tuned: bool) -> Measured:
    from atrous.training.recipe import check_recipe
    from atrous.training.trainer import Trainer

    table = {
        "model": {
            "name": case.architecture,
            "backbone": case.backbone,
            "output_stride": case.output_stride,
            "pretrained": False,
            "options": case.options,
        },
        "data": {"train": f"folder:{room}", "val_split": "none", "workers": 0},
        "augment": {"crop": sizes.crop},
        "training": {"batch_size": sizes.batch, "steps": 100_000, "ema": 0.999},
    }
    trainer = Trainer(check_recipe(table, "benchmark"), room / "run")
    with torch.inference_mode():
        count = 3 * sizes.batch * operations(partial(trainer.model.eval(), random_images(device, 1, sizes.crop)))
    trainer.make_trainable()
    stream = itertools.repeat(next(trainer.batches(0)))
    numbers = itertools.count()
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = tuned
    try:
        return measured(name, lambda: trainer.step(next(numbers), stream), device, images=sizes.batch, operations=count)
    finally:
        torch.backends.cudnn.benchmark = before


def crf(device: torch.device, sizes: Sizes) -> Section:
    """The dense CRF with both kernels, set-up included, on an image with the bundled model's scores."""
    refine = DenseCRF([Gaussian(sxy=3, weight=3), Bilateral(sxy=80, srgb=13, weight=10)], iterations=10)
    there = copy.deepcopy(refine).to(device)
    height, width = sizes.crf
    name = f"dense CRF, {width}×{height}, {CLASSES} classes, 10 iterations"

    def run() -> Measured:
        image, unary = image_and_energies(height, width)
        expected = refine.track(image, unary).q  # in plain torch, on the CPU
        image, unary = image.to(device), unary.to(device)
        q = there(image, unary).cpu()
        off, same = float((q - expected).abs().max()), float((q.argmax(0) == expected.argmax(0)).float().mean())
        said = f"largest difference from plain torch on the CPU {off:.0e}, {100 * same:.3f} % of labels the same"
        row = measured(name, partial(there, image, unary), device)
        return replace(row, said=said)

    def labels() -> Measured:
        image, unary = (tensor.to(device) for tensor in image_and_energies(height, width))
        return measured(f"{name}: labels", partial(there.label_set, image, unary), device)

    yield attempt(name, run)
    yield attempt(f"{name}: labels", labels)


def image_and_energies(height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image that an installed package carries, uint8 ``(H, W, 3)``, and energies ``(C, H, W)`` of it."""
    with Image.open(find_demo_images()[0]) as opened:
        pixels = torch.frombuffer(bytearray(opened.convert("RGB").resize((width, height)).tobytes()), dtype=torch.uint8)
    image = pixels.view(height, width, 3)
    model = atrous.load("deeplabv3plus_lite0_voc")
    with torch.inference_mode():
        scores = model(model.preprocess(image.permute(2, 0, 1)[None]))[0]
    return image, unary_from_logits(scores.clone())


def label_maps(device: torch.device, sizes: Sizes) -> Section:
    """Scores at network resolution to labels of the image's size, in both memory formats, beside the usual way."""
    classes, stride, (height, width) = 19, 4, sizes.labels
    grid = Grid(stride, (stride - 1) / 2)  # where half-pixel resizing puts the positions, so both do the same
    coarse = torch.randn(1, classes, 8, 16, generator=torch.Generator().manual_seed(SEED))
    scores = F.interpolate(coarse.to(device), (height // stride, width // stride), mode="bicubic")

    def usual(scores: Tensor) -> Tensor:
        full = F.interpolate(scores, (height, width), mode="bilinear", align_corners=False)
        return full.argmax(1).to(torch.uint8)

    def mine(scores: Tensor) -> Tensor:
        return logits_to_labels(scores, grid, (height, width))

    def run(name: str, work: Callable[[Tensor], Tensor], memory_format: torch.memory_format) -> Measured:
        given = scores.contiguous(memory_format=memory_format)
        different = int((work(given) != usual(scores)).sum())
        row = measured(name, partial(work, given), device)
        return replace(row, said=f"{different} labels differ")

    for form, memory_format in (("", torch.contiguous_format), (", channels-last", torch.channels_last)):
        for who, work in (("logits_to_labels", mine), ("interpolate + argmax", usual)):
            name = f"{who}, {classes}×{height // stride}×{width // stride} → {height}×{width}{form}"
            yield attempt(name, partial(run, name, work, memory_format))


LAYERS = (
    (728, 33, 3, 2, 1),
    (2048, 33, 3, 12, 1),
    (256, 129, 3, 1, 1),
    (320, 33, 3, 12, 1),
    (960, 33, 5, 2, 1),
    (96, 257, 3, 1, 2),
    (144, 129, 5, 1, 2),
)
"""Depthwise layers: channels, side of the map, kernel, rate, stride."""


def depthwise(device: torch.device, sizes: Sizes) -> Section:
    """Depthwise layers, forward and backward, as cuDNN has them in both memory formats, and ours in channels-last."""
    for (channels, side, *geometry), form in itertools.product(LAYERS, ("ours", "channels-last", "contiguous")):
        kernel, rate, stride = geometry
        name = f"{kernel}×{kernel} rate {rate} stride {stride}, {sizes.batch}×{channels}×{side}², {form}"
        yield attempt(name, partial(layer, name, device, (sizes.batch, channels, side, side), geometry, form))


def layer(
    name: str, device: torch.device, shape: tuple[int, int, int, int], geometry: Sequence[int], form: str
) -> Measured:
    kernel, rate, stride = geometry
    memory_format = torch.contiguous_format if form == "contiguous" else torch.channels_last
    x = torch.randn(shape, device=device, dtype=torch.bfloat16).contiguous(memory_format=memory_format)
    weight = torch.randn(shape[1], 1, kernel, kernel, device=device, dtype=torch.bfloat16)

    def forward() -> Tensor:
        with compiled_depthwise(x) if form == "ours" else nullcontext():
            return F.conv2d(x, weight, None, stride, rate * (kernel // 2), rate, shape[1])

    looks = statistics.median(clocked(forward, device))
    x.requires_grad_()
    weight.requires_grad_()
    gradient = torch.randn_like(forward())

    def work() -> None:
        torch.autograd.grad(forward(), (x, weight), gradient)

    moved = 3 * (x.numel() + gradient.numel()) * x.element_size()  # x twice and its gradient, y, its gradient twice
    row = measured(name, work, device, images=0)
    rate_of = moved / statistics.median(row.seconds)
    said = f"forward alone {1000 * looks:.3f} ms; both {rate_of / 1e12:.2f} TB/s of what must be moved"
    return replace(row, said=said)


def installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


HEADER = ["work", "median (best)", "images/s", "TFLOP/s", "share of matrix rate", "memory", "besides"]


def words(row: Row, rate: float | None) -> list[str]:
    """A row as its table shows it; ``rate`` is the card's, in operations a second."""
    if isinstance(row, Failed):
        return [row.work, "FAILED", "–", "–", "–", "–", row.reason.replace("|", "/")]
    median = statistics.median(row.seconds)
    reached = row.operations / median
    return [
        row.work,
        f"{1000 * median:.3g} ms ({1000 * min(row.seconds):.3g})",
        f"{row.images / median:.4g}" if row.images else "–",
        f"{reached / 1e12:.3g}" if reached else "–",
        f"{100 * reached / rate:.0f} %" if reached and rate else "–",
        f"{row.memory / 1e6:.0f} MB" if row.memory else "–",
        row.said,
    ]


def facts(row: Row) -> dict[str, object]:
    told = asdict(row)
    if isinstance(row, Measured):
        told |= {
            "seconds": {"median": statistics.median(row.seconds), "best": min(row.seconds), "calls": len(row.seconds)}
        }
    return told


def table(key: str, heading: str, rows: Sequence[Row], rate: float | None) -> Table:
    """A section's rows; ``rate`` is the card's, in operations a second."""
    return Table(key, heading, [HEADER, *(words(row, rate) for row in rows)], [facts(row) for row in rows])


NOTES = (
    "Times are from the end of a call to the end of the next, by the GPU's own clock, medians after some calls that do "
    "not count. Memory is the most at once beyond weights and input.",
    "Operations by PyTorch's counter, 2 for a multiply-add; the share is of the matrix product in the same run. The "
    "interpolation of logits is among them, as matrix products. A training step has three times those of its forward "
    "(the counter takes the gradients of depthwise layers for those of full ones).",
    "autocast: float32 weights under bfloat16 autocast, as predict, evaluate and training run. Images are on the "
    "device, preprocessed; logits are float32 at the image's size.",
    "Peers run once as their documentation says, under autocast, and once more channels-last.",
    "A training step is all of it: the batch from pinned memory, loss at the image's size, gradients and their norm, "
    "SGD, the average of the weights; its images are read beforehand.",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of gpu.md and gpu.json")
    parser.add_argument("--only", help="some sections, separated by commas")
    parser.add_argument("--compile", action="store_true", help="networks through torch.compile too: minutes")
    parser.add_argument("--autotune", action="store_true", help="training with cudnn.benchmark too")
    parser.add_argument("--commit", help="what is measured, where a copy of the tree does not know it")
    parser.add_argument("--trial", action="store_true", help="tiny sizes, on the CPU if there is no GPU")
    options = parser.parse_args()
    if not (torch.cuda.is_available() or options.trial):
        raise SystemExit("there is no GPU here; --trial shows that the benchmark runs")
    if options.trial and options.out == RESULTS:
        options.out = Path(tempfile.mkdtemp())
        print(f"a trial goes to {options.out}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sizes = TRIAL if options.trial else Sizes()
    sections: dict[str, tuple[str, Section]] = {
        "card": ("The card", card(device, sizes)),
        "crf": ("Dense CRF", crf(device, sizes)),
        "labels": ("Scores to labels", label_maps(device, sizes)),
        "training": ("Training", training(device, sizes, options.autotune)),
        "inference": (f"Inference, {sizes.side}×{sizes.side}", inference(NETWORKS, device, sizes, options.compile)),
        "dilated": ("Inference: dilated ResNet-101", inference(DILATED, device, sizes, options.compile)),
        "depthwise": ("Depthwise layers, forward and backward", depthwise(device, sizes)),
    }
    rate: float | None = None
    for key, (heading, section) in sections.items():
        if options.only and key not in options.only.split(","):
            continue
        begin, rows = time.perf_counter(), list(section)
        print(f"— {heading}: {time.perf_counter() - begin:.0f} s", flush=True)
        if key == "card" and isinstance(rows[0], Measured):
            rate = rows[0].operations / statistics.median(rows[0].seconds)
        write_sections(  # after each section: a run that is cut short has what it has
            "gpu",
            "On a GPU",
            [table(key, heading, rows, rate)],
            origin=origin_of("gpu", seed=SEED, peers=[SMP] if installed(SMP) else [], commit=options.commit),
            notes=NOTES,
            out=options.out,
        )


if __name__ == "__main__":
    main()
