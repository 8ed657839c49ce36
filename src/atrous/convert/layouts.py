"""Layouts: whose tensor names a file has, and the architectures that are known by them."""

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
"""Layouts and their architectures. github.com/wkentaro/pytorch-fcn uses the names of Caffe's nets; a file does not show
that its FCN8sAtOnce scales two features.
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
    """Build the model of a file's tensors, in eval mode; its card has the file's name and what was left out.

    Args:
        source: the tensors by the file's names.
        architecture: the file's architecture.
        layout: whose names these are, one of ``LAYOUTS``.
        label_set: names of the classes; by default those of the released net with as many classes, or numbers.
        inputs: inputs of an FCN, one of :data:`atrous.convert.architectures.fcn.INPUTS`.
        rates: rates of a DeepLab's branches; for v3 and v3+ at output stride 16.
        scales: image scales of a DeepLab with ASPP.

    Raises:
        ConversionError: the file contains another network; the message lists the differences.
        InputError: the layout does not have the architecture, the architecture does not have an option, or the number
            of labels or rates is wrong.
    """
    if layout not in LAYOUTS:
        raise InputError(f"unknown layout '{layout}'; available are {', '.join(LAYOUTS)}")
    if architecture not in LAYOUTS[layout]:
        raise InputError(f"layout '{layout}' has {', '.join(LAYOUTS[layout])}, not '{architecture}'")
    if inputs is not None and architecture not in FCNS:
        raise InputError(f"inputs are for an FCN, not for {architecture}")
    if layout in DEEPLABV3_LAYOUTS:
        if scales or (rates and architecture == "fcn"):
            raise InputError(f"{architecture} takes no {'scales' if scales else 'rates'}")
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
