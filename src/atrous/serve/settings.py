"""What a server is started with, and what it accepts."""

from __future__ import annotations

from dataclasses import dataclass, field

from atrous.errors import InputError

MB = 2**20
MOST_IMAGES = 64
"""Of a request, where it may have several."""


@dataclass(frozen=True)
class Limits:
    """What a server accepts, and how long it waits; for each of its processes.

    Args:
        body: bytes of a request.
        bodies: bytes of all requests that are being read or wait.
        reading: seconds that a client may take to send a request's head, and again its body.
        waiting: images that wait to be segmented; a request beyond them is answered with 429.
        seconds: from a request's arrival to its answer; one that is not begun by then is dropped.
        window: seconds that an image waits for others of its size, where several run faster together.
    """

    body: int = 64 * MB
    bodies: int = 256 * MB
    reading: float = 30.0
    waiting: int = 16
    seconds: float = 60.0
    window: float = 0.005


@dataclass(frozen=True)
class ServeSettings:
    """How a server runs.

    Args:
        host: the address that it listens on.
        port: of that address; 0 for any that is free.
        workers: processes, which share the weights.
        token: that requests must carry (``Authorization: Bearer …``); none by default.
        origins: other web sites whose pages may call it (CORS), as ``https://example.org``.
        label_studio: the address of a Label Studio whose images are fetched, as ``http://localhost:8080``.
        label_studio_token: an access token of that Label Studio.
        limits: what it accepts.

    Raises:
        InputError: a token that no request can carry.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    token: str | None = None
    origins: tuple[str, ...] = ()
    label_studio: str | None = None
    label_studio_token: str | None = None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.token is None:
            return
        object.__setattr__(self, "token", self.token.strip())  # a file's last newline
        if not (self.token and self.token.isascii() and self.token.isprintable()):
            raise InputError(
                "the token is empty, or has characters other than printable ASCII, which headers can't carry: choose "
                "one of letters and digits (--token, ATROUS_TOKEN)"
            )
