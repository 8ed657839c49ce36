"""``pydensecrf.utils``: unaries and features as pydensecrf's scripts make them, ``(C, N)`` and ``(d, N)``, flat."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atrous import crf
from atrous.errors import InputError

_logger = logging.getLogger(__name__)


def unary_from_labels(
    labels: NDArray[Any], n_labels: int, gt_prob: float, zero_unsure: bool = True
) -> NDArray[np.float32]:
    """Energies of hard labels.

    Args:
        labels: integers of any shape, with N pixels in all. 255 is "could be anything", too, which pydensecrf refuses.
        n_labels: number of classes C; without 0 if ``zero_unsure``.
        gt_prob: the probability that a label is right, between 0 and 1.
        zero_unsure: 0 is "could be anything", and class *c* of the result is label *c* + 1.

    Returns:
        float32 ``(C, N)``.

    Raises:
        InputError: a label or the probability is out of range.

    Example:
        >>> import numpy as np
        >>> unary_from_labels(np.array([[0, 1, 2]]), 2, gt_prob=0.75).round(2).tolist()
        [[0.69..., 0.28..., 1.38...], [0.69..., 1.38..., 0.28...]]
    """
    return crf.unary_from_labels(np.ravel(labels), n_labels, confidence=gt_prob, zero_unsure=zero_unsure)


def unary_from_softmax(sm: NDArray[Any], scale: float | None = None, clip: float | None = 1e-5) -> NDArray[np.float32]:
    """Energies −log p.

    Args:
        sm: probabilities ``(C, …)``; as in pydensecrf, nothing checks that they sum to 1
            (:func:`atrous.crf.unary_from_probabilities` does).
        scale: the certainty of a probability of 1; the rest is spread over all classes. None for 1.
        clip: lower bound of the probabilities, so that no class is ruled out for good; None for none.

    Returns:
        float32 ``(C, N)``.

    Raises:
        InputError: ``scale`` is not above 0 and at most 1.

    Example:
        >>> import numpy as np
        >>> unary_from_softmax(np.full((2, 3, 4), 0.5)).shape
        (2, 12)
    """
    if scale is not None:
        if not 0 < scale <= 1:
            raise InputError(f"scale must be above 0 and at most 1, not {scale}")
        sm = scale * sm + (1 - scale) / len(sm)
    if clip is not None:
        sm = np.clip(sm, clip, 1.0)
    unary: NDArray[np.float32] = -np.log(sm).reshape(len(sm), -1).astype(np.float32)
    return unary


def create_pairwise_gaussian(sdims: Sequence[float], shape: Sequence[int]) -> NDArray[np.float32]:
    """Positions, divided by standard deviations: features for ``DenseCRF.addPairwiseEnergy``.

    Args:
        sdims: standard deviations in pixels, one for each axis, in the order of the axes: y before x, unlike
            ``addPairwiseGaussian``.
        shape: of the image, or of a volume of any number of axes.

    Returns:
        float32 ``(d, N)``.

    Raises:
        InputError: there are not as many deviations as axes.

    Example:
        >>> create_pairwise_gaussian((2, 4), (2, 3)).tolist()
        [[0.0, 0.0, 0.0, 0.5, 0.5, 0.5], [0.0, 0.25, 0.5, 0.0, 0.25, 0.5]]
    """
    if len(sdims) != len(shape):
        raise InputError(f"sdims has {len(sdims)} values; expected one for each of the {len(shape)} axes of {shape}")
    places = np.indices(shape, np.float32).reshape(len(shape), -1)
    return places / np.asarray(sdims, np.float32)[:, None]


def create_pairwise_bilateral(
    sdims: Sequence[float], schan: float | Sequence[float], img: NDArray[Any], chdim: int = -1
) -> NDArray[np.float32]:
    """Positions and channels, divided by standard deviations.

    Args:
        sdims: as in :func:`create_pairwise_gaussian`.
        schan: standard deviation in units of the image; one number, or one for each channel.
        img: image or volume, of any dtype and number of channels.
        chdim: its axis of channels; -1, unlike elsewhere in NumPy, for an image without one.

    Returns:
        float32 ``(d + channels, N)``.

    Raises:
        InputError: there are not as many deviations as axes or channels.

    Example:
        >>> import numpy as np
        >>> create_pairwise_bilateral((3, 3), 13, np.zeros((4, 5, 2)), chdim=2).shape
        (4, 20)
    """
    channels = img[np.newaxis] if chdim == -1 else np.moveaxis(img, chdim, 0)
    count = len(channels)
    deviations = [float(schan)] * count if isinstance(schan, Number) else list(schan)  # type: ignore[arg-type]
    if len(deviations) != count:
        raise InputError(
            f"schan has {len(deviations)} values; the image has {count} channels: pass one number, or {count}"
        )
    colours = channels.astype(np.float32).reshape(count, -1) / np.asarray(deviations, np.float32)[:, None]
    return np.concatenate([create_pairwise_gaussian(sdims, channels.shape[1:]), colours])


def compute_unary(labels: NDArray[Any], M: int, GT_PROB: float = 0.5) -> NDArray[np.float32]:
    """The old name of :func:`unary_from_labels`; it logs a warning, as in pydensecrf."""
    _logger.warning("pydensecrf.compute_unary is deprecated; use unary_from_labels")
    return unary_from_labels(labels, M, GT_PROB)


def softmax_to_unary(sm: NDArray[Any], GT_PROB: float = 1) -> NDArray[np.float32]:
    """The old name of :func:`unary_from_softmax`, without a lower bound; it logs a warning, as in pydensecrf."""
    _logger.warning("pydensecrf.softmax_to_unary is deprecated; use unary_from_softmax")
    return unary_from_softmax(sm, None if GT_PROB == 1 else GT_PROB, clip=None)
