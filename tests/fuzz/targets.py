"""The targets: each reads files of a kind as a user's command would."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from atrous.convert.architectures.deeplabv3 import deeplabv3_to
from atrous.convert.architectures.fcn import UPSAMPLING
from atrous.convert.caffe import convert_caffe
from atrous.convert.pytorch import convert_pytorch
from atrous.convert.tensorflow import convert_tensorflow, mobilenetv2_naming
from atrous.convert.tensors import FileTensors
from atrous.convert.tflite import convert_tflite_arrays
from atrous.convert.to_pytorch import export_pytorch
from atrous.crf import Bilateral, DenseCRF
from atrous.data.doctor.check import check
from atrous.data.files.images import open_image
from atrous.data.files.mask_form import MaskForm
from atrous.data.files.masks import MaskFile, read_mask
from atrous.data.files.matlab import MatlabMask
from atrous.data.opening import open_dataset
from atrous.data.sources.nyud import read_log_depth
from atrous.data.sources.person_part import merge_parts
from atrous.errors import AtrousError, InputError
from atrous.inference.batch import predict_files
from atrous.inference.crf_files import refine_files
from atrous.inference.results import OutputOptions
from atrous.label_sets import VOC
from atrous.labels import LabelSet, encode_mask
from atrous.models.backbones import fcn as classics
from atrous.models.base import SegmentationModel
from atrous.models.create import create_model
from atrous.models.layers import bilinear_kernel
from atrous.models.loading import load
from atrous.training.recipe_file import SHIPPED, load_recipe
from tests.conftest import thin_classifier
from tests.convert.conftest import blob, field
from tests.convert.test_tensorflow import write_bundle
from tests.fuzz.harness import Files, Target

SIZE = HEIGHT, WIDTH = 20, 30
LABELS = np.arange(HEIGHT * WIDTH).reshape(SIZE) % 7
COLORS = np.stack([LABELS * 30, LABELS * 20 + 9, 255 - LABELS], 2).astype(np.uint8)


def pillow(values: np.ndarray, kind: str, mode: str = "", **options: Any) -> bytes:
    """An image file."""
    file = io.BytesIO()
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """EXIF data with an orientation."""
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def image_files() -> list[Files]:
    """Images in every common format and mode."""
    modes = {"png": ("L", "RGB", "RGBA", "P", "1", "LA"), "gif": ("P",), "bmp": ("RGB", "L"), "webp": ("RGB", "RGBA")}
    files = [(kind, pillow(COLORS, kind, mode)) for kind, known in modes.items() for mode in known]
    files += [("jpg", pillow(COLORS, "jpeg", mode, exif=exif(6))) for mode in ("RGB", "L", "CMYK")]
    files += [("jpg", pillow(COLORS, "jpeg", progressive=True))]
    files += [("tif", pillow(COLORS, "tiff", compression=name)) for name in ("raw", "tiff_lzw", "jpeg", "packbits")]
    deep = (LABELS * 900).astype(np.uint16)
    files += [(kind, pillow(deep, {"tif": "tiff"}.get(kind, kind))) for kind in ("png", "tif")]
    files += [("tif", pillow(LABELS.astype(np.float32), "tiff")), ("jp2", pillow(COLORS, "jpeg2000"))]
    frames = [Image.fromarray(COLORS), Image.fromarray(COLORS[::-1].copy())]
    animation = io.BytesIO()
    frames[0].save(animation, "gif", save_all=True, append_images=frames[1:])
    return [{f"a.{kind}": data} for kind, data in [*files, ("gif", animation.getvalue())]]


def mask_files() -> list[Files]:
    """Masks: palette, grey, RGB and 1-bit PNGs, TIFF, GIF, BMP."""
    labels = LABELS.astype(np.uint8)
    files = [("png", encode_mask(labels, VOC)), ("png", pillow(labels, "png")), ("png", pillow(labels, "png", "1"))]
    files += [("png", pillow(VOC.palette()[LABELS], "png")), ("png", pillow(labels.astype(np.uint16), "png"))]
    files += [("tif", pillow(labels, "tiff")), ("gif", pillow(labels, "gif")), ("bmp", pillow(labels, "bmp"))]
    return [{f"a.{kind}": data} for kind, data in files]


def matlab_files() -> list[Files]:
    """Matrices, and PASCAL-Part's structs; compressed and not, and of version 4."""
    import scipy.io

    part = np.array([[("hair", LABELS > 3)]], [("part_name", object), ("mask", object)])
    fields = [(name, object) for name in ("class", "mask", "parts")]
    things = np.array([[("person", LABELS > 2, part), ("dog", LABELS > 1, np.zeros((0, 0)))]], fields)
    contents: list[dict[str, Any]] = [{"S": LABELS.astype(kind)} for kind in ("u1", "i2", "f8")]
    contents += [{"first": "x", "S": LABELS.astype("u1"), "names": np.array([["a"], ["b"]], object)}]
    contents += [{"anno": {"imname": "a", "objects": things}}]
    files = []
    for content in contents:
        for options in ({"do_compression": True}, {"do_compression": False}, {"format": "4"}):
            if options.get("format") and len(content) + ("anno" in content) > 1:
                continue
            file = io.BytesIO()
            scipy.io.savemat(file, content, **options)
            files.append({"a.mat": file.getvalue()})
    return files


