"""Arrays of TFLite networks: real trained ones, and a refusal of what is none."""

import json
import re
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from atrous.cli import app
from atrous.convert.tensors import ConversionError
from atrous.convert.tflite import convert_tflite_arrays
from atrous.models import load

LAYER = {"i": 0, "tensor": "MobilenetV2/Conv/weights", "layout": "OHWI", "stride": [2, 2]}


@pytest.mark.shared
def test_a_trained_network_gives_its_published_logits(shared: Path, tmp_path: Path) -> None:
    weights, out = shared / "weights/deeplabv3_257_mv_gpu.npz", tmp_path / "m"
    done = CliRunner().invoke(app, ["convert", "tflite-arrays", str(weights), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "deeplabv3 on mobilenetv2_050" in done.stdout
    model = load(out)
    assert (model.output_stride, model.label_set.names[8]) == (8, "cat")
    reference = np.load(shared / "reference/deeplabv3_mobilenetv2_x0.5_257_logits.npz")
    image = torch.from_numpy(reference["rgb_u8"]).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = model(model.preprocess(image))[0].permute(1, 2, 0).numpy()
    assert np.abs(logits - reference["logits"]).max() < 1e-3
    assert (logits.argmax(-1) == reference["logits"].argmax(-1)).all()


@pytest.mark.shared
@pytest.mark.slow
def test_a_quantised_network_labels_images(shared: Path) -> None:
    """On every tenth image of the subset; on all, docs/weights.md has the figures."""
    model = convert_tflite_arrays(shared / "weights/deeplabv3_mnv2_pascal_quant.npz")
    model.pad_to = 513
    assert (model.output_stride, model.backbone.name) == (16, "mobilenetv2_100")
    assert torch.equal(
        model.preprocess(torch.tensor([0, 128, 192], dtype=torch.uint8).view(1, 3, 1, 1)).flatten(),
        torch.tensor([-1, 0, 0.5]),
    )
    voc = shared / "data/VOCdevkit/VOC2012"
    right = counted = 0
    for name in (voc / "ImageSets/Segmentation/val.txt").read_text().split()[::10]:
        image = np.array(Image.open(voc / f"JPEGImages/{name}.jpg").convert("RGB"))
        mask = torch.from_numpy(np.array(Image.open(voc / f"SegmentationClass/{name}.png")))
        with torch.no_grad():
            found = model(model.preprocess(torch.from_numpy(image).permute(2, 0, 1)[None]))[0].argmax(0)
        right += int((found == mask)[mask != 255].sum())
        counted += int((mask != 255).sum())
    assert right / counted > 0.925


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "net.npz"
    np.savez(file, **{"00.weight": np.zeros((4, 3, 3, 3), "f4"), "00.bias": np.zeros(4, "f4")})
    with pytest.raises(FileNotFoundError, match=r"net\.json"):
        convert_tflite_arrays(file)
    (tmp_path / "net.json").write_text(json.dumps([LAYER]))
    with pytest.raises(ConversionError, match=r"has no tensor 'MobilenetV2/expanded_conv_16/project\.weight'"):
        convert_tflite_arrays(file)
    (tmp_path / "net.json").write_text(json.dumps([LAYER | {"i": 1}]))
    with pytest.raises(ConversionError, match=r"not the arrays of a TFLite network: .*01\.weight"):
        convert_tflite_arrays(file)


@pytest.mark.parametrize(
    ("arrays", "layers", "words"),
    [
        (None, "[]", r"net\.npz is missing: .* must have the same name"),
        ({"00.weight": np.zeros(1)}, None, r"net\.json is missing: .* must have the same name"),
        (b"", "[]", "is not an .npz file of numpy, or truncated"),
        (b"PK\3\4cut", "[]", "is not an .npz file of numpy, or truncated"),
        (b"\x20\0\0\0TFL3", "[]", "it is a TFLite network, whose arrays must be extracted first"),
        ({"a": np.zeros(1)}, "{nope", r"net\.json is not a list of a network's layers: Invalid JSON"),
        ({"a": np.zeros(1)}, "[]", "at least 1 item"),
        ({"a": np.zeros(1)}, json.dumps([LAYER | {"layout": "HWIO"}]), r"\[0\]\['layout'\]: .*'OHWI' or '1HWC'"),
        ({"00.weight": np.zeros((2, 3)), "00.bias": np.zeros(2)}, json.dumps([LAYER]), "2 dimensions, expected 4"),
        ({"00.weight": np.array([{}])}, json.dumps([LAYER]), "other objects than arrays of numbers"),
    ],
)
def test_files_that_do_not_fit_together_are_told_apart(
    tmp_path: Path, arrays: bytes | dict[str, np.ndarray] | None, layers: str | None, words: str
) -> None:
    file = tmp_path / "net.npz"
    if isinstance(arrays, bytes):
        file.write_bytes(arrays)
    elif arrays:
        np.savez(file, **arrays)
    if layers is not None:
        (tmp_path / "net.json").write_text(layers)
    done = CliRunner().invoke(app, ["convert", "tflite-arrays", str(file), "--out", str(tmp_path / "m")])
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert re.search(words, done.stderr)
    assert "pickle" not in done.stderr


@pytest.mark.parametrize(
    ("offset", "value"), [(6, 1), (8, 99), (8, 12)], ids=["encrypted", "unknown compression", "another compression"]
)
def test_flags_of_a_zip_file(tmp_path: Path, offset: int, value: int) -> None:
    file = tmp_path / "net.npz"
    np.savez(file, **{"00.weight": np.ones((1, 3, 3, 3), np.float32)})
    content = bytearray(file.read_bytes())
    content[offset] = value  # of the local header
    content[content.index(b"PK\1\2") + offset + 2] = value  # of the directory
    file.write_bytes(content)
    file.with_suffix(".json").write_text("[]")
    with pytest.raises(ConversionError, match=r"net\.npz contains other objects than arrays of numbers, or is damaged"):
        convert_tflite_arrays(file)


@pytest.mark.parametrize("side", [2**63, 2**40])
def test_axes_that_no_memory_holds(tmp_path: Path, side: int) -> None:
    file = tmp_path / "net.npz"
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({side}, 3), }}\n".encode()
    with ZipFile(file, "w") as archive:
        archive.writestr("00.weight.npy", b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header)
    file.with_suffix(".json").write_text("[]")
    with pytest.raises(ConversionError, match=rf"net\.npz contains an array of {side}×3 float32 values"):
        convert_tflite_arrays(file)
