"""Recipes: everything that fixes a training, as typed TOML. The descriptions here are the documentation."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from atrous.errors import InputError
from atrous.expected import expected
from atrous.models.registry import ARCHITECTURES
from atrous.models.surgery.output_stride import OUTPUT_STRIDES


class RecipeError(InputError):
    """A recipe that can't be used; the message lists every mistake, where it stands and what was expected."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class ModelSection(_Section):
    """The network."""

    name: str = "deeplabv3plus"
    """Architecture: one of `atrous models`."""
    backbone: str = "tf_efficientnet_lite0"
    """Any convolutional timm model."""
    output_stride: int | None = None
    """4, 8, 16 or 32, in training, the trained model can run at any of them; the architecture's own when left out."""
    pretrained: bool | str = True
    """Backbone weights: true (an installed package, else timm's hub), a file, or false for random weights."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the architecture, for example separable = true."""
    start_from: str | None = None
    """A model folder or bundled name whose weights the training starts from; its classes may be others."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in ARCHITECTURES:
            raise InputError(f"there is no such architecture; there are: {', '.join(sorted(ARCHITECTURES))}")
        return name

    @field_validator("output_stride")
    @classmethod
    def _possible(cls, stride: int | None) -> int | None:
        if stride not in (None, *OUTPUT_STRIDES):
            raise InputError(f"output strides are {', '.join(map(str, OUTPUT_STRIDES))}")
        return stride


class DataSection(_Section):
    """The images."""

    train: str
    """Data specification: a reader and a place, as folder:PATH or voc:PATH (all of them: docs/data.md); a relative path
    starts where the command is run."""
    train_split: str = "train"
    """Split to train on; several joined by + make one."""
    val: str | None = None
    """Data to validate on; the training data's specification when left out."""
    val_split: str = "val"
    """Split to validate on; "none" for no validation."""
    val_images: int | None = Field(default=None, ge=1)
    """Validate on so many images of the split, spread evenly; on all when left out."""
    workers: int = Field(default=2, ge=0)
    """Processes that decode and augment; the numbers of a run do not depend on it."""


class AugmentSection(_Section):
    """What happens to each image on its way into a batch."""

    crop: Annotated[int, Field(ge=32)] | Literal["whole"] = 513
    """Side of the square crop, 32k + 1 suits DeepLab; or "whole" images, each at its own size, one in each part of a
    batch."""
    scale: tuple[float, float] = (0.5, 2.0)
    """Smallest and largest scale factor, drawn uniformly."""
    scale_set: list[Annotated[float, Field(gt=0)]] = Field(default_factory=list)
    """Scale factors of which each is as likely, in place of scale (DeepLab v2: [0.5, 0.75, 1.0, 1.25, 1.5])."""
    flip: bool = True
    """Mirror every second image."""
    brightness: float = Field(default=0.0, ge=0, lt=1)
    """Largest change of brightness, as a share."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Largest change of contrast, as a share."""
    saturation: float = Field(default=0.0, ge=0, le=1)
    """Largest change of saturation, as a share."""
    hue: float = Field(default=0.0, ge=0, le=180)
    """Largest turn of hue, in degrees."""

    @model_validator(mode="after")
    def _ordered(self) -> AugmentSection:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"scale is [smallest, largest] with 0 < smallest ≤ largest, not {list(self.scale)}")
        return self


class OptimizerSection(_Section):
    """How weights change."""

    name: Literal["sgd", "adamw"] = "sgd"
    """sgd (momentum) or adamw."""
    lr: float = Field(default=0.007, gt=0)
    """Learning rate of the new layers."""
    backbone_lr: float | None = Field(default=None, ge=0)
    """Learning rate of what comes from a classifier: the backbone, and DeepLab's fc6 and fc7 on VGG; that of the new
    layers when left out."""
    bias_factor: float = Field(default=1.0, gt=0)
    """Learning rate of convolutions' biases, as a multiple of their weights' (Caffe's recipes: 2)."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of sgd, first beta of adamw."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Weight decay of convolution weights; norms and biases have none."""
    depthwise_decay: bool = True
    """Whether depthwise convolutions have it too; the authors' DeepLabv3+ spares them."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Gradients are scaled down to this norm."""


class ScheduleSection(_Section):
    """The learning rate over the steps."""

    policy: Literal["poly", "step"] = "poly"
    """poly: lr · (1 − step / steps) ^ power; step: lr · gamma ^ (step // step_size)."""
    power: float = Field(default=0.9, ge=0)
    """Of the poly policy; 0 keeps the rate constant."""
    step_size: int = Field(default=2000, ge=1)
    """Of the step policy: steps until the rate changes."""
    gamma: float = Field(default=0.1, gt=0)
    """Of the step policy: what the rate is then multiplied by."""
    warmup: int = Field(default=0, ge=0)
    """Steps over which the rate first rises linearly."""