def one(folder: Path) -> Path:
    """The only file of a folder."""
    (file,) = folder.iterdir()
    return file


def every(*calls: Callable[[], object]) -> None:
    """Make all calls; if all raise an AtrousError, raise the first."""
    errors = []
    for call in calls:
        try:
            call()
        except AtrousError as error:
            errors.append(error)
    if len(errors) == len(calls):
        raise errors[0]


def read_masks(folder: Path) -> None:
    mask = MaskFile(one(folder))
    colors = MaskForm(VOC, encoding="rgb")
    every(*(functools.partial(read_mask, mask, form) for form in (MaskForm(VOC), colors)))


def read_matrices(folder: Path) -> None:
    masks = MatlabMask(one(folder), "S"), MatlabMask(one(folder), "anno", merge_parts, same_size=False)
    every(*(functools.partial(read_mask, mask, MaskForm(VOC)) for mask in masks))


def coco_files() -> list[Files]:
    """A dataset with outlines, runs, compressed runs and a crowd."""
    images = [
        {"id": number, "file_name": f"{number}.jpg", "height": HEIGHT, "width": WIDTH, "license": 1}
        for number in range(2)
    ]
    box = {"area": 100.0, "bbox": [1, 1, 10, 10], "iscrowd": 0, "category_id": 3}
    shapes: list[Any] = [
        [[1, 1, 11, 1, 11, 11, 1, 11]],
        [[1.5, 1, 11, 1, 11, 11], [2, 2, 4, 4, 8, 1.25]],
        {"size": list(SIZE), "counts": [100, 300, HEIGHT * WIDTH - 400]},
        {"size": list(SIZE), "counts": "T3T9`6"},
    ]
    things = [
        box | {"id": number, "image_id": number % 2, "segmentation": shape, "iscrowd": int(isinstance(shape, dict))}
        for number, shape in enumerate(shapes)
    ]
    categories = [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]
    jpeg = pillow(COLORS, "jpeg")
    annotations = {"info": {}, "images": images, "annotations": things, "categories": categories}
    photos = {f"train2017/{image['file_name']}": jpeg for image in images}
    whole = {"annotations/instances_train2017.json": json.dumps(annotations).encode(), **photos}
    annotations["annotations"] = things[:3]
    return [whole, whole | {"annotations/instances_train2017.json": json.dumps(annotations).encode()}]


