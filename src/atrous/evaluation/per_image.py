"""What was counted in each image, class by class: the source of intervals, comparisons, and the worst images."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous.errors import InputError
from atrous.evaluation.objects import SIZES

COLUMNS = ("correct", "true", "predicted", "border_both", "border_true", "border_predicted")
"""Pixels of a class that are counted in an image: correct, true and predicted ones, in it and on borders."""
KEYS = ("image", "class", *COLUMNS)
Floats = NDArray[np.float64]


class PerImage:
    """The counts of each image.

    Only classes that occur in an image or its prediction take room: 64 bytes each, and 48 bytes and the name for the
    image. A thousand images of five classes need 0.4 MB, a million 0.4 GB, whatever the number of classes.

    Attributes:
        names: of the images, in order.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.names: list[str] = []
        self._rows = array("q")
        self._sizes = array("d")

    def add(self, name: str, confusion: NDArray[np.int64], borders: NDArray[np.int64], by_size: Floats) -> None:
        """Add an image.

        Args:
            name: of the image.
            confusion: int64 ``(C, C)``, its confusion matrix.
            borders: int64 ``(C, 3)``, from :func:`atrous.evaluation.boundary_iou.border_counts`.
            by_size: float64 ``(3, 3)``, from :class:`atrous.evaluation.objects.ObjectCounts`.
        """
        counts = np.column_stack([confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0), borders])
        present = np.flatnonzero(counts.any(axis=1))
        rows = np.column_stack([np.full_like(present, len(self.names)), present, counts[present]])
        self._rows.frombytes(rows.astype(np.int64).tobytes())
        self._sizes.frombytes(np.ascontiguousarray(by_size[:, :2], np.float64).tobytes())
        self.names.append(name)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def rows(self) -> NDArray[np.int64]:
        """int64 ``(N, 8)``: the number of an image, a class that occurs in it, and its :data:`COLUMNS`."""
        return np.array(self._rows, np.int64).reshape(-1, len(KEYS))

    @property
    def by_size(self) -> Floats:
        """float64 ``(images, 3, 2)``: the number of small, medium and large objects, and the sum of their IoU."""
        return np.array(self._sizes).reshape(-1, len(SIZES), 2)

    def mean_iou(self) -> Floats:
        """Mean IoU of each image over the classes in it or in its prediction ``(images,)``; nan if all is ignored."""
        rows = self.rows
        correct, true, predicted = (rows[:, column] for column in (2, 3, 4))
        union = true + predicted - correct
        kept = union > 0
        total = np.bincount(rows[kept, 0], correct[kept] / union[kept], len(self))
        classes = np.bincount(rows[kept, 0], minlength=len(self))
        result: Floats = np.divide(total, classes, out=np.full(len(self), np.nan), where=classes > 0)
        return result

    def ranked(self) -> list[int]:
        """The images from the lowest to the highest mean IoU, without those whose pixels are all ignored."""
        mean_iou = self.mean_iou()
        order = np.argsort(mean_iou, kind="stable").tolist()
        return [image for image in order if not np.isnan(mean_iou[image])]

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "names": list(self.names),
            "columns": list(KEYS),
            "rows": self.rows.tolist(),
            "objects_by_size": [[round(value, 6) for value in image] for image in self.by_size.reshape(-1, 6).tolist()],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], num_classes: int) -> PerImage:
        """What :meth:`to_dict` wrote.

        Raises:
            InputError: it is damaged, or of another format.
        """
        found = cls(num_classes)
        try:
            rows = np.array(data["rows"], np.int64).reshape(-1, len(KEYS))
            sizes = np.array(data["objects_by_size"], np.float64).reshape(len(data["names"]), -1)
            found.names = [str(name) for name in data["names"]]
            right = tuple(data["columns"]) == KEYS and sizes.shape[1] in (0, 2 * len(SIZES))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"its per_image is damaged: {error!r}") from error
        limits = (len(found.names), num_classes)
        if not right or (rows < 0).any() or any((rows[:, key] >= limits[key]).any() for key in (0, 1)):
            raise InputError("its per_image is damaged: the rows do not fit the images and classes")
        found._rows.frombytes(rows.tobytes())
        found._sizes.frombytes(sizes.tobytes())
        return found
