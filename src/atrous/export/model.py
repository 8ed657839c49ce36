"""Exporting a model: one file for any image size, with everything between an image's bytes and its labels inside."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from atrous.errors import InputError
from atrous.export.graph import deployed, resize_to_pixels, sample_pixels
from atrous.files import write_atomically
from atrous.inference.prepare import require_model
from atrous.models.base import SegmentationModel

Format = Literal["onnx", "openvino", "torch"]
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
"""How each format's file is called; OpenVINO has a ``.bin`` beside it."""
NEEDED: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "onnxruntime", "openvino"),
    "torch": (),
}
"""The packages that writing each format takes."""


def export_model(
    model: SegmentationModel,
    out: str | Path,
    *,
    format: Format | None = None,
    output_stride: int | None = None,
    probabilities: bool = False,
) -> Path:
    """Write a model as one file that other programs run, for images of any number and size.

    Its input ``image`` is uint8 ``(N, H, W, C)``, RGB unless the model has other channels; its output ``labels`` uint8
    ``(N, H, W)``. Preprocessing, padding and resampling are inside. The file carries the model's ``config.json`` under
    the key ``atrous``. Test-time scales, mirror images and the CRF stay outside; a model's own scales (Attention to
    Scale) are inside.

    Args:
        model: any model of this package; it is not changed.
        out: the file: ``.onnx``, ``.xml`` (OpenVINO; weights in a ``.bin`` beside it) or ``.pt2`` (torch.export).
        format: "onnx", "openvino" or "torch"; that of the file's ending when left out.
        output_stride: of the exported network; the model's own when left out.
        probabilities: add the output ``probabilities``, float32 ``(N, classes, H, W)``.

    Returns:
        The file.

    Raises:
        InputError: an ending that is not the format's, a package that is missing, an output stride that the network
            does not support, or a network that can't be exported for every size.
        InputTypeError: the name of a model instead of a model.

    Example:
        >>> import atrous
        >>> model = atrous.create_model("deeplabv3", backbone="test_resnet", num_classes=2)
        >>> atrous.export_model(model, "model.pt2").name
        'model.pt2'
    """
    require_model(model)
    out = Path(out)
    kind = check_format(out, format)
    upsample = sample_pixels if kind == "torch" else resize_to_pixels
    network = deployed(model, output_stride, probabilities, upsample)
    if kind == "torch":
        from atrous.export.torch_file import to_torch

        write_atomically(out, to_torch(network))
        return out
    from atrous.export.onnx_file import describe_in, to_onnx

    graph = describe_in(to_onnx(network), network.model)
    if kind == "onnx":
        write_atomically(out, graph.SerializeToString())
        return out
    from atrous.export.openvino_file import write_openvino

    with TemporaryDirectory() as folder:
        write_openvino(graph, Path(folder, out.name))
        for file in (out.with_suffix(".bin"), out):
            write_atomically(file, Path(folder, file.name).read_bytes())
    return out


def check_format(out: Path, format: str | None) -> Format:
    """The format to write a file in.

    Raises:
        InputError: an unknown format, an ending that is not the format's, or a package that is missing.
    """
    formats: tuple[Format, ...] = get_args(Format)
    for kind in formats:
        if format == kind or (format is None and SUFFIXES[kind] == out.suffix.lower()):
            break
    else:
        endings = ", ".join(f"{SUFFIXES[kind]} ({kind})" for kind in formats)
        what = f"{out} ends in none of {endings}" if format is None else f"format is one of {endings}, not '{format}'"
        raise InputError(what)
    if out.suffix.lower() != SUFFIXES[kind]:
        raise InputError(f"{out}: a file of format {kind} ends in {SUFFIXES[kind]}: name it {out.stem}{SUFFIXES[kind]}")
    if missing := [package for package in NEEDED[kind] if find_spec(package) is None]:
        raise InputError(f"format {kind} needs {' and '.join(missing)}: pip install 'atrous[export]'")
    return kind