def folder_files() -> list[Files]:
    """A folder dataset with labels.toml and split lists."""
    toml = """names = ["ground", "a", "b", "c", "d", "e", "f"]
colors = [[0, 0, 0], [1, 2, 3], [9, 9, 9], [0, 0, 200], [0, 200, 0], [200, 0, 0], [1, 1, 1]]
values = [0, 1, 2, 3, 4, 5, 6]
ignore = [255]
encoding = "index"
orientation = "upright"
"""
    mask, image = pillow(LABELS.astype(np.uint8), "png"), pillow(COLORS, "png")
    files = {f"{kind}/{name}.png": data for kind, data in (("images", image), ("masks", mask)) for name in "ab"}
    lists = {"splits/train.txt": b"a\n", "splits/val.txt": b"b\n"}
    rgb = toml.replace("index", "rgb").replace("values = [0, 1, 2, 3, 4, 5, 6]\n", "").replace("[255]", "[[7, 7, 7]]")
    colors = np.array(tomllib.loads(toml)["colors"], np.uint8)
    colored = {f"masks/{name}.png": pillow(colors[LABELS], "png") for name in "ab"}
    return [
        {"labels.toml": toml.encode(), **files, **lists},
        {"labels.toml": rgb.encode(), **files, **lists, **colored},
    ]


def read_dataset(kind: str, split: str, folder: Path) -> None:
    spec = f"{kind}:{folder}"
    check(spec)
    list(open_dataset(spec, split))


def recipe_files() -> list[Files]:
    """The recipes that come with the package."""
    assert SHIPPED
    return [{"a.toml": file.read_bytes()} for file in sorted(SHIPPED.glob("*_*.toml"))]


@functools.cache
def _model_folders() -> list[Files]:
    labels = LabelSet(("ground", "a", "b"))
    options = {
        "deeplabv3plus": {"channels": 8, "low_level_channels": 4, "rates": (1, 2)},
        "deeplabv3": {"channels": 8, "rates": (1, 2)},
        "fcn8s": {},
    }
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for name, own in options.items():
            model = create_model(name, backbone="test_resnet", label_set=labels, pretrained=False, **own)
            model.save(Path(folder) / name)
            files = {file.name: file.read_bytes() for file in (Path(folder) / name).iterdir()}
            found.append({f"model/{file}": data for file, data in files.items()} | {"a.png": pillow(COLORS, "png")})
    return found


def load_and_predict(folder: Path) -> None:
    model = load(folder / "model")
    report = predict_files(model, [folder / "a.png"], folder / "out", device="cpu")
    if report.failed:
        raise InputError(report.failed[0].reason)


def prediction_files() -> list[Files]:
    """Predictions of another program beside their image."""
    probability = np.full((2, *SIZE), 0.5, np.float32)
    arrays = [probability, probability.astype(np.float16), probability.astype(np.float64)[None]]

    def stored(save: Callable[..., None], *values: Any, **named: Any) -> bytes:
        file = io.BytesIO()
        save(file, *values, **named)
        return file.getvalue()

    small = {"probabilities": probability[:, ::2, ::2].astype(np.float16), "names": np.array(["a", "b"])}
    ours = stored(np.savez_compressed, **small, size=np.array(SIZE), stride=np.array(2.0), offset=np.array(0.0))
    found = [("a.npy", stored(np.save, array)) for array in arrays]
    found += [("a.npz", stored(np.savez, probability)), ("a.probabilities.npz", ours), ("a.probabilities.npz", ours)]
    grey = (LABELS * 30).astype(np.uint8)
    found += [("a.png", pillow(grey, "png")), ("a.png", pillow(grey.astype(np.uint16) * 257, "png"))]
    found += [("a.png", pillow(LABELS.astype(np.uint8), "png", "P"))]
    return [{"image/a.png": pillow(COLORS, "png"), f"predictions/{name}": data} for name, data in found]


def refine(folder: Path, **options: Any) -> None:
    crf = DenseCRF([Bilateral(10, 10, 4)], iterations=1)
    outputs = OutputOptions()
    report = refine_files([folder / "image"], folder / "predictions", folder / "out", crf, outputs=outputs, **options)
    if report.failed:
        raise InputError(report.failed[0].reason)


def refine_both(folder: Path) -> None:
    every(lambda: refine(folder), lambda: refine(folder, kind="logits"), lambda: refine(folder, confidence=0.7))


SHARE = 64
"""The VGG-16 of the seeds has this share of its channels."""


