"""The sections of a recipe, with every setting. The docstrings here are the documentation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, field_validator, model_validator

from atrous.data.sources.spec import parse_spec
from atrous.errors import InputError
from atrous.models.registry import ARCHITECTURES
from atrous.models.surgery.output_stride import OUTPUT_STRIDES
from atrous.training.functions import import_function
from atrous.training.objective import make_terms


class Section(BaseModel):
    """A part of a recipe; the docstrings of its fields are their documentation."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelSection(Section):
    """The network."""

    name: str = "deeplabv3plus"
    """Architecture: one of `atrous models`."""
    backbone: str = "tf_efficientnet_lite0"
    """A timm model, or one of the architecture's own."""
    output_stride: int | None = None
    """Output stride in training: 4, 8, 16 or 32; the architecture's if not set. A trained model runs at any of them."""
    pretrained: bool | str = True
    """Backbone weights: true (an installed package, else timm's hub), a file, or false for random weights."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the architecture, for example { separable = true }."""
    start_from: str | None = None
    """A model folder or bundled name whose weights the training starts from; it may have other classes."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        ARCHITECTURES.find(name)
        return name

    @field_validator("output_stride")
    @classmethod
    def _possible(cls, stride: int | None) -> int | None:
        if stride not in (None, *OUTPUT_STRIDES):
            raise InputError(f"Input should be one of {', '.join(map(str, OUTPUT_STRIDES))}, not {stride}")
        return stride


class DataSection(Section):
    """The images."""

    train: str = ""
    """Training data: a dataset source and a path, such as folder:PATH or voc:PATH (all of them: docs/data.md). A
    relative path starts from the current directory. Not needed if train() is given the data."""
    root: str | None = None
    """Folder of the dataset, in place of the path in `train` (and in `val`, if it has the same path): the recipes'
    paths, such as data/VOCdevkit/VOC2012, start from the current directory."""
    train_split: str = "train"
    """Split to train on; several are joined by +."""
    val: str | None = None
    """Validation data; those of `train` if not set."""
    val_split: str = "val"
    """Split to validate on; "none" for no validation."""
    val_images: int | None = Field(default=None, ge=1)
    """Number of images of the split to validate on, spread evenly; all if not set."""
    sampling: Literal["uniform", "balanced"] = "uniform"
    """How an epoch draws its images: each once; or images of rare classes more often, in the same number of steps
    (repeat factor sampling). The masks are read once before the training for it."""
    rare_below: float = Field(default=0.15, gt=0, le=1)
    """Of balanced sampling: the share of the images below which a class is rare. One in a share f of them is drawn
    sqrt(rare_below / f) times as often."""
    classes: str | None = None
    """A class table that renames, merges, leaves out and reorders the classes of the training and validation data: a
    CSV or TOML file, or coco-to-voc (docs/data.md)."""
    overlap: Literal["area", "order", "last"] | None = None
    """Which of two shapes lies over the other where masks are drawn from an annotation tool's: the smaller, the one in
    front, or the later in the file; the tool's own rule if not set."""
    normalization: Literal["auto", "pretrained", "measured"] = "auto"
    """What images are normalised by: pretrained, the mean and standard deviation that the backbone's weights were
    trained with; measured, those of each channel in the training data, which are read once before the training (up to
    256 images); auto, pretrained for 8-bit RGB and for sources that know their means, else measured."""
    workers: int = Field(default=2, ge=0)
    """Processes that decode and augment images; they do not change any number."""

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, values: Any) -> Any:
        """Put the root into the specifications, which are then complete."""
        root = values.get("root") if isinstance(values, dict) else None
        train = values.get("train") if isinstance(values, dict) else None
        if not isinstance(root, str) or not isinstance(train, str) or ":" not in train:
            return values
        given = parse_spec(train)
        placed = {key: value for key, value in values.items() if key != "root"}
        placed["train"] = given._replace(place=root).text
        val = values.get("val")
        if isinstance(val, str) and (validated := parse_spec(val)).place == given.place:
            placed["val"] = validated._replace(place=root).text
        return placed


