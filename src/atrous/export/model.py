"""Exporting a model: one file for any image size, with everything between an image's bytes and its labels inside."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, get_args

from atrous.data.dataset import Dataset, require_dataset
from atrous.errors import InputError
from atrous.evaluation.classes import check_classes
from atrous.export.graph import Deployed, deployed, resize_to_pixels, sample_pixels
from atrous.export.proof import ExportError, Proof, proof_file, prove
from atrous.files import write_atomically
from atrous.inference.prepare import require_model
from atrous.inference.taken import require_8_bits
from atrous.labels import IGNORE
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
    calibrate: Dataset | None = None,
) -> Proof:
    """Write a model as one file that other programs run, for images of any number and size, and prove that it does.

    Its input ``image`` is uint8 ``(N, H, W, C)``, RGB unless the model has other channels; its output ``labels`` uint8
    ``(N, H, W)``. Preprocessing, padding and resampling are inside. The file carries the model's ``config.json`` under
    the key ``atrous``. Test-time scales, mirror images and the CRF stay outside; a model's own scales (Attention to
    Scale) are inside.

    The file is run in each installed runtime that reads it, in a child process, and compared with torch at several
    sizes. The result lies beside it (``.proof.json``).

    Args:
        model: any model of this package; it is not changed.
        out: the file: ``.onnx``, ``.xml`` (OpenVINO; weights in a ``.bin`` beside it) or ``.pt2`` (torch.export).
        format: "onnx", "openvino" or "torch"; that of the file's ending when left out.
        output_stride: of the exported network; the model's own when left out.
        probabilities: add the output ``probabilities``, float32 ``(N, classes, H, W)``.
        calibrate: compute in int8, with ranges seen on one half of these images; mean IoU is measured on the other.

    Returns:
        What was seen. ``good`` is false for an int8 file that loses more than 0.5 points of mean IoU in some runtime;
        the file is written all the same.

    Raises:
        ExportError: a runtime gives other labels than torch, or none can run the file: it is not written.
        InputError: an ending that is not the format's, a package that is missing, an output stride that the network
            does not support, a model of other images than those of 8 bits, a network that can't be exported for every
            size, more than 255 classes, or calibration data of other classes.
        InputTypeError: the name of a model instead of a model.

    Example:
        >>> import atrous
        >>> model = atrous.create_model("deeplabv3", backbone="test_resnet", num_classes=2)
        >>> atrous.export_model(model, "model.pt2").good
        True
    """
    require_model(model)
    require_8_bits(model, "an exported file takes")
    out = Path(out)
    kind = check_format(out, format)
    if model.label_set.ignore != IGNORE:
        raise InputError(
            f"the model has {model.num_classes} classes, and labels of an exported file are uint8, of at most {IGNORE}"
        )
    if calibrate is not None:
        _check_calibration(model, calibrate, kind)
    network = deployed(model, output_stride, True, sample_pixels if kind == "torch" else resize_to_pixels)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".atrous-export-", dir=out.parent) as folder:
        file, twin = Path(folder, out.name), Path(folder, f"full{out.suffix}")
        if kind == "torch":
            proof = _torch(network, file, twin, probabilities)
        else:
            proof = _onnx(network, file, twin, probabilities, calibrate)
        for part in (file.with_suffix(".bin"), file):
            if part.is_file():
                part.replace(out.with_name(part.name))
    write_atomically(proof_file(out), proof.to_json().encode())
    return proof


def _torch(network: Deployed, file: Path, twin: Path, probabilities: bool) -> Proof:
    from atrous.export.torch_file import to_torch

    twin.write_bytes(to_torch(network))
    network.probabilities = probabilities
    file.write_bytes(twin.read_bytes() if probabilities else to_torch(network))
    return _accepted(prove(network.model, file, twin))


def _onnx(network: Deployed, file: Path, twin: Path, probabilities: bool, calibrate: Dataset | None) -> Proof:
    from atrous.export.onnx_file import to_onnx, with_outputs, write_graph

    graph = to_onnx(network)
    outputs = ["labels", "probabilities"] if probabilities else ["labels"]
    if calibrate is None:
        write_graph(graph, network.model, twin)
        write_graph(with_outputs(graph, outputs), network.model, file)
        return _accepted(prove(network.model, file, twin))
    from atrous.export.quantize import add_int8, halves, to_int8

    learn, judge = halves(calibrate)
    small = to_int8(graph, calibrate, learn)
    write_graph(small, network.model, twin)
    write_graph(with_outputs(small, outputs), network.model, file)
    plain = twin.with_name(f"float{file.suffix}")
    write_graph(graph, network.model, plain)
    return add_int8(prove(network.model, file, twin, exact=False), file, plain, calibrate, judge, len(learn))


def _accepted(proof: Proof) -> Proof:
    """A proof of the same labels.

    Raises:
        ExportError: of other labels, or of nothing.
    """
    if not proof.good:
        raise ExportError(f"{proof.file} does not label images as the model does: {'; '.join(proof.lines())}")
    return proof


def _check_calibration(model: SegmentationModel, calibrate: Dataset, kind: Format) -> None:
    require_dataset(calibrate, "calibrate")
    if kind == "torch":
        raise InputError("int8 is for ONNX and OpenVINO files: name the file .onnx or .xml, or leave out calibrate")
    check_classes(model.label_set, calibrate.label_set)


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