def vgg_tensors() -> dict[str, dict[str, np.ndarray]]:
    """By architecture the tensors of whole networks on a narrow VGG-16, with Caffe's names."""
    classes, sides, maps = 3, {}, {"1": 1, "2": 2, "3": 4, "4": 8, "5": 8}
    inputs = 3
    for block, count in enumerate((2, 2, 3, 3, 3), 1):
        for number in range(1, count + 1):
            sides[f"conv{block}_{number}"] = (maps[str(block)], inputs, 3)
            inputs = maps[str(block)]
    wide = 4096 // SHARE
    fully = {"fc6": (wide, inputs, 7), "fc7": (wide, wide, 1), "score_fr": (classes, wide, 1)}
    skips = {"score_pool4": (classes, maps["4"], 1), "score_pool3": (classes, maps["3"], 1)}
    view = {"fc6": (wide, inputs, 3), "fc7": (wide, wide, 1), "fc8_voc12": (classes, wide, 1)}
    networks = {"fcn32s": sides | fully, "fcn8s": sides | fully | skips, "deeplab_largefov": sides | view}
    found = {}
    for architecture, layers in networks.items():
        tensors = found[architecture] = {}
        for name, (outputs, channels, kernel) in layers.items():
            tensors[f"{name}.weight"] = np.zeros((outputs, channels, kernel, kernel), np.float32)
            tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)
        for name, factor in UPSAMPLING.get(architecture, {}).items():
            kernel = bilinear_kernel(2 * factor).numpy()
            tensors[f"{name}.weight"] = (np.eye(classes)[..., None, None] * kernel).astype(np.float32)
    return found


def on_narrow_vgg(convert: Callable[..., SegmentationModel], file: Path, *more: str) -> None:
    """Convert a file, whose name begins with its architecture, as the command does."""
    with patch.object(classics, "_classifier", functools.partial(thin_classifier, share=SHARE)):
        convert(file, file.name.partition(".")[0], *more).save(file.parent / "model")


def caffe_files() -> list[Files]:
    """Whole networks in both forms of layers, and with unpacked numbers."""
    found = []
    forms = {"old": (2, 4, 6), "new": (100, 1, 7), "unpacked": (100, 1, 7)}
    for architecture, tensors in vgg_tensors().items():
        names = dict.fromkeys(name.partition(".")[0] for name in tensors)
        for form, (number, called, holds) in forms.items():
            data = field(1, b"a net")
            for name in names:
                arrays = [tensors[f"{name}.{kind}"] for kind in ("weight", "bias") if f"{name}.{kind}" in tensors]
                parts = [field(called, name.encode()), *(field(holds, blob(array, form)) for array in arrays)]
                data += field(number, b"".join(parts))
            found.append({f"{architecture}.caffemodel": data})
    return found


def mobilenetv2_tensors() -> dict[str, Tensor]:
    """A DeepLabv3 for three classes on a MobileNetV2 of one channel, but for its last, with TensorFlow's scopes."""
    model = create_model("deeplabv3", backbone="mobilenetv2_035", num_classes=3, pretrained=False, rates=())
    last = "MobilenetV2/expanded_conv_16/project"
    naming = mobilenetv2_naming(FileTensors(Path("net"), {f"{last}.weight": torch.zeros(112, 1, 1, 1)}))
    found = {}
    for name, tensor in deeplabv3_to(model, naming).items():
        if name.startswith("MobilenetV2") and tensor.ndim:
            own = slice(None) if name.startswith(last) else slice(1)
            tensor = tensor[own, :1] if tensor.ndim > 1 else tensor[own]
        found[name] = torch.zeros_like(tensor) if tensor.ndim > 1 else tensor.clone()
    return found


def tflite_files() -> list[Files]:
    """The arrays of a whole network, with the list of its layers."""
    arrays, layers = {}, []
    convs = {name.rpartition(".")[0]: tensor for name, tensor in mobilenetv2_tensors().items() if tensor.ndim == 4}
    for number, (scope, weight) in enumerate(convs.items()):
        layout, axes = ("1HWC", (1, 2, 3, 0)) if scope.endswith("depthwise") else ("OHWI", (0, 2, 3, 1))
        arrays[f"{number:02}.weight"] = weight.permute(axes).numpy()
        arrays[f"{number:02}.bias"] = np.zeros(len(weight), np.float32)
        stride = [2, 2] if number < 4 else [1, 1]  # a product of 16
        layers.append({"i": number, "tensor": f"{scope}/weights", "layout": layout, "stride": stride})
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return [{"a.npz": file.getvalue(), "a.json": json.dumps(layers).encode()}]


