"""Networks from preprocessed images on the GPU to logits of their size, beside other libraries' networks."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor, nn

import atrous
from benchmarks._images import SEED
from benchmarks.gpu._measure import (
    CLASSES,
    Failed,
    Measured,
    Rows,
    Sizes,
    attempt,
    installed,
    measured,
    operations,
    random_images,
)

SMP = "segmentation-models-pytorch"
Wrap = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Network:
    """A network as its paper or recipe has it, and another library's that is the same or nearly so."""

    architecture: str
    backbone: str
    output_stride: int | None = None
    options: dict[str, object] = field(default_factory=dict)
    peer: str | None = None

    @property
    def name(self) -> str:
        """Its name in the table."""
        stride = f", output stride {self.output_stride}" if self.output_stride else ""
        return f"{self.architecture} {self.backbone}{stride}"


SEPARABLE = {"separable": True}
LITE0 = Network("deeplabv3plus", "tf_efficientnet_lite0", 16, SEPARABLE, peer="smp:tu-tf_efficientnet_lite0")
RESNET101 = Network("deeplabv3plus", "resnet101", 16, peer="smp:resnet101")
NETWORKS = (
    Network("fcn8s", "vgg16"),
    Network("deeplab_largefov", "vgg16"),
    Network("deeplab_aspp", "vgg16"),
    Network("deeplab_aspp", "resnet101"),
    RESNET101,
    Network("deeplabv3plus", "xception65", 16, SEPARABLE),
    Network("deeplabv3plus", "mobilenetv2_100", 16, SEPARABLE, peer="smp:tu-mobilenetv2_100"),
    LITE0,
)
DILATED = (
    Network("deeplabv3", "resnet101", 8, peer="torchvision:deeplabv3_resnet101"),
    Network("fcn", "resnet101", 8, peer="torchvision:fcn_resnet101"),
)


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


def rows(networks: Sequence[Network], device: torch.device, sizes: Sizes, compiled: bool) -> Rows:
    """Each network, followed by its peer."""
    for network in networks:
        yield from ours(network, device, sizes, compiled)
        if network.peer:
            yield from theirs(network.peer, device, sizes)


def ours(case: Network, device: torch.device, sizes: Sizes, compiled: bool) -> Rows:
    """One of our networks: as prediction runs it, compiled if asked for, and with bfloat16 weights."""

    @cache
    def network() -> nn.Module:
        return build(case).to(device).to(memory_format=torch.channels_last)

    def run(name: str, batch: int, low: bool, wrap: Wrap | None) -> Measured:
        chosen = network().to(torch.bfloat16) if low else network()
        return forward(name, chosen, device, sizes, batch, low=low, wrap=wrap)

    forms: list[tuple[str, bool, Wrap | None]] = [("autocast", False, None)]
    if compiled:
        forms.append(("autocast, compiled", False, torch.compile))
    forms.append(("bfloat16 weights", True, None))  # last, as the network stays so
    for (form, low, wrap), batch in itertools.product(forms, sizes.batches):
        name = f"{case.name}, {form}, batch {batch}"
        yield attempt(name, partial(run, name, batch, low, wrap))


def build(case: Network) -> nn.Module:
    """A network of ours with random weights."""
    torch.manual_seed(SEED)
    stride = {"output_stride": case.output_stride} if case.output_stride else {}
    options = {**stride, **case.options}
    return atrous.create_model(case.architecture, backbone=case.backbone, num_classes=CLASSES, **options).eval()


def theirs(which: str, device: torch.device, sizes: Sizes) -> Rows:
    """A peer, as its documentation says, and in channels-last memory."""
    if which.startswith("smp:") and not installed(SMP):
        yield Failed(f"peer {which}", f"{SMP} is not installed")
        return

    @cache
    def network() -> nn.Module:
        return Peer(which).to(device)

    def run(name: str, batch: int, last: bool) -> Measured:
        peer = network().to(memory_format=torch.channels_last) if last else network()
        return forward(name, peer, device, sizes, batch, last=last)

    for last, batch in itertools.product((False, True), sizes.batches):  # channels-last second: the network stays so
        name = f"peer {which}, autocast{', channels-last' if last else ''}, batch {batch}"
        yield attempt(name, partial(run, name, batch, last))


def forward(
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
    """A forward pass on a batch of images.

    Args:
        name: of the row.
        network: on the device, in eval mode.
        device: its device.
        sizes: the size of the images.
        batch: their number.
        low: weights and images are bfloat16; otherwise they are float32, under autocast.
        last: channels-last memory.
        wrap: turns the network into what is called.
    """
    images = random_images(device, batch, sizes.side).to(torch.bfloat16 if low else torch.float32)
    if last:
        images = images.contiguous(memory_format=torch.channels_last)
    autocast = nullcontext() if low else torch.autocast(device.type, torch.bfloat16)
    with torch.inference_mode(), autocast:  # one context for all calls: autocast casts the weights once in it
        count = operations(partial(network, images[:1])) * batch
        work = partial(wrap(network) if wrap else network, images)
        return measured(name, work, device, images=batch, operations=count)
