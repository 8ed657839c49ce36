"""What every model has in common: preprocessing, output stride, logits and their grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from atrous.errors import InputError, InputTypeError
from atrous.grid import PIXELS, Grid, Grids, resample
from atrous.labels import LabelSet
from atrous.models.backbones.base import Backbone, larger
from atrous.models.layers import FCNHead, full_precision
from atrous.models.saving import save
from atrous.models.surgery.trace import STRUCTURE
from atrous.models.transfer import Transfer, transfer
from atrous.ops.depthwise.op import compiled_depthwise, has_depthwise


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a network's input: minus ``mean``, over ``std``, by channel.

    Args:
        mean: of each channel: of uint8 images divided by 255, of others in their own values.
        std: likewise.
        dtype: of the images: ``uint8``, ``uint16``, ``int16`` or ``float32``.
        ranges: of each channel the 1st and the 99th percentile of the values that the network was trained on, where
            its statistics were measured in its own data; empty where they are those of ImageNet and the like.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str = "uint8"
    ranges: tuple[tuple[float, float], ...] = ()

    @property
    def scale(self) -> float:
        """What values are divided by before the mean is taken off: 255 for uint8."""
        return 255.0 if self.dtype == "uint8" else 1.0

    @property
    def fill(self) -> tuple[float, ...]:
        """The value of each channel that becomes 0, for padding."""
        return tuple(self.scale * mean for mean in self.mean)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> Preprocessing:
        """What :meth:`to_dict` gave."""
        ranges = tuple((low, high) for low, high in facts.get("ranges", ()))
        return cls(tuple(facts["mean"]), tuple(facts["std"]), facts.get("dtype", "uint8"), ranges)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; what is as usual is left out."""
        facts: dict[str, Any] = {"mean": self.mean, "std": self.std}
        if self.dtype != "uint8":
            facts["dtype"] = self.dtype
        return facts | ({"ranges": self.ranges} if self.ranges else {})

    def __call__(self, images: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` of :attr:`dtype` → float32 of the same shape; padding with zeros afterwards is
        padding with the mean.
        """
        table = torch.tensor([self.mean, self.std], dtype=torch.float32, device="cpu")
        if images.is_cuda:
            table = table.pin_memory()  # or the host would wait until the GPU has done what it was asked for before
        mean, std = table.to(images.device, non_blocking=images.is_cuda)[..., None, None]
        if self.dtype != "uint8":  # the mean may be large beside the deviation
            normalised: Tensor = (images.float() - mean) / std
            return normalised
        return torch.addcmul(-mean / std, images.float(), 1 / (255 * std))


class HeadResult(NamedTuple):
    """What a model's head computes from the backbone's features.

    Args:
        logits: ``(B, num_classes, h, w)``.
        grid: where they sit.
        embedding: what the classifiers read, a map ``(B, C, h', w')`` for each of them.
        embedding_grid: where the embedding sits.
    """

    logits: Tensor
    grid: Grid
    embedding: list[Tensor]
    embedding_grid: Grid


@dataclass(frozen=True)
class Output:
    """One of the logit maps that a network is trained on.

    Args:
        name: ``main`` for what the model predicts with; ``aux`` and the like for what only training needs.
        logits: ``(B, C, h, w)``.
        grid: where they sit; two grids where rows and columns differ.
        weight: of its loss in the sum.
        fade: how the logits continue beyond their outermost positions; see :func:`atrous.grid.resample`.
        attention: the weight of each scale at each position, float32 ``(B, S, h, w)`` summing to 1 over the scales;
            None where the model does not attend to scales.
    """

    name: str
    logits: Tensor
    grid: Grids
    weight: float = 1.0
    fade: bool = False
    attention: Tensor | None = None

    def at(self, size: tuple[int, int]) -> Tensor:
        """The logits at the image's own size, float32 ``(B, C, H, W)``."""
        with full_precision(self.logits):
            return resample(self.logits.float().contiguous(), self.grid, PIXELS, size, fade=self.fade)


Resize = Literal["exact", "torchvision"]
"""How logits take the image's own size: ``exact`` samples them where the features sit; ``torchvision`` stretches them
over the image, as its models do with ``F.interpolate(align_corners=False)``.
"""
AUXILIARY_STRIDE, AUXILIARY_WEIGHT = 16, 0.5
"""Where an auxiliary head sits, and the share of its loss: torchvision's reference training."""


class SegmentationModel(nn.Module):
    """A semantic segmentation network: a backbone and a head.

    A subclass implements :meth:`classify`, and :meth:`embed` where the classifier reads something other than the last
    feature map; a head that needs more than that implements :meth:`apply_head`. :meth:`follow_output_stride` updates
    what depends on the output stride.

    Args:
        backbone: the feature extractor.
        label_set: names and colours of the classes.
        aux: add a second head on the stride-16 features, for training.

    Attributes:
        backbone, label_set: as above.
        aux_classifier: the second head, if there is one.
        preprocessing: turns images into this network's input.
        pad_to: smallest side that an image is padded to in eval mode, at the bottom and right, with the mean colour.
        scales: of the image, at which the network looks at it.
        merges: what ``merge`` may be where several scales are merged; empty for a network of one scale.
        config: architecture name and arguments, enough to build the model again.
    """

    config: dict[str, Any]
    scales: tuple[float, ...] = (1.0,)
    merges: tuple[str, ...] = ()
    fade = False  # see Output
    _optional: tuple[str, ...] = ("aux_classifier.",)  # tensors that may be missing in the model it starts from

    def __init__(self, backbone: Backbone, label_set: LabelSet, *, aux: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.aux_classifier: FCNHead | None = None
        if aux:
            self.aux_classifier = FCNHead(backbone.channels[backbone.feature_at(AUXILIARY_STRIDE)], len(label_set))
        self.label_set = label_set
        self.preprocessing = Preprocessing(backbone.mean, backbone.std)
        self.pad_to = 0
        self._resize: Resize = "exact"
        self.card: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The architecture, as :func:`create_model` takes it."""
        return str(self.config["architecture"])

    @property
    def num_classes(self) -> int:
        """The number of real classes."""
        return len(self.label_set)

    @property
    def output_stride(self) -> int:
        """Pixels between two positions of the backbone's last feature map; may be set to 4, 8, 16 or 32 at any time."""
        return self.backbone.output_stride

    @output_stride.setter
    def output_stride(self, value: int) -> None:
        with STRUCTURE:
            self.backbone.output_stride = value
            self.follow_output_stride()

    @property
    def resize(self) -> Resize:
        """How logits take the image's own size, see :data:`Resize`; may be set at any time, and is saved with the
        model.
        """
        return self._resize

    @resize.setter
    def resize(self, value: Resize) -> None:
        if value not in get_args(Resize):
            raise InputError(f"resize is one of {', '.join(get_args(Resize))}, not {value!r}")
        if value != "exact" and len(self.scales) > 1:
            raise InputError(f"resize '{value}' is for networks of one scale; this {self.name} merges {self.scales}")
        self._resize = value

    @property
    def settings(self) -> dict[str, int | str]:
        """The attributes that may be set at any time and are saved with the model, with their values."""
        return {"output_stride": self.output_stride, "resize": self.resize}

    def follow_output_stride(self) -> None:
        """Update what depends on the output stride, such as dilations in the head; called whenever it is set."""

    @property
    def auxiliary_heads(self) -> tuple[str, ...]:
        """The names of the outputs beside ``main``."""
        return ("aux",) if self.aux_classifier is not None else ()

    def inherited(self) -> Iterator[nn.Parameter]:
        """The parameters that come from a classifier, which have a learning rate of their own; the others are new."""
        return self.backbone.parameters()

    @property
    def embedding_channels(self) -> int:
        """Channels of the embedding, summed over its maps."""
        return self.backbone.channels[-1]

    def apply_head(self, features: list[Tensor]) -> HeadResult:
        """The backbone's features, finest first, → logits and the embedding that they are computed from."""
        embedding, grid = self.embed(features)
        return HeadResult(self.classify(embedding), grid, embedding, grid)

    def embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        """The backbone's features → what each classifier reads, maps ``(B, C, h, w)``, and their grid."""
        return [features[-1]], self.backbone.grids[-1]

    def classify(self, embedding: list[Tensor]) -> Tensor:
        """The embedding → logits ``(B, num_classes, h, w)`` at the same positions."""
        raise NotImplementedError

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 RGB images ``(B, 3, H, W)`` → this network's input, float32 ``(B, 3, H, W)``.

        A network of other images takes ``(B, in_channels, H, W)`` of ``preprocessing.dtype``.

        Raises:
            InputTypeError: not a tensor, or of another type.
            InputError: another shape, or another number of channels than the network has.
        """
        if not isinstance(images, Tensor):
            raise InputTypeError(f"preprocess takes a torch tensor, not {type(images).__name__}: torch.from_numpy(x)")
        if images.dtype != getattr(torch, self.preprocessing.dtype):
            expected = (
                "uint8 images in 0–255" if self.preprocessing.scale == 255 else f"{self.preprocessing.dtype} images"
            )
            raise InputTypeError(
                f"preprocess takes {expected}, not {images.dtype}; "
                "input that is already normalised goes straight to model(x)"
            )
        self._check_shape(images)
        return self.preprocessing(images)

    def coarse_logits(self, images: Tensor) -> tuple[Tensor, Grids]:
        """Logits at network resolution; nothing of the image's own size is computed.

        Args:
            images: preprocessed images ``(B, in_channels, H, W)`` of any size.

        Returns:
            Logits ``(B, num_classes, h, w)`` and the grid they sit on: two, of rows and columns, where :attr:`resize`
            is ``torchvision``.

        Raises:
            InputError: not four dimensions, or another number of channels than the network has.
        """
        main = self.main_output(images)
        return main.logits, main.grid

    def main_output(self, images: Tensor) -> Output:
        """What the model predicts with, at network resolution: logits, their grid, and the attention over scales of a
        model that has one.

        Args:
            images: as for :meth:`coarse_logits`.
        """
        with self._computing(images):
            return self._resized(self._main_output(images), images)

    def outputs(self, images: Tensor) -> list[Output]:
        """What the loss is computed on: the main output, and those of auxiliary heads where a network has them.

        Args:
            images: as for :meth:`coarse_logits`.
        """
        with self._computing(images):
            return [self._resized(output, images) for output in self._outputs(images)]

    def _resized(self, output: Output, images: Tensor) -> Output:
        """An output on the grids that :attr:`resize` makes full-size logits with."""
        if self.resize == "exact":
            return output
        seen = (n + more for n, more in zip(images.shape[-2:], self._padding(images), strict=True))
        rows, columns = (Grid.spread(n, size) for n, size in zip(output.logits.shape[-2:], seen, strict=True))
        return replace(output, grid=(rows, columns), fade=False)

    def _computing(self, images: Tensor) -> AbstractContextManager[object]:
        """The context that the network computes these images in."""
        if not torch.compiler.is_compiling() and not self._depthwise:
            return nullcontext()
        return compiled_depthwise(images)

    @cached_property
    def _depthwise(self) -> bool:
        return has_depthwise(self)

    def _outputs(self, images: Tensor) -> list[Output]:
        features = self._features(images)
        main = self._main(features)
        if self.aux_classifier is None:
            return [main]
        middle = self.backbone.feature_at(AUXILIARY_STRIDE)
        logits = self.aux_classifier(features[middle])
        return [main, Output("aux", logits, self.backbone.grids[middle], AUXILIARY_WEIGHT)]

    def _main_output(self, images: Tensor) -> Output:
        return self._main(self._features(images))

    def _main(self, features: list[Tensor]) -> Output:
        result = self.apply_head(features)
        return Output("main", result.logits, result.grid, fade=self.fade)

    def _features(self, images: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.backbone(self._padded(images))
        return features

    def _padded(self, images: Tensor) -> Tensor:
        self._check_shape(images)
        if not images.is_floating_point():
            raise InputTypeError(
                f"a network takes preprocessed images, which are floating point, not {images.dtype}: "
                "model(model.preprocess(images)), or atrous.predict(model, image)"
            )
        below, right = self._padding(images)
        # An exported network has to pad at sizes other than the example's too.
        return F.pad(images, (0, right, 0, below)) if torch.compiler.is_exporting() or below or right else images

    def _padding(self, images: Tensor) -> tuple[int, int]:
        """Rows below and columns to the right that images are padded with."""
        least = 0 if self.training else self.pad_to
        below, right = (self.backbone.fitting_size(larger(n, least)) - n for n in images.shape[-2:])
        return below, right

    def _check_shape(self, images: Tensor) -> None:
        if images.dim() != 4 or images.shape[1] != self.backbone.in_channels:
            raise InputError(
                f"expected images (B, {self.backbone.in_channels}, H, W), got {tuple(images.shape)}; "
                "a single image needs a batch dimension: image[None]"
            )
        if torch.onnx.is_in_onnx_export() and torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
            raise InputError(
                "torch.onnx.export(dynamo=False) records the sizes of its example, so that images of other sizes would "
                "get wrong labels: pass dynamo=True with dynamic_shapes, or use atrous.export_model"
            )
        if 0 in images.shape[-2:]:
            raise InputError(f"an image has at least one pixel, not {images.shape[-2]} × {images.shape[-1]}")

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed images ``(B, in_channels, H, W)`` → float32 logits ``(B, num_classes, H, W)``."""
        return self.main_output(images).at((images.shape[-2], images.shape[-1]))

    def start_from(self, source: SegmentationModel) -> Transfer:
        """Copy the weights and the preprocessing of another model of the same network into this one.

        The classifiers' weights are matched by class name: classes that the other model does not have keep their new
        ones. So do optional parts that it does not have: an auxiliary head, or the skips of a finer FCN (whose scorers
        are zero, so that it begins with the coarser one's logits).

        Returns:
            The classes that were kept, and those that are new.

        Raises:
            InputError: another network; nothing has been changed then.
        """
        transferred = transfer(source, self, self._optional)
        self.preprocessing = source.preprocessing
        return transferred

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None, **notes: Any) -> Path:
        """Write the model as a folder of ``model.safetensors`` and ``config.json``, atomically.

        Args:
            folder: to write to; its parents are created.
            dtype: the type floating-point weights are stored in; their own when left out. Weights are always loaded
                as float32.
            notes: further facts about the model (recipe, metrics, ...), as JSON values.

        Raises:
            InputError: a note has the name of one of the model's own settings, or the backbone has no name by which it
                can be rebuilt.
            OutputExistsError: the folder contains something other than a model of this package, which would be lost.
        """
        return save(self, Path(folder), dtype, notes)
