"""Stands before every route, also those that do not exist: who may ask, how much, and in which form.

On loopback without a token two things keep a web page in the user's browser out: the Host header must name loopback
(DNS rebinding), and a body must be ``application/json`` (a foreign page may not send that without a preflight, which
nobody answers). With a token the token decides.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
from collections.abc import Callable, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from perennial.api.body import Reply
from perennial.asgi import is_no_request, read_body, replay
from perennial.errors import NotConfigured

PUBLIC = frozenset({"/healthz"})


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0"), is_loopback("::")
    (True, True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """NotConfigured when others could reach the data plane and nothing would ask them who they are."""
    if not is_loopback(host) and not token:
        raise NotConfigured(
            "PERENNIAL_DATA_PLANE_TOKEN",
            f"the data plane listens on {host}, so callers must show a token; or use 127.0.0.1",
        )
    if token is not None and len(token) < 16:
        raise NotConfigured(
            "PERENNIAL_DATA_PLANE_TOKEN", "a token has 16 characters at least; make one with `openssl rand -hex 24`"
        )


class Guard:
    """Pure ASGI. Refuses with 401, 403, 411 to 415; what passes has its whole body in memory, at most ``max_body``
    bytes.

    A flood is shed here, before a body is read or a route is looked up: 429 when ``full`` says that the path's work has a full line, or
    when ``reading`` bodies come in already. That costs a small part of taking a request, and bounds the memory of what comes in:
    ``reading`` times ``max_body``. What is read stands in one of the app's lines then, which are bounded too (``lanes.Lane``). The rest
    of a body that was not read is dropped as it comes, and the connection stays open.
    """

    def __init__(
        self, app: ASGIApp, *, token: str | None, max_body: int, full: Callable[[str], bool] = lambda _: False,
        shed: Callable[[str], None] = lambda _: None, reading: int = 128, body_seconds: float = 60.0,
    ) -> None:  # fmt: skip
        self._app, self._max_body, self._full, self._shed = app, max_body, full, shed
        self._token = token.encode() if token else None
        self._reading, self._most_reading, self._body_seconds = 0, reading, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if await is_no_request(self._app, scope, receive, send):
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        if scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        if self._reading >= self._most_reading or self._full(scope["path"]):
            self._shed(scope["path"])
            await _TOO_MANY(scope, receive, send)
            return
        self._reading += 1
        try:
            async with asyncio.timeout(self._body_seconds):
                body = await read_body(scope, receive, self._max_body)
        except TimeoutError:
            # a sender that dawdles must not keep the place of another
            await _error(408, f"the body did not come within {self._body_seconds:.0f} s", {"connection": "close"})(
                scope, receive, send
            )
            return
        finally:
            self._reading -= 1
        if body is None:
            await _error(413, f"the body is larger than {self._max_body} bytes; send it in parts")(scope, receive, send)
            return
        await self._app(scope, replay(body, receive), send)

    def _refusal(self, scope: Scope) -> Reply | None:
        headers = {key.lower(): value for key, value in scope["headers"]}
        if scope["path"] in PUBLIC and scope["method"] in {"GET", "HEAD"}:
            return None
        if self._token is not None:
            given = headers.get(b"authorization", b"")
            scheme, _, shown = given.partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(shown.strip(), self._token):
                return _error(401, "show the token: Authorization: Bearer ...", {"www-authenticate": "Bearer"})
        elif not is_loopback(_host(headers.get(b"host", b""))):
            return _error(403, "this address serves the machine itself; set PERENNIAL_DATA_PLANE_TOKEN to open it")
        if scope["method"] in {"POST", "PUT", "PATCH"} and not _is_json(headers.get(b"content-type", b"")):
            return _error(415, "send application/json")
        return None


def _error(status: int, text: str, headers: MutableMapping[str, str] | None = None) -> Reply:
    content: dict[str, Any] = {"error": text}
    return Reply(content, status_code=status, headers=dict(headers or {}))


# made once: a flood gets it some thousand times a second
_TOO_MANY = _error(429, "too many requests wait; come again in a second", {"retry-after": "1"})


def _host(header: bytes) -> str:
    text = header.decode("latin-1")
    if text.startswith("["):
        return text.partition("]")[0].strip("[")
    return text.partition(":")[0]


def _is_json(header: bytes) -> bool:
    return header.split(b";")[0].strip().lower() == b"application/json"
