"""FCN (Long, Shelhamer and Darrell, CVPR 2015, arXiv 1411.4038): classifiers turned fully convolutional, with skips.

On ``alexnet``, ``caffenet`` and ``vgg11`` to ``vgg19_bn`` the networks have the form of the released models: pad 100,
bilinear deconvolutions, crops; their output stride is 32. On ``googlenet``, and on any timm backbone with features at
strides 8, 16 and 32, coarse logits are sampled at the positions of the finer ones; a timm backbone's output
stride can be set. Names joined by ``+`` are backbones side by side, each with its share of the channels: late fusion
(§5, NYUDv2).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from atrous.errors import InputError
from atrous.grid import Grid, resample
from atrous.labels import LabelSet, one_class_message
from atrous.models.backbones.base import NATIVE_STRIDE, Backbone
from atrous.models.backbones.fcn import BACKBONES
from atrous.models.base import HeadResult, Output, Preprocessing, SegmentationModel
from atrous.models.create import create_model
from atrous.models.layers import FCNHead, bilinear_kernel
from atrous.models.options import Positive, Probability
from atrous.models.registry import register_model


class Skip(NamedTuple):
    """A finer feature map whose logits are added; it is multiplied by ``scale`` before its scorer."""

    scorer: str
    upsampling: str
    feature: int
    scale: float


class FCN(SegmentationModel):
    """Logits of the last features, to which those of finer ones are added from coarse to fine (§4.2).

    Its tensors are named as in the released models, also where a backbone has no pools: ``score_fr`` reads the
    features at stride 32, ``score_pool4`` those at 16, ``score_pool3`` those at 8. All scorers are 1×1 convolutions and
    start at zero.
    """

    _optional = (*SegmentationModel._optional, "score_pool", "upscore")

    def __init__(
        self,
        backbone: Backbone,
        label_set: LabelSet,
        scales: Mapping[int, float],
        dropout: Probability | None,
        heads: Mapping[str, int],
    ) -> None:
        super().__init__(backbone, label_set)
        self.heads = {"main": len(label_set), **heads}
        self.width = sum(self.heads.values())
        self.coarse = backbone.feature_at(NATIVE_STRIDE)
        self.fade = backbone.padded
        self.dropout = nn.Dropout((0.5 if backbone.padded else 0.1) if dropout is None else dropout)
        self.score_fr = self._scorer(self.coarse)
        self.skips: list[Skip] = []
        above = "upscore2"
        for stride, scale in scales.items():
            pool = f"pool{stride.bit_length() - 1}"
            skip = Skip(f"score_{pool}", above, backbone.feature_at(stride), scale)
            self.add_module(skip.scorer, self._scorer(skip.feature))
            self.skips.append(skip)
            above = f"upscore_{pool}"

    def _scorer(self, feature: int) -> nn.Conv2d:
        scorer = nn.Conv2d(self.backbone.channels[feature], self.width, 1)
        for parameter in scorer.parameters():
            nn.init.zeros_(parameter)
        return scorer

    def _all_logits(self, features: list[Tensor]) -> tuple[Tensor, Grid]:
        """The logits of all heads, concatenated."""
        scores, grid = self.score_fr(self.dropout(features[self.coarse])), self.backbone.grids[self.coarse]
        for skip in self.skips:
            fine = self.get_submodule(skip.scorer)(features[skip.feature] * skip.scale)
            scores, grid = self._fuse(scores, grid, skip, fine)
        return scores, grid

    def _fuse(self, scores: Tensor, grid: Grid, skip: Skip, fine: Tensor) -> tuple[Tensor, Grid]:
        place = self.backbone.grids[skip.feature]
        return resample(scores, grid, place, (fine.shape[-2], fine.shape[-1])) + fine, place

    @property
    def auxiliary_heads(self) -> tuple[str, ...]:
        """The names of the auxiliary label sets."""
        return tuple(self.heads)[1:]

    @property
    def embedding_channels(self) -> int:
        """Channels of the coarsest features."""
        return self.backbone.channels[self.coarse]

    def apply_head(self, features: list[Tensor]) -> HeadResult:
        logits, grid = self._all_logits(features)
        coarse = self.backbone.grids[self.coarse]
        return HeadResult(logits[:, : self.num_classes], grid, [features[self.coarse]], coarse)

    def _outputs(self, images: Tensor) -> list[Output]:
        """The logits of the classes, and those of each auxiliary head: the loss compares them with labels of their own
        (SIFT Flow's ``geometric``).
        """
        scores, grid = self._all_logits(self._features(images))
        parts = zip(self.heads, scores.split_with_sizes(list(self.heads.values()), 1), strict=True)
        return [Output(name, logits, grid, fade=self.fade) for name, logits in parts]


class PaddedFCN(FCN):
    """FCN in the released form: score maps grow by bilinear deconvolutions, and finer ones are cropped to them.

    The image is padded by 100, so that each crop has something to cut off at any size. Deconvolutions that stay
    fixed are :func:`resample` with fading edges, which is the same. On VGG their kernels are 4 (16, 32 or 64 at the
    end), the crops 5, 9 and 31, 27 or 19; on AlexNet, with its 3×3 pools, 3 (15, 31 or 63), the crops 5, 10 and 18.
    """

    def __init__(
        self,
        backbone: Backbone,
        label_set: LabelSet,
        scales: Mapping[int, float],
        dropout: Probability | None,
        heads: Mapping[str, int],
        learn_upsampling: bool,
    ) -> None:
        super().__init__(backbone, label_set, scales, dropout, heads)
        self.learn_upsampling = learn_upsampling
        grid = backbone.grids[self.coarse]
        self.crops: dict[str, tuple[int, int]] = {}
        for skip in self.skips:
            kernel, _ = self.crops[skip.scorer] = _crop(grid, backbone.grids[skip.feature])
            grid = grid.transposed(kernel, 2)
            if learn_upsampling:
                self.add_module(skip.upsampling, self._deconvolution(kernel))

    def _deconvolution(self, kernel: int) -> nn.ConvTranspose2d:
        layer = nn.ConvTranspose2d(self.width, self.width, kernel, stride=2, bias=False)
        with torch.no_grad():
            layer.weight.zero_()
            for channel in range(self.width):
                layer.weight[channel, channel] = bilinear_kernel(kernel)
        return layer

    def _fuse(self, scores: Tensor, grid: Grid, skip: Skip, fine: Tensor) -> tuple[Tensor, Grid]:
        kernel, start = self.crops[skip.scorer]
        above = grid.transposed(kernel, 2)
        height, width = ((n - 1) * 2 + kernel for n in scores.shape[-2:])
        if self.learn_upsampling:
            larger = self.get_submodule(skip.upsampling)(scores)
        else:
            larger = resample(scores, grid, above, (height, width), fade=True)
        return larger + fine[..., start : start + height, start : start + width], above


def _crop(coarse: Grid, fine: Grid) -> tuple[int, int]:
    """The kernel of a deconvolution by 2 that meets the places of a finer map, and the first of them that it meets."""
    for kernel in (4, 3):
        start = (coarse.transposed(kernel, 2).offset - fine.offset) / fine.stride
        if start.is_integer():
            return kernel, int(start)
    raise InputError(f"no deconvolution leads from {coarse} to {fine}")


def _build(
    backbone: Backbone,
    label_set: LabelSet,
    scales: Mapping[int, float],
    dropout: Probability | None,
    heads: Mapping[str, Positive] | None,
    learn_upsampling: bool,
) -> FCN:
    if "main" in (heads or {}):
        raise InputError(
            "heads are auxiliary label sets, and 'main' is what scores the classes: give this one another name"
        )
    if single := next((name for name, count in (heads or {}).items() if count == 1), None):
        raise InputError(one_class_message(single))
    if backbone.padded:
        return PaddedFCN(backbone, label_set, scales, dropout, heads or {}, learn_upsampling)
    if learn_upsampling:
        raise InputError(
            f"learn_upsampling is for the papers' backbones; on '{backbone.name}' logits are sampled instead"
        )
    return FCN(backbone, label_set, scales, dropout, heads or {})


@register_model("fcn32s", output_stride=NATIVE_STRIDE, backbones=BACKBONES)
def fcn32s(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    dropout: Probability | None = None,
    heads: Mapping[str, Positive] | None = None,
) -> FCN:
    """FCN-32s: the logits of stride 32 alone.

    ``dropout`` comes before the scorer: 0.5 on the papers' backbones, else 0.1. ``heads`` are auxiliary label
    sets to score, by name and number of classes.
    """
    return _build(backbone, label_set, {}, dropout, heads, learn_upsampling=False)


@register_model("fcn16s", output_stride=NATIVE_STRIDE, backbones=BACKBONES)
def fcn16s(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    dropout: Probability | None = None,
    heads: Mapping[str, Positive] | None = None,
    learn_upsampling: bool = False,
) -> FCN:
    """FCN-16s: adds the logits of stride 16.

    ``learn_upsampling`` learns the deconvolutions between the skips, as the 2015 text has it (§4.3); the released
    models keep them fixed. The others are as for :func:`fcn32s`.
    """
    return _build(backbone, label_set, {16: 1.0}, dropout, heads, learn_upsampling)


@register_model("fcn8s", output_stride=NATIVE_STRIDE, backbones=BACKBONES)
def fcn8s(
    *,
    backbone: Backbone,
    label_set: LabelSet,
    dropout: Probability | None = None,
    heads: Mapping[str, Positive] | None = None,
    learn_upsampling: bool = False,
    at_once: bool = False,
) -> FCN:
    """FCN-8s: adds the logits of strides 16 and 8.

    ``at_once`` scales their features by 0.01 and 0.0001, so that the three can be trained at once instead of in
    stages. The others are as for :func:`fcn16s`.
    """
    scales = {16: 0.01, 8: 0.0001} if at_once else {16: 1.0, 8: 1.0}
    return _build(backbone, label_set, scales, dropout, heads, learn_upsampling)


def late_fusion(*models: FCN) -> FCN:
    """One FCN of several, each for its own share of the channels (NYUDv2's RGB and HHA, §5): its logits are the mean
    of theirs, and it can be trained further.

    Args:
        models: of one architecture, with the same labels and options.

    Raises:
        InputError: models of different kinds, or with learned upsampling, whose mean is not the mean of the logits.
    """
    first = models[0]
    for model in models:
        kinds = (model.name, model.label_set, model.config["options"])
        if kinds != (first.name, first.label_set, first.config["options"]) or model.config["options"].get(
            "learn_upsampling"
        ):
            raise InputError("late_fusion takes FCNs of one architecture, labels and options, with fixed upsampling")
    fused = create_model(
        first.name,
        backbone="+".join(model.backbone.name for model in models),
        label_set=first.label_set,
        output_stride=first.output_stride,
        in_channels=sum(model.backbone.in_channels for model in models),
        **first.config["options"],
    )
    parts = [model.state_dict() for model in models]
    weights = {}
    for key in fused.state_dict():
        if key.startswith("backbone.backbones."):
            number, _, rest = key.removeprefix("backbone.backbones.").partition(".")
            weights[key] = parts[int(number)][f"backbone.{rest}"]
        elif key.endswith(".weight"):  # scorers, side by side like the features they read
            weights[key] = torch.cat([part[key] for part in parts], 1) / len(parts)
        else:
            weights[key] = torch.stack([part[key] for part in parts]).mean(0)
    fused.load_state_dict(weights)
    means, stds = ([getattr(m.preprocessing, side) for m in models] for side in ("mean", "std"))
    fused.preprocessing = Preprocessing(sum(means, ()), sum(stds, ()))
    assert isinstance(fused, FCN)
    return fused.train(first.training)


class DilatedFCN(SegmentationModel):
    """The network that torchvision and others call FCN: a small convolutional head on a dense backbone, no skips."""

    def __init__(self, backbone: Backbone, label_set: LabelSet, aux: bool) -> None:
        super().__init__(backbone, label_set, aux=aux)
        self.classifier = FCNHead(backbone.channels[-1], len(label_set))

    def classify(self, embedding: list[Tensor]) -> Tensor:
        logits: Tensor = self.classifier(embedding[0])
        return logits


@register_model("fcn", output_stride=8)
def fcn(*, backbone: Backbone, label_set: LabelSet, aux: bool = False) -> DilatedFCN:
    """A 3×3 convolution and a scorer on a dense backbone; ``aux`` adds the same on stride 16, for training."""
    return DilatedFCN(backbone, label_set, aux)
