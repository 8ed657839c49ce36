"""What every model has in common: preprocessing, output stride, scores and where they sit, saving and loading."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import timm
import torch
import torch.nn.functional as F
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from atrous.labels import LabelSet
from atrous.models.backbones import Backbone
from atrous.models.depthwise import compiled_depthwise
from atrous.models.geometry import PIXELS, Grid, resample
from atrous.models.layers import FCNHead, full_precision

FORMAT = 1
"""Version of the checkpoint folder; a reader refuses a newer one."""


@dataclass(frozen=True)
class Preprocessing:
    """How a uint8 picture becomes a network's input: divided by 255, minus ``mean``, over ``std`` (one value a
    channel, RGB).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, photos: Tensor) -> Tensor:
        """uint8 ``(B, C, H, W)`` in 0–255 → float32 of the same shape; padding with zeros afterwards is padding with
        the mean.
        """
        mean, std = (photos.new_tensor(v, dtype=torch.float32).view(-1, 1, 1) for v in (self.mean, self.std))
        return torch.addcmul(-mean / std, photos.float(), 1 / (255 * std))


@dataclass(frozen=True)
class Output:
    """One of the score maps that a network is trained on.

    Args:
        name: ``main`` for what the model predicts with; ``aux`` and the like for what only training needs.
        logits: ``(B, C, h, w)``.
        grid: where they sit.
        weight: the share of its loss in the sum.
        fade: how the logits go on beyond their outermost positions, as :func:`atrous.models.geometry.resample` says.
    """

    name: str
    logits: Tensor
    grid: Grid
    weight: float = 1.0
    fade: bool = False

    def at(self, size: tuple[int, int]) -> Tensor:
        """The logits at the picture's own size, float32 ``(B, C, H, W)``."""
        with full_precision(self.logits):
            return resample(self.logits.float().contiguous(), self.grid, PIXELS, size, fade=self.fade)


AUXILIARY_STRIDE, AUXILIARY_WEIGHT = 16, 0.5
"""Where an auxiliary head sits, and the share of its loss: torchvision's reference training."""


