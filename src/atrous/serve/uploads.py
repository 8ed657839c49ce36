"""Reading the body of a request under limits: a raw image, or a form with one."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from atrous.errors import kind_of
from atrous.serve.problems import Problem
from atrous.serve.settings import MB, Limits

FIELDS = ("image", "file")
"""Names of a form's field with the image."""
RAW_TYPES = ("application/octet-stream", "application/x-www-form-urlencoded")
"""Content types of raw images beside ``image/…``; the second is what curl says of ``--data-binary``."""


@dataclass(frozen=True)
class Upload:
    """An image as it came.

    Args:
        content: the bytes of its file.
        options: the other fields of the form.
    """

    content: bytes
    options: dict[str, str] = field(default_factory=dict)


class GoneError(Exception):
    """The client has closed the connection: nobody waits for an answer."""


class Bodies:
    """The bodies that are in memory at the same time.

    Args:
        limits: of one and of all.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes, self._counting = 0, Lock()

    @contextmanager
    def held(self) -> Iterator[Share]:
        """A share of the memory for bodies, given back afterwards."""
        share = Share(self)
        try:
            yield share
        finally:
            with self._counting:
                self._bytes -= share.bytes

    def _take(self, count: int) -> None:
        with self._counting:
            if self._bytes + count > self._limits.bodies:
                raise Problem(429, "too many uploads at the same time: try again", retry_after=1)
            self._bytes += count

    async def read(self, request: Request, share: Share) -> bytes:
        """Read the body of a request.

        Raises:
            Problem: 413, too many bytes; 408, too slow; 429, too many bytes with those of other requests.
            GoneError: the client has gone.
        """
        limit, announced = self._limits.body, request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > limit:
            raise _too_large(f"{int(announced):,} bytes", limit)
        parts: list[bytes] = []
        try:
            async with asyncio.timeout(self._limits.reading):
                async for chunk in request.stream():
                    share.take(len(chunk))
                    if share.bytes > limit:
                        raise _too_large(f"more than {limit:,} bytes", limit)
                    parts.append(chunk)
        except TimeoutError:
            raise Problem(
                408, f"the request was not complete after {self._limits.reading:g} s: send it faster, or less"
            ) from None
        except ClientDisconnect:
            raise GoneError from None
        return b"".join(parts)


class Share:
    """The bytes of one request's body, or of an image that was fetched for it, that are in memory."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies, self.bytes = bodies, 0

    def take(self, count: int) -> None:
        """Take more of the memory for bodies."""
        self._bodies._take(count)
        self.bytes += count


def _too_large(found: str, limit: int) -> Problem:
    return Problem(413, f"a request of {found}, expected at most {limit / MB:g} MB: send a smaller image")


async def read_upload(request: Request, bodies: Bodies, share: Share) -> Upload:
    """Read the image of a request: its raw body, or a form's field ``image``.

    Raises:
        Problem: another content type, a form without an image, or whatever :meth:`Bodies.read` has to say.
        GoneError: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return await _from_form(request, await bodies.read(request, share))
    if kind and not kind.startswith("image/") and kind not in RAW_TYPES:
        raise Problem(
            415,
            f"the request's content type is {kind[:80]}, expected an image (image/jpeg, image/png, ..., or "
            "application/octet-stream) or a form (multipart/form-data) with a field 'image'",
        )
    return Upload(await bodies.read(request, share))


async def read_files(
    request: Request, bodies: Bodies, share: Share, names: tuple[str, ...]
) -> tuple[tuple[bytes, ...], dict[str, str]]:
    """Read a form with a file in each of some fields: the files in this order, and its other fields.

    Raises:
        Problem: another content type, other files, or whatever :meth:`Bodies.read` has to say.
        GoneError: the client has gone.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    fields = " and ".join(f"'{name}'" for name in names)
    if kind != "multipart/form-data":
        raise Problem(
            415, f"the request's content type is {kind[:80] or 'missing'}, expected a form (multipart/form-data) with "
            f"the files {fields}"
        )  # fmt: skip
    files, options = await _read_form(request, await bodies.read(request, share))
    if sorted(name for name, _ in files) != sorted(names):
        raise Problem(400, f"the form's files are {_listed(files)}; expected one in each of the fields {fields}")
    return tuple(dict(files)[name] for name in names), options


async def read_json(request: Request, bodies: Bodies, share: Share) -> dict[str, Any]:
    """Read a request whose body is a JSON object.

    Raises:
        Problem: 400, something else, or whatever :meth:`Bodies.read` has to say.
        GoneError: the client has gone.
    """
    return await asyncio.to_thread(parse_json, await bodies.read(request, share))


def parse_json(body: bytes) -> dict[str, Any]:
    """The JSON object of a body.

    Raises:
        Problem: 400, something else.
    """
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the request is not JSON ({error}): send a JSON object") from None
    if not isinstance(content, dict):
        raise Problem(400, f"the request's JSON is {kind_of(content)}, expected an object")
    return content


def decode_text(text: object, what: str) -> bytes:
    """The bytes of a string in base64, with or without ``data:image/…;base64,`` before it.

    Args:
        text: the string.
        what: it is, for errors.

    Raises:
        Problem: 400, something else.
    """
    if isinstance(text, str):
        head, comma, rest = text.partition(",")
        with suppress(ValueError):
            return base64.b64decode(rest if comma and head.startswith("data:") else text, validate=True)
    raise Problem(400, f"{what} is not base64: send the bytes of an image file in base64")


class _InMemory(MultiPartParser):
    """A parser of forms that writes nothing to a disk."""

    spool_max_size = 2**40

    def close(self) -> None:
        """Close the files of the form, also those whose end is missing."""
        for file in self._files_to_close_on_error:
            file.close()


async def _from_form(request: Request, body: bytes) -> Upload:
    files, options = await _read_form(request, body)
    if [name for name, _ in files] not in ([FIELDS[0]], [FIELDS[1]]):
        raise Problem(400, f"the form's files are {_listed(files)}; expected one, in the field 'image'")
    return Upload(files[0][1], options)


def _listed(files: list[tuple[str, bytes]]) -> str:
    return ", ".join(f"'{name[:40]}'" for name, _ in files) or "none"


async def _read_form(request: Request, body: bytes) -> tuple[list[tuple[str, bytes]], dict[str, str]]:
    """The files of a form with their fields, and its other fields.

    Raises:
        Problem: 400, something else.
    """

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = _InMemory(request.headers, stream(), max_files=2, max_fields=32)
    try:
        form = await parser.parse()
        files = [(name, await value.read()) for name, value in form.multi_items() if isinstance(value, UploadFile)]
        return files, {name: value for name, value in form.items() if isinstance(value, str)}
    except (MultiPartException, KeyError, ValueError) as error:
        reason = getattr(error, "message", "") or str(error)
        raise Problem(400, f"the form can't be read ({reason}): send one as a browser or curl -F does") from None
    finally:
        parser.close()