class LossSection(_Section):
    """What is minimised: softmax cross entropy over the pixels that are not 255."""

    reduction: Literal["mean", "sum"] = "mean"
    """mean over the judged pixels of a step; sum (FCN's "heavy" learning) needs rates about 1e-6 times as large."""
    resolution: Literal["image", "network"] = "image"
    """Where scores meet labels: at each pixel of the image, scores interpolated; or at the network's own positions,
    with the label that lies there (DeepLab v1 and v2), each output averaged over its own."""
    class_weights: Literal["none", "auto", "inverse_log"] | list[NonNegativeFloat] = "none"
    """One weight a class, or auto: median frequency over that of the class; inverse_log is milder. Counted once in the
    training split."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of each pixel's target that is spread evenly over the classes."""
    hard_share: float = Field(default=1.0, gt=0, le=1)
    """Learn only from this share of each image's pixels, the hardest (top-k, online hard example mining)."""
    hard_below: float | None = Field(default=None, gt=0, lt=1)
    """Beside the hard share, learn from every pixel whose true class is less probable than this (usual: 0.7)."""
    hard_warmup: int = Field(default=0, ge=0)
    """Steps over which the share falls from everything to hard_share."""

    @model_validator(mode="after")
    def _meant(self) -> LossSection:
        if self.hard_share == 1 and (self.hard_below is not None or self.hard_warmup):
            raise InputError("hard_below and hard_warmup need a hard_share below 1 (usual: 0.0625)")
        if self.hard_share < 1 and self.resolution == "network":
            raise InputError('hard pixels (hard_share below 1) are those of the image: resolution = "image"')
        return self


class TrainingSection(_Section):
    """The run."""

    epochs: float = Field(default=50, gt=0)
    """Length, in passes over the training split; may be a fraction."""
    steps: int | None = Field(default=None, ge=1)
    """Length in steps, in place of epochs."""
    batch_size: int = Field(default=16, ge=1)
    """Images a step, over all processes and accumulated parts."""
    accumulate: int = Field(default=1, ge=1)
    """Parts in which a batch goes through the network, where memory is short."""
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    """Type of the network's arithmetic; weights and losses are float32."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Decay of the moving average of the weights, which is then what is judged and kept."""
    batch_norm: Literal["synchronised", "local", "frozen", "all_frozen"] = "synchronised"
    """Statistics over the images of all processes, or of each on its own; frozen keeps those of the backbone, and
    its norms' weights, as they came (small batches); all_frozen also those of the head, which must have learned before
    (a second stage)."""
    batch_norm_momentum: float | None = Field(default=None, gt=0, le=1)
    """The share of a batch in the running statistics; that of each layer (usually 0.1) when left out. The authors'
    DeepLabv3+: 0.0003 (a decay of 0.9997), for long runs."""
    freeze_until_stride: int = Field(default=0, ge=0)
    """Backbone layers that work up to this stride stay as they came; 0 trains everything."""
    only: list[str] = Field(default_factory=list)
    """What learns, by the beginnings of its tensors' names (DeepLab-MSc: ["msc."]), the rest stays as it came; none is
    everything."""
    validate_every: float = Field(default=1, gt=0)
    """Epochs between two validations."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Fixes order, augmentation, dropout and new weights."""

    @model_validator(mode="after")
    def _divisible(self) -> TrainingSection:
        if self.batch_size % self.accumulate:
            raise InputError(f"batch_size {self.batch_size} does not divide into accumulate = {self.accumulate} parts")
        return self


class LogSection(_Section):
    """What a run keeps and tells; none of it changes the numbers."""

    every: int = Field(default=10, ge=1)
    """Steps between two lines of log.jsonl and of the trackers."""
    save_minutes: float = Field(default=10, ge=0)
    """Longest time whose work a killed run may lose; 0 keeps every step. Validations and Ctrl-C keep the state too."""
    samples: int = Field(default=4, ge=0)
    """Validation images that are shown with truth and prediction after each validation."""
    trackers: list[str] = Field(default_factory=list)
    """Where else to tell it: tensorboard, wandb, mlflow, ... (whatever Accelerate knows and is installed)."""
    project: str = "atrous"
    """The project's name for trackers that have one."""


class StageSection(_Section):
    """One of several trainings in a row, each from the best weights of the one before."""

    name: str
    """Its folder, OUT/stages/NAME; the last stage's results stand in OUT itself."""
    changes: dict[str, Any] = Field(default_factory=dict)
    """What is other than in the rest of the recipe, for example { "model.name" = "fcn16s", "optimizer.lr" = 1e-12 }. On
    the command line: `--set stages.NAME.optimizer.lr=1e-3`."""

    @field_validator("name")
    @classmethod
    def _of_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[\w.-]+", name):
            raise InputError("a stage's name is of letters, digits, '_', '.' and '-'")
        return name

    @field_validator("changes")
    @classmethod
    def _flat(cls, changes: dict[str, Any]) -> dict[str, Any]:
        if "stages" in changes or any(key.startswith("stages.") for key in changes):
            raise InputError("a stage has no stages of its own")
        return by_setting(changes)


