"""Errors as answers: RFC 9457 problem details, in the words that the command line prints."""

from __future__ import annotations

import math
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse, Response

from atrous.data.files.images import ImageError
from atrous.data.files.limits import DecodeLimitError
from atrous.errors import AtrousError, InputError


class Problem(InputError):  # noqa: N818 - RFC 9457's word
    """An error with its HTTP status.

    Args:
        status: 400 to 599.
        detail: what was found, what was expected, and what to do.
        retry_after: seconds after which the request may succeed.
    """

    def __init__(self, status: int, detail: str, *, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after = retry_after


def problem_of(error: Exception) -> Problem:
    """The problem that an error is for the client: 413 for too large, 415 for not an image, else 422."""
    if isinstance(error, Problem):
        return error
    if isinstance(error.__cause__, DecodeLimitError):
        return Problem(413, str(error))
    if isinstance(error, ImageError) and ("expected an image" in str(error) or "an empty file" in str(error)):
        return Problem(415, str(error))
    if isinstance(error, AtrousError):
        return Problem(422, str(error))
    if isinstance(error, MemoryError):
        return Problem(413, "not enough memory for the whole image; shrink it, or cut it into tiles (tile=1025)")
    return Problem(500, "a fault of the server, which its log describes; please report it")


def answer(problem: Problem, *, plain_error: bool = False) -> Response:
    """The problem as a response.

    Args:
        problem: to describe.
        plain_error: add the member ``error``, which clients of KServe and Hugging Face read.
    """
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": str(problem),
    }
    if plain_error:
        content["error"] = str(problem)
    headers = {}
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(content, problem.status, headers, "application/problem+json")
