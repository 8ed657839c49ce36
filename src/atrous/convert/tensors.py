"""The tensors of a foreign file, each of which is to be used once."""

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

PUBLISHED = {len(labels): labels for labels in (VOC, NYUD, SIFT_FLOW, PASCAL_CONTEXT)}
"""Label sets of the released nets by their number of classes: 21, 40, 33 and 60."""
SHOWN = 5
"""How many tensors of a kind an error names."""


class ConversionError(InputError):
    """A file that does not hold the network that it was said to hold."""


class MissingPartError(AtrousError, FileNotFoundError):
    """One of the files that a network lies in is not there; the message says which, and what it belongs to."""


class FileTensors:
    """Takes tensors out of a file by their names there, and keeps count.

    Args:
        file: what errors call it.
        tensors: arrays or tensors by their names.
        scales: of an image that the file has copies of its layers for.
        left_out: names of what else the file holds, which has no part in the scores.
    """

    def __init__(
        self,
        file: Path,
        tensors: Mapping[str, NDArray[Any] | Tensor],
        scales: tuple[float, ...] = (1.0,),
        left_out: Sequence[str] = (),
    ) -> None:
        self.file, self.scales = file, scales
        self._left = dict(tensors)
        self.left_out = list(left_out)
        self._missing: list[str] = []
        self._unfit: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._left

    def names(self) -> list[str]:
        """Those that have not been taken, in the file's order."""
        return list(self._left)

    def beginning(self) -> str:
        """The first of the names, as an error shows them."""
        return listed(self.names())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in the file.

        Raises:
            ConversionError: there is none of that name.
        """
        if name not in self._left:
            raise ConversionError(f"{self.file} has no '{name}'; it begins with {self.beginning()}")
        return tuple(self._left[name].shape)

    def take(self, name: str, shape: Sequence[int]) -> Tensor:
        """A tensor as float32 of a shape: its own but for leading ones, or, where one is a fully connected layer
        ``(O, C × h × w)`` and the other a convolution that does the same, that of the other.

        What is missing or of another shape is zeros, and told by :meth:`finish`.
        """
        found = self._left.pop(name, None)
        wanted = tuple(shape)
        if found is None:
            self._missing.append(f"{name} {_dimensions(wanted)}")
        elif not _fits(tuple(found.shape), wanted):
            self._unfit.append(f"{name} is {_dimensions(tuple(found.shape))}, expected {_dimensions(wanted)}")
        else:
            return _float32(found).reshape(wanted)
        return torch.zeros(1).expand(wanted)

    def look(self, name: str) -> NDArray[np.float32]:
        """A tensor of the file, which stays to be taken."""
        return _float32(self._left[name]).numpy()

    def drop(self, name: str) -> None:
        """Take a tensor whose work the model does itself, where there is one."""
        self._left.pop(name, None)

    def leave_out(self, names: Iterable[str]) -> None:
        """Take tensors that have no part in the scores, and note that they were there."""
        for name in names:
            del self._left[name]
            self.left_out.append(name)

    def card(self) -> dict[str, Any]:
        """What a model is to remember of its file."""
        return {"converted_from": self.file.name} | ({"left_out": self.left_out} if self.left_out else {})

    def label_set(self, given: LabelSet | None, count: int) -> LabelSet:
        """The label set for a number of classes: the given one, a published one of ``PUBLISHED``, or numbers.

        Raises:
            ValueError: one for another number was given.
        """
        if given is None:
            return PUBLISHED.get(count) or LabelSet.numbered(count)
        if len(given) != count:
            raise InputError(f"{len(given)} classes were named, but {self.file} scores {count}")
        return given

    def finish(self, what: str) -> None:
        """Make sure that the file held what was taken, and nothing else.

        Raises:
            ConversionError: it did not; the message lists what is missing, left over, and of another shape.
        """
        left = [f"{name} {_dimensions(tuple(tensor.shape))}" for name, tensor in self._left.items()]
        problems = {"missing": self._missing, "not used": left, "of another shape": self._unfit}
        if any(problems.values()):
            said = "; ".join(f"{len(names)} {kind}: {listed(names)}" for kind, names in problems.items() if names)
            raise ConversionError(f"{self.file} does not hold {what}: {said}")


def _fits(found: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    found, wanted = _stripped(found), _stripped(wanted)
    flat, deep = sorted((found, wanted), key=len)
    connected = len(flat) == 2 and len(deep) == 4 and flat == (deep[0], math.prod(deep[1:]))
    return found == wanted or connected


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without leading ones: Caffe once gave every array four dimensions."""
    first = next((i for i, side in enumerate(shape) if side != 1), len(shape))
    return shape[first:]


def _float32(found: NDArray[Any] | Tensor) -> Tensor:
    if isinstance(found, Tensor):
        return found.to(torch.float32)
    return torch.from_numpy(np.array(found, np.float32, order="C"))  # a copy: the file's are mapped, and not aligned


def _dimensions(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a number"


def listed(names: Sequence[str]) -> str:
    """The first of some names, and how many there are besides."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
