"""`atrous convert tflite-arrays`."""

from __future__ import annotations

from atrous.cli.convert.common import (
    Classes,
    ClassesOf,
    ModelFolder,
    Overwrite,
    Weights,
    check_model_folder,
    read_label_set,
    save_converted,
)


def tflite_arrays(
    file: Weights, out: ModelFolder, classes: Classes = None, data: ClassesOf = None, overwrite: Overwrite = False
) -> None:
    """Convert the arrays of a TFLite DeepLabv3.

    The arrays are an .npz, with a .json of the layers beside it; the backbone is MobileNetV2.
    """
    from atrous.convert.tflite import convert_tflite_arrays

    check_model_folder(out, overwrite)
    save_converted(convert_tflite_arrays(file, label_set=read_label_set(classes, data)), out)
