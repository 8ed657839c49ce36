"""KServe's V2 inference protocol (the Open Inference Protocol), with its extension for binary tensors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from atrous.data.files.images import DecodedImage, decode_image
from atrous.errors import InputError
from atrous.inference.segmentation import Segmentation
from atrous.serve.options import SegmentOptions, read_options
from atrous.serve.problems import Problem
from atrous.serve.segmenting import Segmenter
from atrous.serve.served import ServedModel
from atrous.serve.settings import MOST_IMAGES
from atrous.serve.uploads import decode_text, parse_json

HEADER = "inference-header-content-length"
IMAGE, FILE, LABELS, PROBABILITIES = "image", "file", "labels", "probabilities"
MOST_BYTES = 2**28
"""Of the probabilities of an answer."""
MOST_NUMBERS = 2**22
"""Of an answer in JSON, where each takes up to a hundred bytes while it is written."""


class Tensor(BaseModel):
    """A tensor of a request, or an output that is asked for."""

    model_config = ConfigDict(extra="ignore")

    name: str
    shape: list[int] = Field(default_factory=list)
    datatype: str = ""
    data: list[Any] | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferRequest(BaseModel):
    """The JSON of ``/v2/models/{model}/infer``."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = None
    inputs: list[Tensor] = Field(min_length=1, max_length=1)
    outputs: list[Tensor] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(default_factory=dict, description="Options of /segment, such as crf.")


def routes(segmenter: Segmenter) -> list[BaseRoute]:
    """The endpoints of the protocol."""

    async def server(_: Request) -> Response:
        from importlib.metadata import version

        return JSONResponse({"name": "atrous", "version": version("atrous"), "extensions": ["binary_tensor_data"]})

    async def live(_: Request) -> Response:
        return JSONResponse({"live": True})

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": True})

    async def model(request: Request) -> Response:
        return JSONResponse(_metadata(segmenter.model(request.path_params["model"])))

    async def model_ready(request: Request) -> Response:
        return JSONResponse({"name": segmenter.model(request.path_params["model"]).name, "ready": True})

    async def infer(request: Request) -> Response:
        served = segmenter.model(request.path_params["model"])
        with segmenter.bodies.held() as share:
            body = await segmenter.bodies.read(request, share)
            wanted, tail = await asyncio.to_thread(_read, body, request.headers.get(HEADER))
            return await _infer(segmenter, request, served, wanted, tail)

    return [
        Route("/v2", server),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/v2/models/{model}", model),
        Route("/v2/models/{model}/ready", model_ready),
        Route("/v2/models/{model}/infer", infer, methods=["POST"]),
    ]


def _metadata(served: ServedModel) -> dict[str, Any]:
    channels = served.predictor().in_channels
    outputs = [{"name": LABELS, "datatype": "UINT8", "shape": [-1, -1, -1]}]
    if served.has_probabilities:
        outputs.append({"name": PROBABILITIES, "datatype": "FP32", "shape": [-1, len(served.label_set), -1, -1]})
    return {
        "name": served.name,
        "versions": ["1"],
        "platform": f"atrous_{served.runtime}",
        "inputs": [
            {"name": IMAGE, "datatype": "UINT8", "shape": [-1, -1, -1, channels]},
            {"name": FILE, "datatype": "BYTES", "shape": [1]},
        ],
        "outputs": outputs,
    }


def _read(body: bytes, header: str | None) -> tuple[InferRequest, bytes]:
    """The JSON of a request, and the binary tensors behind it."""
    length = len(body)
    if header is not None:
        length = int(header) if header.isdecimal() and len(header) < 20 else -1
        if not 0 <= length <= len(body):
            raise Problem(400, f"{HEADER} is {header[:40]!r}, expected the length of the JSON in bytes")
    try:
        return InferRequest.model_validate(parse_json(body[:length])), body[length:]
    except ValidationError as error:
        first = error.errors()[0]
        raise Problem(400, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


async def _infer(
    segmenter: Segmenter, request: Request, served: ServedModel, wanted: InferRequest, tail: bytes
) -> Response:
    names = list(dict.fromkeys(output.name for output in wanted.outputs)) or [LABELS]
    if unknown := sorted(set(names) - {LABELS, PROBABILITIES}):
        raise Problem(400, f"there is no output '{unknown[0][:40]}'; there are {LABELS} and {PROBABILITIES}")
    given = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in _options(wanted)}
    include = {"include": PROBABILITIES} if PROBABILITIES in names else {}
    options = read_options(given, include, {"model": served.name})
    images = await asyncio.to_thread(_images, wanted.inputs[0], tail)
    _check_answer(served, wanted, names, images)
    found = []
    for image in images:
        found.append(await _label(segmenter, request, image, options))
    arrays = await asyncio.to_thread(_outputs, list(found), names)
    return await asyncio.to_thread(_answer, served, wanted, names, arrays)


async def _label(segmenter: Segmenter, request: Request, image: DecodedImage, options: SegmentOptions) -> Segmentation:
    return (await segmenter.label(request, image, options)).found


