"""Which images a model takes."""

from __future__ import annotations

from atrous.data.files.image_form import ImageForm
from atrous.errors import InputError
from atrous.models.base import SegmentationModel


def image_form(model: SegmentationModel) -> ImageForm:
    """The channels of the images that a model takes, and their type; they count as colours where there are three of 8
    bits.
    """
    channels, dtype = model.backbone.in_channels, model.preprocessing.dtype
    return ImageForm(channels, dtype, color=channels == 3 and dtype == "uint8")


def require_8_bits(model: SegmentationModel, what: str) -> None:
    """Refuse a model of other images than those of 8 bits.

    Args:
        model: any.
        what: needs 8 bits, for the message: "an exported file takes".

    Raises:
        InputError: the model was trained on other values.
    """
    form = image_form(model)
    if form.dtype != "uint8":
        raise InputError(
            f"{what} images of 8 bits, and this model takes {form}: run it with `atrous predict` or atrous.predict"
        )
