"""The fully connected CRF; it needs none of the models."""

from atrous.crf.dense_crf import DenseCRF, Tracked
from atrous.crf.pairwise import Bilateral, Custom, Gaussian
from atrous.crf.published import PUBLISHED
from atrous.crf.scribbles import labels_from_scribbles
from atrous.crf.unary import unary_from_labels, unary_from_logits, unary_from_probabilities

__all__ = [
    "PUBLISHED",
    "Bilateral",
    "Custom",
    "DenseCRF",
    "Gaussian",
    "Tracked",
    "labels_from_scribbles",
    "unary_from_labels",
    "unary_from_logits",
    "unary_from_probabilities",
]