def _options(wanted: InferRequest) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in wanted.parameters.items() if name != "binary_data_output"]


def _images(tensor: Tensor, tail: bytes) -> list[DecodedImage]:
    """The images of the input.

    Raises:
        Problem: 400, a tensor of another name, type or shape.
    """
    if tensor.name == FILE and tensor.datatype == "BYTES":
        return [decode_image(_file(tensor, tail), "the image")]
    shape = tuple(tensor.shape)
    if tensor.name != IMAGE or tensor.datatype != "UINT8" or len(shape) != 4 or min(shape) < 1:
        raise Problem(
            400,
            f"the input is '{tensor.name[:40]}' of {tensor.datatype[:10] or 'no type'} {list(shape)[:8]}; expected "
            f"'{IMAGE}' of UINT8 [N, H, W, 3], or '{FILE}' of BYTES [1], an image file",
        )
    if shape[0] > MOST_IMAGES:
        raise Problem(400, f"the input has {shape[0]} images, expected at most {MOST_IMAGES}: send several requests")
    if tensor.data is None:
        values: NDArray[Any] = np.frombuffer(tail, np.uint8)
    else:
        try:
            values = np.array(tensor.data, np.int64).reshape(-1)
        except (ValueError, TypeError, OverflowError):
            raise Problem(400, "the input's data are not integers, expected values 0 to 255") from None
        if values.size and not (values.min() >= 0 and values.max() <= 255):
            raise Problem(400, f"the input's data are {values.min()} to {values.max()}, expected values 0 to 255")
    count = shape[0] * shape[1] * shape[2] * shape[3]
    if values.size != count:
        raise Problem(400, f"the input has {values.size} values, expected {list(shape)} = {count}")
    return [DecodedImage(np.array(image)) for image in values.astype(np.uint8).reshape(shape)]


def _file(tensor: Tensor, tail: bytes) -> bytes:
    if tensor.data is None:  # each element is its length in four bytes, and itself
        length = int.from_bytes(tail[:4], "little")
        if len(tail) != 4 + length:
            raise Problem(
                400,
                f"the input has {len(tail)} bytes behind the JSON, expected one element: its length in 4 bytes, little-"
                f"endian, which says {length}, and that many bytes",
            )
        return tail[4:]
    return decode_text(tensor.data[0] if len(tensor.data) == 1 else None, "the input's one element")


def _check_answer(served: ServedModel, wanted: InferRequest, names: list[str], images: list[DecodedImage]) -> None:
    """Fail before anything is computed for an answer that would be too large.

    Raises:
        InputError: too many bytes, or too many numbers in JSON.
    """
    height, width = images[0].pixels.shape[:2]
    values = {LABELS: len(images) * height * width, PROBABILITIES: len(images) * len(served.label_set) * height * width}
    size = 4 * values[PROBABILITIES]
    if PROBABILITIES in names and size > MOST_BYTES:
        raise InputError(
            f"the probabilities take {size / 1e6:.0f} MB, expected at most {MOST_BYTES / 1e6:.0f}: send fewer or "
            "smaller images, or ask /segment for them at network resolution (include=probabilities)"
        )
    numbers = sum(values[name] for name in names if not _in_binary(wanted, name))
    if numbers > MOST_NUMBERS:
        raise InputError(
            f"the answer has {numbers:,} numbers in JSON, expected at most {MOST_NUMBERS:,}: ask for binary tensors "
            "(the parameter binary_data_output, true), or send fewer or smaller images"
        )


def _in_binary(wanted: InferRequest, name: str) -> bool:
    """Whether an output is asked for as a binary tensor."""
    by_default = wanted.parameters.get("binary_data_output")
    asked = {output.name: output.parameters.get("binary_data", by_default) for output in wanted.outputs}
    return bool(asked.get(name, by_default))


def _outputs(found: list[Segmentation], names: list[str]) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    if LABELS in names:
        arrays[LABELS] = np.stack([one.labels for one in found])
    if PROBABILITIES in names:
        arrays[PROBABILITIES] = np.stack([one.probabilities(full_size=True) for one in found])
    return arrays


def _answer(served: ServedModel, wanted: InferRequest, names: list[str], arrays: dict[str, NDArray[Any]]) -> Response:
    outputs, tail = [], b""
    for name in names:
        values = arrays[name]
        output: dict[str, Any] = {
            "name": name,
            "shape": list(values.shape),
            "datatype": "UINT8" if name == LABELS else "FP32",
        }
        if _in_binary(wanted, name):
            content = values.tobytes()
            output["parameters"] = {"binary_data_size": len(content)}
            tail += content
        else:
            output["data"] = values.reshape(-1).tolist()
        outputs.append(output)
    described: dict[str, Any] = {"model_name": served.name, "model_version": "1", "outputs": outputs}
    if wanted.id is not None:
        described["id"] = wanted.id
    if not tail:
        return JSONResponse(described)
    head = json.dumps(described).encode()
    return Response(head + tail, headers={HEADER: str(len(head))}, media_type="application/octet-stream")
