"""What ``config.json`` of a model folder may contain, and how large a network it may describe."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor
from torch.overrides import TorchFunctionMode

from atrous.errors import InputError
from atrous.files import refuse_newer
from atrous.labels import WIDE_IGNORE

FORMAT = 2
"""Version of the folder; a reader refuses a newer one. Since 2 images may be of other types than uint8."""
LONGEST = 16 * 2**20
"""Bytes of a ``config.json``; the longest of ours has some thousands."""
_SPARE = 2**24
"""Elements that building a network may take beside its weights."""


class CheckpointError(InputError):
    """A model folder that can't be read; the message states the reason."""


Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1, max_length=1000)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")


class _LabelSet(_Part):
    names: Annotated[list[str], Field(min_length=1, max_length=WIDE_IGNORE)]
    colors: Annotated[list[tuple[Annotated[int, Field(ge=0, le=255)], ...]], Field(max_length=WIDE_IGNORE)] = []


class _Preprocessing(_Part):
    mean: Annotated[list[Finite], Field(min_length=1, max_length=4096)]
    std: Annotated[list[Annotated[Finite, Field(gt=0)]], Field(min_length=1, max_length=4096)]
    dtype: Literal["uint8", "uint16", "int16", "float32"] = "uint8"
    ranges: Annotated[list[tuple[Finite, Finite]], Field(max_length=4096)] = []


class _CRFSettings(_Part):
    weight: Finite
    sxy: Finite
    srgb: Finite
    smoothness: Finite
    smoothness_sxy: Finite
    iterations: Annotated[int, Field(ge=0, le=10_000)]


class _CRF(_Part):
    settings: _CRFSettings
    helps: bool


class _Config(_Part):
    format: Annotated[int, Field(ge=0)] = 0
    library: Literal["atrous"]
    architecture: Name
    backbone: Name
    in_channels: Annotated[int, Field(ge=1, le=4096)]
    output_stride: Annotated[int, Field(ge=1, le=1024)]
    resize: Literal["exact", "torchvision"] = "exact"
    options: dict[str, Any]
    label_set: _LabelSet
    preprocessing: _Preprocessing
    crf: _CRF | None = None


def read_config(file: Path) -> dict[str, Any]:
    """Read and check a ``config.json``.

    Raises:
        CheckpointError: it is damaged, of another program or a newer version, or a value is missing or out of range;
            the message names the file and the key.
    """
    if file.stat().st_size > LONGEST:
        raise CheckpointError(f"{file} is larger than {LONGEST >> 20} MB: it is not the config.json of a model")
    content = file.read_bytes()
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("library") != "atrous":
        raise CheckpointError(f'{file} was not written by atrous (it has no "library": "atrous")')
    refuse_newer(config.get("format", 0), FORMAT, file, CheckpointError)
    try:
        _Config.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        found = "" if first["type"] == "missing" else f", not {str(first['input'])[:80]}"
        key = ".".join(map(str, first["loc"])) or "the whole"
        raise CheckpointError(f"{file}: {key}: {first['msg']}{found}; save the model again") from error
    return config


class limited_to(TorchFunctionMode):  # noqa: N801  # a context manager
    """Refuse to build a network much larger than its weights, before its memory is taken."""

    def __init__(self, weights: Mapping[str, Tensor], file: Path) -> None:
        super().__init__()
        self.file = file
        self.stored = sum(tensor.numel() for tensor in weights.values())
        self.left = 4 * self.stored + _SPARE

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES and not torch.empty(0, device=kwargs.get("device")).is_meta:  # which takes no memory
            self.left -= _elements(args, kwargs)
            if self.left < 0:
                raise CheckpointError(
                    f"{self.file} describes a much larger network than the {self.stored:,} values of its weights; "
                    "restore both files of the folder"
                )
        return func(*args, **kwargs)


_FACTORIES = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn)


def _elements(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    sizes = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
    return prod(int(side) for side in sizes)
