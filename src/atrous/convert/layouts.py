"""From the tensors of a file to a model."""

from __future__ import annotations

from collections.abc import Sequence

from atrous.convert.architectures.deeplab import deeplab_from
from atrous.convert.architectures.deeplabv3 import deeplabv3_from
from atrous.convert.architectures.deeplabv3_layouts import DEEPLABV3_LAYOUTS
from atrous.convert.architectures.fcn import UPSAMPLING, fcn_from
from atrous.convert.tensors import FileTensors
from atrous.errors import InputError
from atrous.labels import LabelSet
from atrous.models.base import SegmentationModel

AT_ONCE = "wkentaro-atonce"
FCNS, ASPP = tuple(UPSAMPLING), ("deeplab_aspp",)
LAYOUTS = {
    "caffe": (*FCNS, "deeplab_largefov", *ASPP),
    "wkentaro": FCNS,
    AT_ONCE: ("fcn8s",),
    "kazuto1011": ASPP,
    "isht7": ASPP,
    "adaptsegnet": ASPP,
    "torchvision": ("deeplabv3", "fcn"),
    "smp": ("deeplabv3", "deeplabv3plus"),
    "transformers": ("deeplabv3",),
    "vainf": ("deeplabv3", "deeplabv3plus"),
    "jfzhang95": ("deeplabv3plus",),
}
"""Ways of naming tensors, and the architectures known by them. github.com/wkentaro/pytorch-fcn has the names of Caffe's
nets; that its FCN8sAtOnce scales two features can't be told from a file.
"""


def build_model(
    source: FileTensors,
    architecture: str,
    layout: str,
    *,
    label_set: LabelSet | None,
    inputs: str | None,
    rates: Sequence[int] | None,
    scales: Sequence[float] | None,
) -> SegmentationModel:
    """The model that a file's tensors describe, in eval mode; its card says which file, and what of it was left out.

    Args:
        source: the tensors by the file's names.
        architecture: what the file holds.
        layout: whose names these are, one of ``LAYOUTS``.
        label_set: names of the classes; when left out, those of the released net with as many, or numbers.
        inputs: what an FCN looks at, one of :data:`atrous.convert.architectures.fcn.INPUTS`.
        rates: those of a DeepLab's branches; of v3 and v3+ at output stride 16.
        scales: those of the image, for a DeepLab's ASPP.

    Raises:
        ConversionError: the file holds something else; the message lists what.
        ValueError: an architecture that the layout does not know, an option of the other family, or a number of labels
            or rates that does not fit.
    """
    if layout not in LAYOUTS:
        raise InputError(f"no layout '{layout}'; there are: {', '.join(LAYOUTS)}")
    if architecture not in LAYOUTS[layout]:
        raise InputError(f"layout '{layout}' is of {', '.join(LAYOUTS[layout])}, not '{architecture}'")
    if inputs is not None and architecture not in FCNS:
        raise InputError(f"inputs are for an FCN, not for {architecture}")
    if layout in DEEPLABV3_LAYOUTS:
        if scales or (rates and architecture == "fcn"):
            raise InputError(f"{architecture} has no {'scales' if scales else 'rates'} of its own")
        names = DEEPLABV3_LAYOUTS[layout]
        naming = names.naming(architecture, names.find_backbone(source, architecture), source.__contains__)
        model = deeplabv3_from(source, architecture, naming, label_set, rates)
    elif architecture in FCNS:
        if rates or scales:
            raise InputError(f"rates and scales are for a DeepLab, not for {architecture}")
        model = fcn_from(source, architecture, label_set, inputs, at_once=layout == AT_ONCE)
    else:
        model = deeplab_from(source, architecture, layout, label_set, rates, scales)
    model.card = source.card()
    return model
