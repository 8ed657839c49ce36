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
    """Convert the arrays of a TFLite network (.npz, and .json of its layers): DeepLabv3 on MobileNetV2."""
    from atrous.convert.tflite import convert_tflite_arrays

    check_model_folder(out, overwrite)
    save_converted(convert_tflite_arrays(file, label_set=read_label_set(classes, data)), out)