class SegmentationModel(nn.Module):
    """A network that labels pixels. Subclasses say how features become scores (:meth:`_embed`, :meth:`_classify`) and
    what follows the output stride.

    Attributes:
        backbone: the feature extractor.
        aux_classifier: a second head on the stride-16 features (asked for by ``aux``), which only training looks at.
        labels: names and colours of the classes.
        preprocessing: what turns photos into this network's input.
        pad_to: smallest side that a picture is brought to in eval mode, at the bottom and right, with the mean colour.
        config: architecture name and arguments, enough to build the model again.
    """

    config: dict[str, Any]
    fade = False  # as Output has it
    _optional: tuple[str, ...] = ("aux_classifier.",)  # tensors that a model may have and one it starts from not
    dials: tuple[str, ...] = ("output_stride",)  # what may be set at any time, and is saved as it is set

    def __init__(self, backbone: Backbone, labels: LabelSet, *, aux: bool = False) -> None:
        super().__init__()
        self.backbone = backbone
        self.aux_classifier: FCNHead | None = None
        if aux:
            self.aux_classifier = FCNHead(backbone.channels[backbone.feature_at(AUXILIARY_STRIDE)], len(labels))
        self.labels = labels
        self.preprocessing = Preprocessing(backbone.mean, backbone.std)
        self.pad_to = 0
        self.card: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The architecture, as :func:`create_model` takes it."""
        return str(self.config["architecture"])

    @property
    def num_classes(self) -> int:
        """The number of real classes."""
        return len(self.labels)

    @property
    def output_stride(self) -> int:
        """How many pixels lie between two positions of the backbone's last map; may be set to 4, 8, 16 or 32 at any
        time.
        """
        return self.backbone.output_stride

    @output_stride.setter
    def output_stride(self, value: int) -> None:
        self.backbone.output_stride = value
        self._follow_output_stride()

    def turn(self, dial: str, value: int | str) -> int | str:
        """Set one of the ``dials`` by its name; returns what it was.

        Raises:
            ValueError: the network has no such dial, or can't have the value.
        """
        if dial not in self.dials:
            raise ValueError(f"{self.name} has no {dial}; what can be set of it: {', '.join(self.dials)}")
        before: int | str = getattr(self, dial)
        setattr(self, dial, value)
        return before

    def _follow_output_stride(self) -> None:
        """Adapt what depends on the output stride."""

    @property
    def further_heads(self) -> tuple[str, ...]:
        """The names of what is scored beside ``main``."""
        return ("aux",) if self.aux_classifier is not None else ()

    def inherited(self) -> Iterator[nn.Parameter]:
        """The parameters that come from a classifier, and learn at its rate; the others are new."""
        return self.backbone.parameters()

    @property
    def embedding_channels(self) -> int:
        """Channels of what the classifiers read, over all of them."""
        return self.backbone.channels[-1]

    def _embed(self, features: list[Tensor]) -> tuple[list[Tensor], Grid]:
        """The backbone's features → what each classifier reads, ``(B, C, h, w)``, and where it sits."""
        return [features[-1]], self.backbone.grids[-1]

    def _classify(self, embedding: list[Tensor], features: list[Tensor]) -> tuple[Tensor, Grid]:
        """What the classifiers read, and the features → logits ``(B, num_classes, h, w)`` and where they sit."""
        raise NotImplementedError

    def preprocess(self, photos: Tensor) -> Tensor:
        """uint8 RGB photos ``(B, 3, H, W)`` → this network's input, float32 ``(B, 3, H, W)``.

        Raises:
            TypeError: no tensor, or one that is not uint8.
            ValueError: another shape, or another number of channels than the network has.
        """
        if not isinstance(photos, Tensor):
            raise TypeError(f"preprocess takes a torch tensor, not {type(photos).__name__}: torch.from_numpy(array)")
        if photos.dtype != torch.uint8:
            raise TypeError(
                f"preprocess takes uint8 photos in 0–255, not {photos.dtype}; a model's own input needs no more of it"
            )
        self._check_shape(photos)
        return self.preprocessing(photos)

    def scores(self, images: Tensor) -> tuple[Tensor, Grid]:
        """Class scores at network resolution: nothing of the picture's own size is made.

        Args:
            images: preprocessed pictures ``(B, in_channels, H, W)`` of any size.

        Returns:
            Logits ``(B, num_classes, h, w)`` and the grid they sit on.

        Raises:
            ValueError: not four dimensions, or another number of channels than the network has.
        """
        with compiled_depthwise(images):
            main = self._predict(images)
        return main.logits, main.grid

    def outputs(self, images: Tensor) -> list[Output]:
        """What the loss is computed on: the scores, and those of auxiliary heads where a network has them.

        Args:
            images: as for :meth:`scores`.
        """
        with compiled_depthwise(images):
            return self._outputs(images)

    def _outputs(self, images: Tensor) -> list[Output]:
        features = self._features(images)
        main = self._main(features)
        if self.aux_classifier is None:
            return [main]
        middle = self.backbone.feature_at(AUXILIARY_STRIDE)
        logits = self.aux_classifier(features[middle])
        return [main, Output("aux", logits, self.backbone.grids[middle], AUXILIARY_WEIGHT)]

    def _predict(self, images: Tensor) -> Output:
        return self._main(self._features(images))

    def _main(self, features: list[Tensor]) -> Output:
        embedding, _ = self._embed(features)
        return Output("main", *self._classify(embedding, features), fade=self.fade)

    def _features(self, images: Tensor) -> list[Tensor]:
        features: list[Tensor] = self.backbone(self._padded(images))
        return features

    def _padded(self, images: Tensor) -> Tensor:
        self._check_shape(images)
        least = 0 if self.training else self.pad_to
        below, right = (self.backbone.fitting_size(max(n, least)) - n for n in images.shape[-2:])
        return F.pad(images, (0, right, 0, below)) if below or right else images

    def _check_shape(self, images: Tensor) -> None:
        if images.dim() != 4 or images.shape[1] != self.backbone.in_channels:
            raise ValueError(
                f"expected images (B, {self.backbone.in_channels}, H, W), got {tuple(images.shape)}; "
                "a single picture needs a batch dimension: image[None]"
            )
        if 0 in images.shape[-2:]:
            raise ValueError(f"a picture has at least one pixel, not {images.shape[-2]} × {images.shape[-1]}")

    def forward(self, images: Tensor) -> Tensor:
        """Preprocessed pictures ``(B, in_channels, H, W)`` → float32 logits ``(B, num_classes, H, W)``."""
        with compiled_depthwise(images):
            main = self._predict(images)
        return main.at((images.shape[-2], images.shape[-1]))

    def start_from(self, source: SegmentationModel) -> None:
        """Take over the weights and the preprocessing of another model of the same network, in place.

        New stays what scores the classes where their number differs, and what only this model has of the parts that
        a network can do without: an auxiliary head, or the skips by which an FCN is finer than the one before (its
        scorers are zero then, so that it begins with the coarser one's scores).

        Raises:
            ValueError: another network; nothing has been taken then.
        """
        weights, slots = source.state_dict(), self.state_dict()
        counts = (source.num_classes, self.num_classes)
        fitting, strange = {}, []
        for key in sorted(weights.keys() | slots.keys()):
            if key in weights and key in slots:
                sides = list(zip(weights[key].shape, slots[key].shape, strict=False))
                if weights[key].shape == slots[key].shape:
                    fitting[key] = weights[key]
                elif weights[key].ndim != slots[key].ndim or any(a != b and (a, b) != counts for a, b in sides):
                    strange.append(key)
            elif not key.startswith(self._optional):
                strange.append(key)
        if strange:
            raise ValueError(
                f"another network ({source.name} on {source.backbone.name}): {len(strange)} tensors differ, "
                f"first: {strange[0]}; {self.name} on {self.backbone.name} needs the same backbone and options"
            )
        self.load_state_dict(fitting, strict=False)
        self.preprocessing = source.preprocessing

    def save(self, folder: str | Path, *, dtype: torch.dtype | None = None, **notes: Any) -> Path:
        """Write the model as a folder of ``model.safetensors`` and ``config.json``, in one step: an old folder is
        replaced only by a whole new one.

        Args:
            folder: where to; its parents are made.
            dtype: the type floating-point weights are stored in; their own when left out. Weights are always loaded
                as float32.
            notes: what else belongs to the model (recipe, metrics, ...), as JSON values.

        Raises:
            FileExistsError: the folder is there and no model of this package's; what it holds would be lost.
        """
        folder = Path(folder)
        if folder.is_dir() and any(folder.iterdir()) and not is_model_folder(folder):
            raise FileExistsError(
                f"{folder} holds something else than a model, and would be replaced: name another folder"
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)
        new.mkdir()
        config = {
            "format": FORMAT,
            "library": "atrous",
            **self.config,
            **{dial: getattr(self, dial) for dial in self.dials},
            "labels": self.labels.to_dict(),
            "preprocessing": asdict(self.preprocessing),
            **(self.card | notes),
        }
        try:
            tensors = {k: _stored(v, dtype) for k, v in self.state_dict().items()}
            save_file(tensors, new / "model.safetensors", metadata={"format": "pt"})
            (new / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        except Exception:
            shutil.rmtree(new, ignore_errors=True)  # on a full disk its room is needed
            raise
        # safetensors writes for the owner alone; a model is read by whoever may read its folder.
        (new / "model.safetensors").chmod((new / "config.json").stat().st_mode)
        if folder.exists():
            folder.replace(old)
        new.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
        return folder


def is_model_folder(folder: Path) -> bool:
    """Whether a folder says of itself that it holds a model of this package."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and config.get("library") == "atrous"


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    tensor = tensor.detach().to("cpu", dtype if dtype and tensor.is_floating_point() else tensor.dtype)
    return tensor.contiguous()


Positive = Annotated[int, Field(gt=0)]
"""A count, as options of architectures have them."""
NotNegative = Annotated[int, Field(ge=0)]
"""A count where 0 says "none"."""
Builder = Callable[..., SegmentationModel]


@dataclass(frozen=True)
class Architecture:
    """A kind of model.

    Args:
        build: takes ``backbone``, ``labels`` and its own keyword arguments.
        backbone: takes a name and the other arguments of :class:`Backbone`.
        output_stride: where none is asked for.
        own: tells of a backbone's name whether ``backbone`` has a form of its own for it, and not timm's.
    """

    build: Builder
    backbone: Callable[..., Backbone]
    output_stride: int
    own: Callable[[str], bool]


ARCHITECTURES: dict[str, Architecture] = {}
"""Every model that :func:`create_model` can build, by name."""


def register(
    name: str,
    *,
    backbone: Callable[..., Backbone] = Backbone,
    output_stride: int = 16,
    own: Callable[[str], bool] = lambda _: False,
) -> Callable[[Builder], Builder]:
    """Enter a builder under a name, as an :class:`Architecture`."""

    def enter(builder: Builder) -> Builder:
        ARCHITECTURES[name] = Architecture(builder, backbone, output_stride, own)
        return builder

    return enter


def create_model(
    name: str,
    *,
    backbone: str,
    num_classes: int | None = None,
    labels: LabelSet | Sequence[str] | None = None,
    output_stride: int | None = None,
    in_channels: int = 3,
    pretrained: bool | str | Path = False,
    **options: Any,
) -> SegmentationModel:
    """Build a model.

    Args:
        name: one of ``atrous.models.ARCHITECTURES``, for example ``deeplabv3plus``.
        backbone: a timm model name; some architectures know more (:mod:`atrous.models.fcn`,
            :mod:`atrous.models.deeplab`, :mod:`atrous.models.deeplabv3`).
        num_classes: number of real classes; not needed beside ``labels``.
        labels: class names, or a :class:`LabelSet`.
        output_stride: 4, 8, 16 or 32; the architecture's own when left out (16; FCN skips 32; ``fcn``, DeepLab
            v1 and v2 8).
            ``model.output_stride`` changes it later.
        in_channels: channels of the pictures.
        pretrained: backbone weights: ``True`` (an installed package, else timm's hub), a file, or ``False``.
        options: arguments of the architecture (``separable``, ``rates``, ...).

    Raises:
        ValueError: an unknown name, class counts that disagree, a backbone that does not fit, or an option's value
            that can't be.
        TypeError: an option that the architecture does not have.
    """
    everything = _checked(name, options)
    for key, count in (("num_classes", num_classes), ("in_channels", in_channels)):
        if count is not None and (not isinstance(count, int) or count < 1):
            raise ValueError(f"{key} is a whole number from 1 on, not {count!r}")
    if labels is None:
        if num_classes is None:
            raise ValueError("create_model needs num_classes or labels")
        labels = LabelSet.numbered(num_classes)
    elif not isinstance(labels, LabelSet):
        labels = LabelSet(tuple(labels))
    if num_classes not in (None, len(labels)):
        raise ValueError(f"num_classes is {num_classes}, but there are {len(labels)} labels")
    kind = everything.get("base", name)  # what shares a network has its trunk
    owner = _known(kind)
    _check_backbone(kind, backbone)
    trunk = owner.backbone(
        backbone,
        in_channels=in_channels,
        pretrained=pretrained,
        output_stride=output_stride or owner.output_stride,
    )
    return build_on(trunk, name, labels, everything)


def build_on(trunk: Backbone, name: str, labels: LabelSet, options: dict[str, Any]) -> SegmentationModel:
    """Build a model on a trunk that is there.

    Args:
        trunk: of the kind that the architecture takes.
        name: the architecture.
        labels: the classes.
        options: arguments of the architecture.

    Raises:
        ValueError, TypeError: as for :func:`create_model`.
    """
    options = _checked(name, options)
    model = ARCHITECTURES[name].build(backbone=trunk, labels=labels, **options)
    model.config = {
        "architecture": name,
        "backbone": trunk.name,
        "in_channels": trunk.in_channels,
        "options": json.loads(json.dumps(options)),  # as it comes back from config.json: tuples are lists
    }
    return model


def _known(name: str) -> Architecture:
    if name not in ARCHITECTURES:
        raise ValueError(f"no model '{name}'; there are: {', '.join(sorted(ARCHITECTURES))}")
    return ARCHITECTURES[name]


def _check_backbone(name: str, backbone: str) -> None:
    """Refuse a backbone that only other architectures have; what nobody has is left to timm to name."""
    for part in (backbone, *backbone.split("+")):
        owners = sorted(other for other, kind in ARCHITECTURES.items() if kind.own(part))
        if owners and name not in owners and not timm.is_model(part):
            raise ValueError(
                f"'{name}' has no backbone '{part}', which is for {', '.join(owners)}; it takes any convolutional "
                "network of timm's, such as resnet50"
            )


def _checked(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options of an architecture with what is left out; none that it does not have, each of its type."""
    build = _known(name).build
    signature = inspect.signature(build).parameters
    accepted = {k: p.default for k, p in signature.items() if k not in ("backbone", "labels")}
    if unknown := sorted(set(options) - set(accepted)):
        raise TypeError(f"'{name}' has no option {', '.join(unknown)}; it has: {', '.join(sorted(accepted))}")
    kinds = get_type_hints(build, include_extras=True)
    return accepted | {key: _of_kind(key, kinds[key], value) for key, value in options.items()}


def _of_kind(key: str, kind: Any, value: Any) -> Any:
    """An option's value, if it is one; messages are pydantic's, as for recipes."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f"[{part!r}]" for part in first["loc"] if part in (value if isinstance(value, dict) else ()))
        said = "should be a list" if first["type"] == "is_instance_of" else first["msg"].removeprefix("Input ")
        raise ValueError(f"{key}{place} {said}, not {value!r}") from error


class CheckpointError(ValueError):
    """A model folder that can't be read; the message says what is wrong with it."""


def load_folder(folder: str | Path) -> SegmentationModel:
    """Read a model folder written by :meth:`SegmentationModel.save`; the model is in eval mode.

    Raises:
        CheckpointError: a file is missing, damaged, foreign, or does not fit the architecture it names.
    """
    folder = Path(folder)
    config_file, weights_file = folder / "config.json", folder / "model.safetensors"
    for file in (config_file, weights_file):
        if not file.is_file():
            best = folder / "best"
            hint = f"; did you mean {best}?" if (best / file.name).is_file() else ""
            raise CheckpointError(
                f"{folder} is not a model folder: {file.name} is missing (expected config.json and model.safetensors)"
                + hint
            )
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{config_file} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("library") != "atrous":
        raise CheckpointError(f'{config_file} was not written by atrous (it has no "library": "atrous")')
    if config.get("format", 0) > FORMAT:
        raise CheckpointError(
            f"{folder} has format {config['format']}, this atrous reads up to {FORMAT}: upgrade atrous"
        )
    known = {
        "format",
        "library",
        "architecture",
        "backbone",
        "in_channels",
        "options",
        "labels",
        "preprocessing",
    }
    try:
        labels = LabelSet.from_dict(config["labels"])
        model = create_model(
            config["architecture"],
            backbone=config["backbone"],
            labels=labels,
            output_stride=config["output_stride"],
            in_channels=config["in_channels"],
            **config["options"],
        )
        model.preprocessing = Preprocessing(*(tuple(config["preprocessing"][k]) for k in ("mean", "std")))
        for dial in model.dials:
            if dial in config:  # folders from before a model had it do without
                setattr(model, dial, config[dial])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{config_file} does not describe a model of this atrous: {error!r}") from error
    try:
        weights = load_file(weights_file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights_file} is damaged or cut short: {error}") from error
    _fill(model, weights, weights_file)
    model.card = {k: v for k, v in config.items() if k not in known.union(model.dials)}
    return model.eval()


def _fill(model: nn.Module, weights: dict[str, Tensor], file: Path) -> None:
    slots = model.state_dict()
    missing, extra = sorted(slots.keys() - weights.keys()), sorted(weights.keys() - slots.keys())
    if missing or extra:
        parts = [f"{len(k)} {word} (first: {k[0]})" for k, word in ((missing, "missing"), (extra, "unknown")) if k]
        raise CheckpointError(f"{file} does not fit its config.json: tensors {' and '.join(parts)}")
    for key, slot in slots.items():
        if weights[key].shape != slot.shape:
            raise CheckpointError(f"{file}: {key} is {tuple(weights[key].shape)}, the model wants {tuple(slot.shape)}")
    model.load_state_dict(weights)
