"""The description of the endpoints (OpenAPI 3.1), made from the types that check requests and make answers."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from atrous.serve.answers import Answer
from atrous.serve.kserve import InferRequest
from atrous.serve.options import SegmentOptions
from atrous.serve.scribbles import Completed, ScribbleOptions

Json = dict[str, Any]
_IMAGE = {"schema": {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}}
_PROBLEMS = {
    400: "An option or a request that can't be understood.",
    401: "The server asks for a token.",
    404: "There is no such model.",
    406: "None of the accepted types.",
    408: "The request was sent too slowly.",
    413: "Too many bytes or pixels.",
    415: "Not an image.",
    422: "A damaged image, or options that the model can't follow.",
    429: "The queue is full; Retry-After has the seconds.",
    503: "Too late, or the server is stopping.",
}


@cache
def describe_api(models: tuple[str, ...]) -> Json:
    """The description of a server with models of these names."""
    kinds = [(Answer, "serialization"), (Completed, "serialization"), (InferRequest, "validation")]
    kinds += [(SegmentOptions, "validation"), (ScribbleOptions, "validation")]
    _, schemas = models_json_schema(kinds, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type]
    schemas = schemas["$defs"]
    schemas["Problem"] = _problem()
    options, strokes = (schemas.pop(f"{name}Options")["properties"] for name in ("Segment", "Scribble"))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Atrous",
            "version": version("atrous"),
            "description": "Semantic segmentation: an image in, the class of each of its pixels out.",
        },
        "paths": _paths(options, strokes, list(models)),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }


def _paths(options: Json, strokes: Json, models: list[str]) -> Json:
    segment = {
        "summary": "Segment an image.",
        "parameters": [_parameter(name, schema) for name, schema in options.items()],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": _form(["image"], options)},
                "image/*": _IMAGE,
                "application/octet-stream": _IMAGE,
            },
        },
        "responses": {
            "200": {
                "description": "The mask as a palette PNG, or labels and areas as JSON, by the header Accept.",
                "content": {"application/json": {"schema": _ref("Answer")}, "image/png": _IMAGE},
            },
            **_errors(400, 401, 404, 406, 408, 413, 415, 422, 429, 503),
        },
    }
    complete = {
        "summary": "Complete a few strokes per class to a mask: 'scribbles' is a PNG of classes, 255 where none is.",
        "parameters": [_parameter(name, schema) for name, schema in strokes.items()],
        "requestBody": {
            "required": True,
            "content": {"multipart/form-data": {"schema": _form(["image", "scribbles"], strokes)}},
        },
        "responses": {
            "200": {
                "description": "The mask as a palette PNG, or classes as JSON, by the header Accept.",
                "content": {"application/json": {"schema": _ref("Completed")}, "image/png": _IMAGE},
            },
            **_errors(400, 401, 404, 406, 408, 413, 415, 422, 429, 503),
        },
    }
    name = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "enum": models}}
    infer = {
        "summary": "KServe V2: infer from a tensor 'image' (UINT8 [N, H, W, 3]) or 'file' (BYTES [1]).",
        "parameters": [name],
        "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("InferRequest")}}},
        "responses": {
            **_found("Outputs 'labels' and 'probabilities'."),
            **_errors(400, 401, 404, 408, 413, 415, 422, 429, 503),
        },
    }
    task = {
        "summary": "Hugging Face's image segmentation: [{label, score, mask}].",
        "parameters": [name],
        "requestBody": {"required": True, "content": {"image/*": _IMAGE}},
        "responses": {**_found("A mask for each class found."), **_errors(400, 401, 404, 408, 413, 415, 422, 429, 503)},
    }
    return {
        "/segment": {"post": segment},
        "/scribbles": {"post": complete},
        "/models": {"get": _get("The models, with classes, output strides and CRF.")},
        "/models/{model}/card": {"get": _get("What is known about a model.", [name], 404)},
        "/healthz": {"get": _get("Whether the process lives.")},
        "/readyz": {"get": _get("Whether it takes requests.", None, 503)},
        "/metrics": {"get": _get("Counts and times, for Prometheus.", kind="text/plain")},
        "/v2": {"get": _get("KServe V2: the server.")},
        "/v2/health/live": {"get": _get("KServe V2: whether the process lives.")},
        "/v2/health/ready": {"get": _get("KServe V2: whether it takes requests.", None, 503)},
        "/v2/models/{model}": {"get": _get("KServe V2: a model's tensors.", [name], 404)},
        "/v2/models/{model}/ready": {"get": _get("KServe V2: whether a model takes requests.", [name], 404)},
        "/v2/models/{model}/infer": {"post": infer},
        "/huggingface/{model}": {"post": task},
        "/health": {"get": _get("Label Studio: whether the process lives.")},
        "/setup": {"post": _tool("Label Studio: check a labelling interface.")},
        "/predict": {"post": _tool("Label Studio: annotate tasks.")},
    }


def _parameter(name: str, schema: Json) -> Json:
    described = dict(schema)
    description = described.pop("description", "")
    described.pop("default", None)
    if name == "include":  # an array in one value, separated by commas
        return {"name": name, "in": "query", "description": description, "schema": described, "explode": False}
    kinds = [kind for kind in described.pop("anyOf", ()) if kind.get("type") != "null"]
    return {"name": name, "in": "query", "description": description, "schema": {**described, **(kinds or [{}])[0]}}


def _form(files: list[str], options: Json) -> Json:
    fields = {name: _parameter(name, schema)["schema"] for name, schema in options.items()}
    return {"type": "object", "required": files, "properties": {**dict.fromkeys(files, _IMAGE["schema"]), **fields}}


def _get(summary: str, parameters: list[Json] | None = None, *errors: int, kind: str = "application/json") -> Json:
    responses = {**_found("As described.", kind), **_errors(401, *errors)}
    return {"summary": summary, "parameters": parameters or [], "responses": responses}


def _tool(summary: str) -> Json:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": content},
        "responses": {**_found("As described."), **_errors(400, 401, 404, 408, 413, 422, 429, 503)},
    }


def _found(description: str, kind: str = "application/json") -> Json:
    return {"200": {"description": description, "content": {kind: {}}}}


def _errors(*statuses: int) -> Json:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {str(status): {"description": _PROBLEMS[status], "content": content} for status in statuses}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _problem() -> Json:
    return {
        "type": "object",
        "description": "RFC 9457.",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string", "description": "What was found, what was expected, and what to do."},
        },
    }