class Recipe(_Section):
    """A training, whole."""

    description: str = ""
    """One line that says what this trains."""
    model: ModelSection = ModelSection()
    data: DataSection
    augment: AugmentSection = AugmentSection()
    optimizer: OptimizerSection = OptimizerSection()
    schedule: ScheduleSection = ScheduleSection()
    loss: LossSection = LossSection()
    training: TrainingSection = TrainingSection()
    log: LogSection = LogSection()
    stages: list[StageSection] = Field(default_factory=list)
    """Trainings in a row, as [[stages]]; none is one training."""

    @model_validator(mode="after")
    def _stages_stand(self) -> Recipe:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise InputError(f"two stages have the same name: {', '.join(names)}")
        for stage in self.stages:
            self.at_stage(stage)
        return self

    def at_stage(self, stage: StageSection, start_from: str | None = None) -> Recipe:
        """The training of one stage, from the weights of another one.

        Raises:
            RecipeError: the stage's changes can't be.
        """
        table = self.model_dump(mode="json", exclude={"stages"})
        for key, value in stage.changes.items():
            set_in(table, key, value)
        if start_from:
            set_in(table, "model.start_from", start_from)
        return check_recipe(table, f"stage {stage.name}")

    def differences(self, other: Recipe) -> list[str]:
        """The settings in which another recipe differs and on which a run's numbers depend, stages aside, in words."""
        left_out: Any = {"description": True, "data": {"workers"}, "log": True, "stages": True}
        one, two = (recipe.model_dump(mode="json", exclude=left_out) for recipe in (self, other))
        return [
            f"{name}.{key} ({value!r}, now {two[name][key]!r})"
            for name, section in one.items()
            for key, value in section.items()
            if value != two[name][key]
        ]

    @property
    def input_size(self) -> str:
        """The size of a training image, for messages."""
        crop = self.augment.crop
        return "their own size" if crop == "whole" else f"{crop}×{crop}"


def check_recipe(table: dict[str, Any], source: str, overridden: Sequence[str] = ()) -> Recipe:
    """Validate a recipe given as a table; ``source`` names it in errors, ``overridden`` the settings that are not from
    there.
    """
    try:
        return Recipe.model_validate(table)
    except ValidationError as error:
        lines: dict[str, str] = {}
        for mistake in error.errors():
            # What may be a number or a word is refused once for each; beyond the setting, the place is pydantic's own.
            place = mistake["loc"][: 3 if mistake["loc"][:1] == ("stages",) else 2]
            name = ".".join(map(str, place))
            origin = f"{name}{' (by --set)' if name in overridden else ''}: " if name else ""
            lines[name] = f"  {origin}{_said(mistake, place, table)}"
        raise RecipeError(f"{source}:\n" + "\n".join(lines.values())) from error


_Place = tuple[str | int, ...]


def _said(mistake: Any, place: _Place, table: Any) -> str:
    """What is wrong at a place of a recipe: what was expected there, and what was found."""
    if mistake["type"] == "extra_forbidden":
        return _unknown(place)
    if mistake["type"] == "missing" and mistake["loc"] == place:
        return f"missing; expected {expected(_schema(place))}"
    found = reduce(getitem, place, table)
    if mistake["type"] != "value_error":
        return f"expected {expected(_schema(place))} (found: {found!r})"
    said = str(mistake["msg"]).removeprefix("Value error, ")  # of a validator here
    return said if isinstance(found, dict) else f"{said} (found: {found!r})"


def _unknown(place: _Place) -> str:
    known = list(_schema(place[:-1])["properties"])
    near = difflib.get_close_matches(str(place[-1]), known, 1)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"there is no such setting{meant} (this section has: {', '.join(known)})"


def _schema(place: _Place) -> dict[str, Any]:
    """The JSON schema of a section or a setting."""
    whole = Recipe.model_json_schema()
    found: dict[str, Any] = whole
    for part in place:
        found = found["items"] if isinstance(part, int) else found["properties"][part]
        if reference := found.get("$ref"):
            found = whole["$defs"][reference.rpartition("/")[2]]
    return found


def by_setting(changes: dict[str, Any]) -> dict[str, Any]:
    """Changes by ``section.key``, where TOML's unquoted dots have made tables of them.

    Raises:
        RecipeError: a table in a section, which may be all of it or a part.
    """
    found: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in Recipe.model_fields or not isinstance(value, dict):
            found[key] = value
            continue
        for name, inner in value.items():
            if isinstance(inner, dict):
                one = next(iter(inner), "KEY")
                raise RecipeError(
                    f'a stage\'s changes: in quotes, "{key}.{name}" = {{ … }} for all of it, or '
                    f'"{key}.{name}.{one}" = … for one'
                )
            found[f"{key}.{name}"] = inner
    return found


def set_in(table: dict[str, Any], key: str, value: Any) -> None:
    """Set ``section.key`` of a table; None is the default."""
    *sections, last = key.split(".")
    for section in sections:
        table = table.setdefault(section, {})
        if not isinstance(table, dict):
            raise RecipeError(f"{key}: '{section}' is a value, not a section")
    if value is None:
        table.pop(last, None)
    else:
        table[last] = value