class AugmentSection(Section):
    """How images are augmented."""

    crop: Annotated[int, Field(ge=32)] | Literal["whole"] = 513
    """Side of the square crop (32k + 1 suits DeepLab), or "whole" for whole images at their own sizes, one in each part
    of a batch."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest scale factor, drawn uniformly."""
    scale_set: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)
    """Scale factors to draw from, instead of scale (DeepLab v2: [0.5, 0.75, 1.0, 1.25, 1.5])."""
    flip: bool = True
    """Mirror half of the images."""
    brightness: float = Field(default=0.0, ge=0, lt=1)
    """Largest relative change of brightness."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Largest relative change of contrast."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Largest relative change of saturation."""
    hue: float = Field(default=0.0, ge=0, le=180)
    """Largest rotation of hue, in degrees."""
    copy_paste: float = Field(default=0.0, ge=0, le=1)
    """Probability of pasting a class of another image into an image, rare classes first. The masks are read once
    before the training for it. Not for whole images."""
    function: str | None = None
    """Your own augmentation as "module:function", in place of all settings above. It takes a Sample and a numpy
    Generator and returns a Sample; within a batch these must have the same size."""

    @field_validator("function")
    @classmethod
    def _importable(cls, name: str | None) -> str | None:
        if name is not None:
            import_function(name)
        return name

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSection:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"scale must be [smallest, largest] with 0 < smallest ≤ largest, not {list(self.scale)}")
        if self.copy_paste and (self.crop == "whole" or self.function):
            raise InputError("copy_paste needs crops of one size, and is part of the built-in augmentation")
        return self


class OptimizerSection(Section):
    """The optimizer."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd (with momentum) or adamw."""
    lr: float = Field(default=0.007, gt=0)
    """Learning rate of the new layers."""
    backbone_lr: float | None = Field(default=None, ge=0)
    """Learning rate of the pretrained layers: the backbone, and DeepLab's fc6 and fc7 on VGG; `lr` if not set."""
    bias_factor: float = Field(default=1.0, gt=0)
    """Learning rate of the convolutions' biases as a multiple of that of their weights (Caffe's solvers: 2)."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd, first beta of adamw."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay of convolution weights; norms and biases have none."""
    depthwise_decay: bool = True
    """Whether depthwise convolutions have weight decay; in the authors' DeepLabv3+ they do not."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the gradient, to which it is scaled down; no clipping if not set."""


class ScheduleSection(Section):
    """The learning rate schedule."""

    policy: Literal["poly", "step"] = "poly"
    """poly: lr · (1 − step / steps) ^ power; step: lr · gamma ^ (step // step_size)."""
    power: float = Field(default=0.9, ge=0)
    """Power of the poly policy; 0 keeps the rate constant."""
    step_size: int = Field(default=2000, ge=1)
    """Steps between two changes of the rate in the step policy."""
    gamma: float = Field(default=0.1, gt=0)
    """Factor on the rate at each change in the step policy."""
    warmup: int = Field(default=0, ge=0)
    """Steps of linear warm-up at the beginning."""


class LossSection(Section):
    """What is minimised, over the pixels that are not ignored (255)."""

    name: str | dict[str, Annotated[float, Field(gt=0)]] = "cross_entropy"
    """cross_entropy, focal, dice, lovasz_softmax, boundary, a registered loss of your own, or "module:function". To add
    up several, their weights: { cross_entropy = 1.0, dice = 0.5 }."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the loss, such as { label_smoothing = 0.1 } of cross_entropy or { gamma = 2.0 } of focal; of several
    losses, by name: { dice = { smooth = 0.0 } }."""
    reduction: Literal["mean", "sum"] = "mean"
    """mean over the labelled pixels of a step; sum (FCN's "heavy" learning) needs rates about 1e-6 times as large."""
    resolution: Literal["image", "network"] = "image"
    """Where logits and labels are compared: at each pixel of the image, with interpolated logits, or at the network's
    own positions with the labels there (DeepLab v1 and v2), where each output is averaged over its own positions."""
    class_weights: Literal["none", "auto", "inverse_log"] | list[NonNegativeFloat] = "none"
    """One weight per class; or auto (median frequency divided by the frequency of the class) or the milder inverse_log,
    counted once in the training split. For cross_entropy and focal."""
    hard_share: float = Field(default=1.0, gt=0, le=1)
    """Train only on this share of each image's pixels, the hardest (top-k, online hard example mining)."""
    hard_below: float | None = Field(default=None, gt=0, lt=1)
    """Besides the hard share, train on every pixel whose true class is less probable than this (usual: 0.7)."""
    hard_warmup: int = Field(default=0, ge=0)
    """Steps over which the share falls from 1 to hard_share."""

    @model_validator(mode="after")
    def _consistent(self) -> LossSection:
        if self.hard_share == 1 and (self.hard_below is not None or self.hard_warmup):
            raise InputError("hard_below and hard_warmup need a hard_share below 1 (usual: 0.0625)")
        if self.hard_share < 1 and self.resolution == "network":
            raise InputError('hard pixels (hard_share below 1) need resolution = "image"')
        terms = make_terms(self.name, self.options)
        if self.class_weights != "none" and not any(term.takes_class_weights for term in terms):
            raise InputError("class_weights: no loss here takes class weights; cross_entropy and focal do")
        return self


