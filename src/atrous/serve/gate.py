"""What every request passes: its id, the token, other sites' pages, the end of the server, one line of the log."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import re
import secrets
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from atrous.serve.metrics import Metrics
from atrous.serve.problems import Problem, answer
from atrous.serve.settings import ServeSettings

log = logging.getLogger("atrous.serve")
OPEN = (
    "/",
    "/healthz",
    "/readyz",
    "/health",
    "/docs",
    "/scribble",
    "/openapi.json",
    "/v2/health/live",
    "/v2/health/ready",
    "/page/",
)
"""Paths that need no token; the last one with all below it."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ID = re.compile(r"[\w.-]{1,64}", re.ASCII)
_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'none'"
)


class Gate:
    """The outermost layer of the application.

    Args:
        app: behind it.
        settings: of the server.
        metrics: that are kept.

    Attributes:
        closing: whether the server ends: what is under way is finished, and new requests are answered with 503.
        under_way: requests that have not been answered.
    """

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self.app, self._settings, self._metrics = app, settings, metrics
        self.closing = False
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, headers = time.monotonic(), Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _ID.fullmatch(given) else secrets.token_hex(8)
        status = 499  # nobody waits for the answer

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), request_id)
            await send(message)

        scope["arrived"] = begin
        self.under_way += 1
        try:
            if problem := self._refusal(scope, headers):
                await answer(problem)(scope, receive, send_on)
            else:
                await self.app(scope, receive, send_on)
        except Exception:  # which has been answered with 500
            log.exception("request %s failed", request_id)
        finally:
            self.under_way -= 1
            self._note(scope, request_id, status, time.monotonic() - begin)

    def _refusal(self, scope: Scope, headers: Headers) -> Problem | None:
        path: str = scope["path"]
        if self.closing and path not in ("/healthz", "/metrics"):
            return Problem(503, "the server is stopping: send the request to another one", retry_after=5)
        origin = headers.get("origin")
        if origin and scope["method"] not in ("GET", "HEAD", "OPTIONS") and not self._knows(origin, headers):
            return Problem(403, "pages of other web sites may not call this server: start it with --allow-origin")
        is_open = path in OPEN or path.startswith(OPEN[-1]) or scope["method"] == "OPTIONS"
        if self._settings.token and not is_open and not _carries(headers, self._settings.token):
            return Problem(401, "this server asks for a token: send the header 'Authorization: Bearer TOKEN'")
        return None

    def _knows(self, origin: str, headers: Headers) -> bool:
        """Whether a page is a listed site's, or the server's own. A site can point its name at this machine (DNS
        rebinding): a server that listens to this machine alone is not called by other names.
        """
        if origin in self._settings.origins:
            return True
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        local = self._settings.host not in _LOOPBACK or parts.hostname in _LOOPBACK
        return local and parts.netloc == headers.get("host")

    def _add_headers(self, headers: MutableHeaders, request_id: str) -> None:
        headers["X-Request-Id"] = request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers.setdefault("Cache-Control", "no-store")
        if headers.get("content-type", "").startswith("text/html"):
            headers["Content-Security-Policy"] = _POLICY
        if self.closing:
            headers["Connection"] = "close"

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "none"
        self._metrics.answered(route, status, seconds)
        facts = {"request": request_id, "method": scope["method"], "route": route, "status": status}
        log.info("request", extra={"facts": {**facts, "ms": round(1000 * seconds, 1), **scope.get("facts", {})}})


def _carries(headers: Headers, token: str) -> bool:
    """Whether a request carries the token, compared in constant time: as a bearer, or as the password of basic
    authentication, which is what Label Studio and address bars can send.
    """
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except ValueError:
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.strip().encode(), token.encode())


class JsonLines(logging.Formatter):
    """A log of one JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            facts["error"] = self.formatException(record.exc_info)
        return json.dumps(facts, default=str)


def write_log() -> None:
    """Write the log of the server, and uvicorn's warnings, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name, level in (("atrous.serve", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
