"""One network over several scales of an image, with merged logits (DeepLab v2, arXiv 1606.00915, §3.2; Attention to
Scale, arXiv 1511.03339).

Position *p* of an image at scale *s* shows position *p / s* of the original. A side has ``(n − 1) · s + 1`` positions,
so that sides of 32k + 1 keep their corners (513 → 385 and 257). Logits are merged at network resolution, on the grid of
the finest scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import Grid, resample
from atrous.models.backbones.base import Backbone, larger
from atrous.models.base import Output, SegmentationModel
from atrous.models.layers import full_precision
from atrous.models.transfer import Transfer

Merge = Literal["max", "average", "attention"]
SMALLEST, LARGEST = 0.125, 8
"""Bounds of a scale."""
_FINEST = 2**16
"""Largest denominator of a scale in an exported network: sizes must not leave 64 bits."""


class Scale(NamedTuple):
    """What the network computes from an image at one scale; the grids are in pixels of the original."""

    output: Output
    embedding: list[Tensor]
    grid: Grid


class MultiScale(SegmentationModel):
    """A network applied to each image at several scales, with shared weights.

    Args:
        base: the shared network.
        scales: of the image; 1 is its own size.
        merge: ``max`` or ``average`` of the logits at each position and class; may be set at any time.
        extra_supervision: train on the logits of each scale too, with weight 1, beside the merged ones.

    Raises:
        InputError: no scales, one out of bounds, or twice the same; an unknown merge; a base that has scales of its own
            or auxiliary heads.
    """

    merges: tuple[Merge, ...] = ("max", "average")
    _optional = (*SegmentationModel._optional, "attention.")

    def __init__(self, base: SegmentationModel, scales: Sequence[float], merge: Merge, extra_supervision: bool) -> None:
        check_scales(scales)
        if isinstance(base, MultiScale):
            raise InputError("the shared network has one scale: leave out the scales of its own")
        if base.auxiliary_heads:
            raise InputError(
                f"the shared network has one head, and this {base.name} more ({', '.join(base.auxiliary_heads)}): "
                "leave out base_options' aux and heads"
            )
        super().__init__(base.backbone, base.label_set)
        del self.backbone  # saved and trained as part of the base
        self.base = base
        self.scales = tuple(float(scale) for scale in scales)
        self.extra_supervision = extra_supervision
        self.preprocessing, self.fade = base.preprocessing, base.fade
        self.pad_to, base.pad_to = base.pad_to, 0  # before the image is scaled
        self.merge = merge

    @property
    def backbone(self) -> Backbone:  # type: ignore[override]
        """That of the shared network."""
        return self.base.backbone

    @property
    def merge(self) -> Merge:
        """How the logits of the scales are merged; may be set at any time, and is saved with the model."""
        return self._merge

    @merge.setter
    def merge(self, value: str) -> None:
        for merge in self.merges:
            if value == merge:
                self._merge: Merge = merge
                return
        raise InputError(f"merge is one of {', '.join(self.merges)}, not '{value}'")

    @property
    def settings(self) -> dict[str, int | str]:
        """The output stride and the merge."""
        return {**super().settings, "merge": self.merge}

    @property
    def finest(self) -> int:
        """Index of the scale on whose grid logits are merged."""
        return self.scales.index(max(self.scales))

    def inherited(self) -> Iterator[nn.Parameter]:
        """Those of the shared network."""
        return self.base.inherited()

    def follow_output_stride(self) -> None:
        self.base.follow_output_stride()

    def _outputs(self, images: Tensor) -> list[Output]:
        """The merged logits, and those of each scale with extra supervision."""
        seen = self._look(images)
        return [self._merged(seen), *(scale.output for scale in seen if self.extra_supervision)]

    def start_from(self, source: SegmentationModel) -> Transfer:
        """Copy the weights of another model of the same network, or of one of a single scale."""
        if isinstance(source, MultiScale):
            return super().start_from(source)
        transferred = self.base.start_from(source)
        self.preprocessing = self.base.preprocessing
        return transferred

    def _main_output(self, images: Tensor) -> Output:
        return self._merged(self._look(images))

    def _look(self, images: Tensor) -> list[Scale]:
        images = self._padded(images)
        return [self._at(images, scale) for scale in self.scales]

    def _at(self, images: Tensor, scale: float) -> Scale:
        result = self.base.apply_head(self.base._features(scaled(images, scale)))
        return Scale(
            Output(f"scale_{scale:g}", result.logits, result.grid.unscaled(scale), fade=self.fade),
            result.embedding,
            result.embedding_grid.unscaled(scale),
        )

    def _merged(self, seen: list[Scale]) -> Output:
        logits = self._aligned(seen)
        merged = logits.amax(0) if self.merge == "max" else logits.mean(0)
        return Output("main", merged, seen[self.finest].output.grid, fade=self.fade)

    def _aligned(self, seen: list[Scale]) -> Tensor:
        """The logits of all scales on the grid of the finest one, float32 ``(S, B, C, h, w)``."""
        target = seen[self.finest].output
        size = (target.logits.shape[-2], target.logits.shape[-1])
        with full_precision(target.logits):
            return torch.stack([resample(s.output.logits.float(), s.output.grid, target.grid, size) for s in seen])


def check_scales(scales: Sequence[float]) -> None:
    """Check scales of an image, for training as for inference.

    Raises:
        InputError: no scales, the same one twice, or one out of bounds.
    """
    if not scales or len(set(scales)) < len(scales) or not all(SMALLEST <= scale <= LARGEST for scale in scales):
        raise InputError(
            f"scales are one or more different factors such as 0.75, {SMALLEST} to {LARGEST}, not {list(scales)}"
        )


def scaled_size(size: int, scale: float) -> int:
    """The side of an image at a scale: ``(n − 1) · s + 1``, rounded down."""
    if not torch.compiler.is_exporting():
        return int((size - 1) * scale + 1)
    above, below = scale.as_integer_ratio()  # sizes are symbols, and symbols are integers
    if below > _FINEST:
        raise InputError(
            f"an exported network has scales that are fractions of small integers, such as 0.75, not {scale}"
        )
    return (size - 1) * above // below + 1


def scaled(images: Tensor, scale: float) -> Tensor:
    """Images ``(B, C, H, W)`` at a scale: sampled bilinearly, the first pixel stays at its place."""
    if scale == 1:
        return images
    # Not resample: at the image's own size, its matrices would be larger than the image.
    rows, columns = (_places(n, scale, images.device) for n in images.shape[-2:])
    height, width = rows.shape[0], columns.shape[0]
    places = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width)], -1)  # (h, w, 2)
    places = places.expand(images.shape[0], -1, -1, -1)
    with full_precision(images):
        result = F.grid_sample(images.float(), places, "bilinear", "border", align_corners=True)
    return result.to(images)


def _places(size: int, scale: float, device: torch.device) -> Tensor:
    """Sampling positions along a side: −1 is the first pixel, 1 the last."""
    # A copy would keep the host waiting for a GPU; some other devices have no float64.
    home = device if device.type == "cuda" else torch.device("cpu")
    positions = torch.arange(scaled_size(size, scale), dtype=torch.float64, device=home) / scale
    return (2 * positions / larger(1, size - 1) - 1).to(device, torch.float32)