class DistillationSection(Section):
    """A trained model that teaches, beside the ground truth."""

    teacher: str | None = None
    """A model folder or bundled name whose class probabilities are learned; it has all classes of the data, in any
    order. No distillation if not set."""
    share: float = Field(default=0.5, gt=0, le=1)
    """The teacher's share of the loss, where there are labels; the rest is the ground truth's."""
    temperature: float = Field(default=1.0, gt=0)
    """What both models' logits are divided by before they are compared: above 1, less probable classes count more."""


class TrainingSection(Section):
    """Length, batches and precision of the training, and what is trained."""

    epochs: float = Field(default=50, gt=0)
    """Length in passes over the training split; may be fractional."""
    steps: int | None = Field(default=None, ge=1)
    """Length in steps, instead of epochs."""
    batch_size: int = Field(default=16, ge=1)
    """Images per step, over all processes and accumulated parts."""
    accumulate: int = Field(default=1, ge=1)
    """Parts in which a batch goes through the network, to save memory."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Type of the network's arithmetic; weights and losses are float32. `auto` is bfloat16 where the device has
    instructions for it, else float32: a processor without them takes eight times as long in bfloat16."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is validated and saved."""
    batch_norm: Literal["synchronised", "local", "frozen", "all_frozen"] = "synchronised"
    """Statistics over the images of all processes, or of each process alone. frozen keeps the backbone's pretrained
    statistics and norm weights (small batches); all_frozen also those of the head, which must have been trained before
    (a second stage)."""
    batch_norm_momentum: float | None = Field(default=None, gt=0, le=1)
    """Weight of each batch in the running statistics; that of each layer (usually 0.1) if not set. The authors'
    DeepLabv3+: 0.0003 (a decay of 0.9997), for long runs."""
    freeze_until_stride: int = Field(default=0, ge=0)
    """Freeze the backbone's layers up to this stride; 0 trains everything."""
    only: list[str] = Field(default_factory=list)
    """Train only the parameters whose names begin with one of these (DeepLab-MSc: ["msc."]); all if empty."""
    validate_every: float = Field(default=1, gt=0)
    """Epochs between validations."""
    patience: int | None = Field(default=None, ge=1)
    """Stop early after this many validations in a row without a better `log.best_metric`; the schedule still assumes
    the full length."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of order, augmentation, dropout and new weights."""

    @model_validator(mode="after")
    def _divisible(self) -> TrainingSection:
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size {self.batch_size} does not divide into accumulate = {self.accumulate} parts")
        return self


class LogSection(Section):
    """What a run logs and saves; it changes no step of the training (but `best_metric` decides which model is the best,
    and with `training.patience` when the training ends).
    """

    every: int = Field(default=10, ge=1)
    """Steps between lines of log.jsonl and values in the trackers."""
    save_minutes: float = Field(default=10, ge=0)
    """Minutes of work that a killed run may lose; 0 saves every step. Validations and Ctrl-C save the state too."""
    best_metric: Literal[
        "mean_iou",
        "mean_iou_of_true_classes",
        "mean_accuracy",
        "pixel_accuracy",
        "frequency_weighted_iou",
        "validation_loss",
    ] = "mean_iou"
    """Metric of the validation by which the best model is chosen: the highest, or the lowest validation_loss."""
    samples: int = Field(default=4, ge=0)
    """Number of validation images drawn with ground truth and prediction after each validation."""
    trackers: list[str] = Field(default_factory=list)
    """Experiment trackers: tensorboard, wandb, mlflow, ... (those that Accelerate supports and are installed)."""
    project: str = "atrous"
    """Project name in the trackers."""
