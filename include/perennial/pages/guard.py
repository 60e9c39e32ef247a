"""Stands before every route of the pages, also those that do not exist, mounts, raw routes and websockets.

Airflow mounts a plugin's app without asking who calls it, so this asks itself. What a browser may do with an answer is
said on every answer, also on refusals.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

from starlette._utils import get_route_path
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perennial.asgi import is_no_request, read_body, replay
from perennial.errors import AccessRefused
from perennial.pages.identity import Identify

PUBLIC = frozenset({"/healthz"})
USER = "perennial_user"  # where the user stands in the scope's state
MAX_BODY = 64 * 1024  # bytes; the pages' forms are small
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'self'; "
    "base-uri 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    # not no-referrer: with it browsers send "Origin: null" with our own forms, and the guard would refuse them
    (b"referrer-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
_OURS = frozenset(name for name, _ in HEADERS)

Refusal = Callable[[Scope, int, str], ASGIApp]  # an app that answers a refusal


class Guard:
    """Pure ASGI. Answers 401, 403, 413 and 503 itself; what passes carries its user in ``scope["state"]``.

    A bearer token wins over the cookie, and a bad one never falls back to it. A cookie comes along without the person's will,
    so with it an unsafe method must name this site as its origin.
    """

    def __init__(
        self, app: ASGIApp, *, identify: Identify, cookie: str, origins: Collection[str] = (), refusal: Refusal,
        max_body: int = MAX_BODY,
    ) -> None:  # fmt: skip
        self._app, self._identify, self._cookie, self._refusal = app, identify, cookie, refusal
        self._origins, self._max_body = frozenset(origins), max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if await is_no_request(self._app, scope, receive, send):
            return
        await self._http(scope, receive, with_headers(send))

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if get_route_path(scope) in PUBLIC and scope["method"] in {"GET", "HEAD"}:
            await self._app(scope, receive, send)
            return
        try:
            bearer, cookie = _bearer(scope), None
            if bearer is None:
                cookie = _cookie(scope, self._cookie)
            user = await self._identify(bearer if bearer is not None else cookie)
            if bearer is None and scope["method"] not in _SAFE:
                self._check_origin(scope)
        except AccessRefused as refused:
            await self._refusal(scope, refused.status, str(refused))(scope, receive, send)
            return
        body = await read_body(scope, receive, self._max_body)
        if body is None:
            told = f"the body is larger than {self._max_body} bytes"
            await self._refusal(scope, 413, told)(scope, receive, send)
            return
        scope.setdefault("state", {})[USER] = user
        await self._app(scope, replay(body, receive), send)

    def _check_origin(self, scope: Scope) -> None:
        """AccessRefused unless the browser says that the form came from this site."""
        origin = _header(scope, b"origin")
        own = f"{scope.get('scheme', 'http')}://{_header(scope, b'host')}"
        site = _header(scope, b"sec-fetch-site")
        if (origin != own and origin not in self._origins) or site not in {"", "same-origin"}:
            raise AccessRefused(
                403, "this form did not come from this site; open the page in Airflow and send it from there"
            )


def with_headers(send: Send) -> Send:
    """A ``send`` that puts the security headers on every answer, over whatever the app said."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [(key, value) for key, value in message.get("headers", ()) if key.lower() not in _OURS]
            message = {**message, "headers": [*kept, *HEADERS]}
        await send(message)

    return sent


def _bearer(scope: Scope) -> str | None:
    """The token after ``Authorization: Bearer``; an empty one is still one, so it cannot fall back to the cookie."""
    scheme, _, token = _header(scope, b"authorization").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _cookie(scope: Scope, name: str) -> str | None:
    return cookie_parser("; ".join(_headers(scope, b"cookie"))).get(name)


def _headers(scope: Scope, name: bytes) -> Iterable[str]:
    return (value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name)


def _header(scope: Scope, name: bytes) -> str:
    return next(iter(_headers(scope, name)), "")


def user_of(scope: Scope) -> Any:
    """The user that the guard let in."""
    return scope["state"][USER]
