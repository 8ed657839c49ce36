"""The tensors of another program's file, each of which must be used exactly once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from atrous.errors import AtrousError, InputError
from atrous.label_sets import NYUD, PASCAL_CONTEXT, SIFT_FLOW, VOC
from atrous.labels import LabelSet
from atrous.models.checkpoint import find_not_finite

PUBLISHED = {len(labels): labels for labels in (VOC, NYUD, SIFT_FLOW, PASCAL_CONTEXT)}
"""Label sets of the released nets by number of classes: 21, 40, 33 and 60."""
BINARY = ("background", "foreground")
"""Names of the classes of a network with one output."""
SHOWN = 5
"""Number of tensors of a kind that an error names."""
SIGMOID = "its one output, the logit of a sigmoid, became two classes with the logits 0 and that output"


class ConversionError(InputError):
    """A file that does not contain the expected network; the message lists the differences."""


class MissingPartError(AtrousError, FileNotFoundError):
    """One of the files of a network is missing; the message says which, and what it belongs to."""


class FileTensors:
    """The tensors of a file by name, which are taken one by one; :meth:`finish` checks that none is left.

    Args:
        file: the file's path, for messages.
        tensors: arrays or tensors by name.
        scales: image scales for which the file has copies of its layers.
        left_out: names of further contents that have no effect on the logits.
        changes: what was changed in reading the file, as messages.

    Attributes:
        binary: whether the network has one output, which :meth:`split_sigmoid` made two classes of.
    """

    def __init__(
        self,
        file: Path,
        tensors: Mapping[str, NDArray[Any] | Tensor],
        scales: tuple[float, ...] = (1.0,),
        left_out: Sequence[str] = (),
        changes: Sequence[str] = (),
    ) -> None:
        self.file, self.scales = file, scales
        self._left = dict(tensors)
        self.left_out, self.changes = list(left_out), list(changes)
        self.binary = False
        self._missing: list[str] = []
        self._unfit: list[str] = []
        self._not_finite: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self) -> list[str]:
        """The names of tensors that have not been taken, in the file's order."""
        return list(self._left)

    def beginning(self) -> str:
        """The first names, for error messages."""
        return listed(self.names())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in the file.

        Raises:
            ConversionError: there is no tensor of that name.
        """
        if name not in self._left:
            raise ConversionError(f"{self.file} has no tensor '{name}'; it begins with {self.beginning()}")
        return tuple(self._left[name].shape)

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """Take a tensor as float32 in a shape, which may differ from the file's by leading ones, or as that of a fully
        connected layer ``(O, C × h × w)`` differs from the equivalent convolution's.

        A missing tensor, or one of another shape, is replaced by zeros and reported by :meth:`finish`.
        """
        found = self._left.pop(name, None)
        wanted = tuple(shape)
        if found is None:
            self._missing.append(f"{name} {_dimensions(wanted)}")
        elif not _fits(tuple(found.shape), wanted):
            self._unfit.append(f"{name} is {_dimensions(tuple(found.shape))}, expected {_dimensions(wanted)}")
        else:
            tensor = _float32(found)
            self._not_finite += filter(None, [find_not_finite({name: tensor})])
            return tensor.reshape(wanted)
        return torch.zeros(1).expand(wanted)

    def look(self, name: str) -> NDArray[np.float32]:
        """A tensor of the file, without taking it."""
        return _float32(self._left[name]).numpy()

    def drop(self, name: str) -> None:
        """Take a tensor, if present, that the model does not need because it computes the same itself."""
        self._left.pop(name, None)

    def split_sigmoid(self, *layers: str) -> None:
        """Turn classifiers of one output into classifiers of two classes, whose logits are 0 and that output: softmax
        over them is the sigmoid of the output. Others stay as they are.
        """
        for layer in layers:
            if f"{layer}.weight" not in self or self.shape(f"{layer}.weight")[:1] != (1,):
                continue
            self.binary = True
            weight = _float32(self._left[f"{layer}.weight"])
            self._left[f"{layer}.weight"] = torch.cat([torch.zeros_like(weight), weight])
            bias = self._left.get(f"{layer}.bias")
            if bias is not None and math.prod(bias.shape) == 1:  # one of another shape is reported when it is taken
                self._left[f"{layer}.bias"] = torch.cat([torch.zeros(1), _float32(bias).reshape(1)])

    def leave_out(self, names: Iterable[str]) -> None:
        """Take tensors that have no effect on the logits, and record their names in the card."""
        for name in names:
            del self._left[name]
            self.left_out.append(name)

    def card(self) -> dict[str, Any]:
        """The facts about the file for a model's card."""
        changes = [*self.changes, *[SIGMOID] * self.binary]
        facts = {"left_out": self.left_out, "changes": changes}
        return {"converted_from": self.file.name} | {key: value for key, value in facts.items() if value}

    def label_set(self, given: LabelSet | None, count: int) -> LabelSet:
        """The label set for a number of classes: the given one, one of ``PUBLISHED``, ``BINARY``, or numbers.

        Raises:
            InputError: the given one has another number of classes.
        """
        if given is None:
            if self.binary:
                return LabelSet(BINARY)
            return PUBLISHED.get(count) or LabelSet.numbered(count)
        if len(given) != count:
            raise InputError(f"{len(given)} class names were given, but {self.file} has {count} classes")
        return given

    def finish(self, what: str) -> None:
        """Check that every wanted tensor was in the file and is finite, and that every tensor of the file was taken.

        Raises:
            ConversionError: the message lists tensors that are missing, unused, of another shape, or not finite.
        """
        left = [f"{name} {_dimensions(tuple(tensor.shape))}" for name, tensor in self._left.items()]
        problems = {"missing": self._missing, "unused": left, "of another shape": self._unfit}
        if any(problems.values()):
            said = "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in problems.items() if names)
            raise ConversionError(f"{self.file} does not contain {what}: {said}")
        if self._not_finite:
            raise ConversionError(
                f"{self.file} is not usable: {listed(self._not_finite)}; use another checkpoint, or download it anew"
            )


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    found, wanted = _stripped(found), _stripped(wanted)
    flat, deep = sorted((found, wanted), key=len)
    connected = len(flat) == 2 and len(deep) == 4 and flat == (deep[0], math.prod(deep[1:]))
    return found == wanted or connected


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without leading ones: older files of Caffe have four dimensions for every array."""
    first = next((i for i, side in enumerate(shape) if side != 1), len(shape))
    return shape[first:]


def _float32(found: NDArray[Any] | Tensor) -> Tensor:
    if isinstance(found, Tensor):
        return found.to(torch.float32)
    return torch.from_numpy(
        np.array(found, np.float32, order="C")
    )  # a copy: arrays of a file are memory-mapped and unaligned


def _dimensions(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"


def listed(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