def tensorflow_files() -> list[Files]:
    """The variables of a whole network, alone and among those of its training."""
    norms = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    variables = {}
    for name, tensor in mobilenetv2_tensors().items():
        scope, _, kind = name.rpartition(".")
        if scope.endswith("BatchNorm"):
            if kind in norms:
                variables[f"{scope}/{norms[kind]}"] = tensor.numpy()
        elif scope.endswith("depthwise"):
            variables[f"{scope}/depthwise_weights"] = tensor.permute(2, 3, 0, 1).numpy()
        else:
            weight = tensor.ndim == 4
            variables[f"{scope}/{'weights' if weight else 'biases'}"] = (
                tensor.permute(2, 3, 1, 0) if weight else tensor
            ).numpy()
    biases = variables["logits/semantic/biases"]
    training = {"global_step": np.array(3), "logits/semantic/biases/Momentum": biases}
    training["logits/semantic/biases/ExponentialMovingAverage"] = biases
    found = []
    for more in ({}, training):
        with tempfile.TemporaryDirectory() as folder:
            write_bundle(Path(folder) / "m", variables | more)
            found.append({file.name: file.read_bytes() for file in Path(folder).iterdir()})
    return found


@functools.cache
def _pytorch_files() -> list[Files]:
    from safetensors.torch import save

    found = []
    for architecture, arrays in vgg_tensors().items():
        if architecture == "deeplab_largefov":
            continue  # no program in PyTorch has it
        weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
        module = {f"module.{name}": tensor for name, tensor in weights.items()}
        for state in (weights, {"state_dict": module, "epoch": 3, "lr": 0.1}):
            file = io.BytesIO()
            torch.save(state, file)
            found.append({f"{architecture}.wkentaro.pth": file.getvalue()})
        legacy = io.BytesIO()
        torch.save(weights, legacy, _use_new_zipfile_serialization=False)
        found += [{f"{architecture}.wkentaro.pth": legacy.getvalue()}]
        found += [{f"{architecture}.wkentaro.safetensors": save(weights)}]
    model = create_model("deeplabv3", backbone="mobilenetv2_035", num_classes=3, pretrained=False, rates=())
    zeros = {name: torch.zeros_like(tensor) for name, tensor in export_pytorch(model, "transformers").items()}
    return [*found, {"deeplabv3.transformers.safetensors": save(zeros)}]


def convert_state_dict(folder: Path) -> None:
    file = one(folder)
    on_narrow_vgg(convert_pytorch, file, file.name.split(".")[1])


TARGETS = {
    "images": Target(functools.cache(image_files), lambda folder: open_image(one(folder))),
    "masks": Target(functools.cache(mask_files), read_masks),
    "depth": Target(
        lambda: [{"a.png": pillow((LABELS * 900).astype(np.uint16), "png")}], lambda folder: read_log_depth(one(folder))
    ),
    "matlab": Target(functools.cache(matlab_files), read_matrices),
    "coco": Target(functools.cache(coco_files), functools.partial(read_dataset, "coco", "train"), (".json",)),
    "folder": Target(
        functools.cache(folder_files), functools.partial(read_dataset, "folder", "train"), (".toml", ".txt", "s/a.png")
    ),
    "recipes": Target(functools.cache(recipe_files), lambda folder: load_recipe(one(folder))),
    "models": Target(_model_folders, load_and_predict, (".json", ".safetensors")),
    "predictions": Target(functools.cache(prediction_files), refine_both, (".npy", ".npz", "predictions/a.png")),
    "tflite": Target(
        functools.cache(tflite_files), lambda folder: convert_tflite_arrays(folder / "a.npz").save(folder / "model")
    ),
    "caffe": Target(functools.cache(caffe_files), lambda folder: on_narrow_vgg(convert_caffe, one(folder))),
    "tensorflow": Target(
        functools.cache(tensorflow_files),
        lambda folder: convert_tensorflow(folder / "m", "deeplabv3").save(folder / "model"),
    ),
    "pytorch": Target(_pytorch_files, convert_state_dict),
}
