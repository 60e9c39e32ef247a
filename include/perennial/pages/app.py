"""The app of the pages: routes from the pages' own declarations, behind the guard. Knows no Airflow; everything is handed in."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Scope

from perennial.errors import (
    AsideRefused,
    InvalidExample,
    NotConfigured,
    PerennialError,
    RegistryError,
    RolloutError,
    StoreUnavailable,
    UnknownAgent,
)
from perennial.pages import explain, fleet, quarantine, rollout, validation, version
from perennial.pages.guard import Guard, user_of
from perennial.pages.html import Html, el, join
from perennial.pages.identity import Identify, User
from perennial.pages.layout import frame, heading
from perennial.pages.page import Action, Asked, Page, Site
from perennial.pages.roles import Role, role_of

logger = logging.getLogger(__name__)

# one line per page, in the order of the navigation
PAGES: tuple[Page, ...] = (
    fleet.PAGE,
    version.PAGE,
    rollout.PAGE,
    validation.PAGE,
    quarantine.PAGE,
    explain.PAGE,
)

THREADS = 8  # pages that are made at the same time in one process of the api-server
_FORM = "application/x-www-form-urlencoded"
_STATIC = {
    "pages.css": "text/css; charset=utf-8", "pages.js": "text/javascript; charset=utf-8", "leaf.svg": "image/svg+xml",
    "leaf-dark.svg": "image/svg+xml", "live.js": "text/javascript; charset=utf-8",
    "waiting.css": "text/css; charset=utf-8",
}  # fmt: skip
_HERE = Path(__file__).resolve().parent / "static"

# the first that fits decides
_STATUS: tuple[tuple[type[Exception], int], ...] = (
    (UnknownAgent, 404), (InvalidExample, 422), (AsideRefused, 409), (StoreUnavailable, 503), (NotConfigured, 503), (RolloutError, 409),
    (RegistryError, 404), (PerennialError, 500),
)  # fmt: skip
_TITLES = {
    401: "Sign in first", 403: "Not allowed", 404: "Not found", 405: "Not possible here", 409: "Not now", 413: "Too large",
    415: "Not a form", 422: "Something is missing", 503: "Not available",
}  # fmt: skip


def pages_app(
    site: Callable[[], Site], *, identify: Identify, cookie: str = "_token",
    origins: Collection[str] = (), pages: tuple[Page, ...] = PAGES, now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:  # fmt: skip
    """The ASGI app of every page. Runs in Airflow's api-server, mounted by the plugin, or by itself in a test.

    ``site`` is asked when a page is, so that starting the api-server costs no connection; ``cookie`` names the cookie that
    carries Airflow's token; ``origins`` are further addresses of this site, for a proxy that changes the Host header.
    """
    app = FastAPI(title="Perennial pages", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    made = _Pages(site, pages, now)
    app.add_api_route("/healthz", _health, methods=["GET", "HEAD"], response_model=None)
    app.add_api_route("/static/{name}", _static, methods=["GET"], response_model=None)
    app.add_api_route("/", made.home, methods=["GET"], response_model=None)
    for page in pages:
        app.add_api_route(page.path, made.showing(page), methods=["GET"], response_model=None)
        for action in page.actions:
            app.add_api_route(action.path, made.acting(action), methods=["POST"], response_model=None)
    app.add_exception_handler(HTTPException, made.no_route)
    app.add_middleware(Guard, identify=identify, cookie=cookie, origins=origins, refusal=_refusal)
    return app


async def _health() -> Response:
    return PlainTextResponse("ok\n")


async def _static(name: str) -> Response:
    kind = _STATIC.get(name)
    if kind is None:
        raise HTTPException(404)
    return Response(_file(name), media_type=kind)


@cache
def _file(name: str) -> bytes:
    return (_HERE / name).read_bytes()


class _Pages:
    """The handlers. Pages are made in threads, since what they read blocks."""

    def __init__(self, site: Callable[[], Site], pages: tuple[Page, ...], now: Callable[[], datetime]) -> None:
        self._site, self._pages, self._now = site, pages, now
        self._limiter: CapacityLimiter | None = None

    async def home(self, request: Request) -> Response:
        """The first page of the navigation."""
        return RedirectResponse(f"{request.scope.get('root_path', '')}{self._pages[0].path}", status_code=303)

    def showing(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        """The handler of a page."""

        async def shown(request: Request) -> Response:
            return await self._run(request, lambda: self._show(page, request))

        return shown

    def acting(self, action: Action) -> Callable[[Request], Awaitable[Response]]:
        """The handler of an action."""

        async def acted(request: Request) -> Response:
            if request.headers.get("content-type", "").split(";")[0].strip().lower() != _FORM:
                return self._failure(request, 415, "send the form of the page")
            raw = await request.body()
            return await self._run(request, lambda: self._act(action, request, raw))

        return acted

    async def no_route(self, request: Request, error: Exception) -> Response:
        """What does not exist, or not with this method."""
        status = error.status_code if isinstance(error, HTTPException) else 500
        return self._failure(
            request, status, "There is no such page." if status == 404 else "The request cannot be answered."
        )

    async def _run(self, request: Request, work: Callable[[], Response]) -> Response:
        if self._limiter is None:
            self._limiter = CapacityLimiter(THREADS)
        try:
            return await to_thread.run_sync(work, limiter=self._limiter)
        except PerennialError as error:
            status = next(status for kind, status in _STATUS if isinstance(error, kind))
            return self._failure(request, status, str(error))
        except Exception:
            logger.exception("the page %s could not be made", request.url.path)
            return self._failure(request, 500, "The page could not be made; the log of the api-server says why.")

    def _show(self, page: Page, request: Request) -> Response:
        site = self._site()
        asked = self._asked(request, site)
        if not asked.may(page.role):
            return self._failure(request, 403, _needs(page.role))
        main = page.show(site, asked)
        notice = page.notices.get(asked.query.get("said", ""), "")
        return _html(frame(asked, title=page.title, main=main, pages=self._pages, here=page.path, notice=notice))

    def _act(self, action: Action, request: Request, raw: bytes) -> Response:
        site = self._site()
        asked = self._asked(request, site, _form(raw))
        if not asked.may(action.role):
            return self._failure(request, 403, _needs(action.role))
        return RedirectResponse(action.run(site, asked), status_code=303)

    def _asked(self, request: Request, site: Site | None, form: dict[str, str] | None = None) -> Asked:
        user: User = user_of(request.scope)
        grants = site.ports.settings.pages_grants if site is not None else {}
        return Asked(
            user=user, role=role_of(user.id, user.standing, grants), base=request.scope.get("root_path", ""), now=self._now(),
            query=dict(request.query_params), form=form or {},
        )  # fmt: skip

    def _failure(self, request: Request, status: int, told: str) -> Response:
        asked = self._asked(request, None)
        return _html(_error_page(asked, status, told, self._pages), status)


def _needs(role: Role) -> str:
    return (
        f"This needs the role {role.word}. Ask an administrator for a grant in PERENNIAL_PAGES_GRANTS, or in Airflow."
    )


def _form(raw: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(raw.decode("utf-8"), keep_blank_values=True, strict_parsing=bool(raw), max_num_fields=50))
    except ValueError as error:
        raise InvalidExample("form", "cannot be read", "send the form of the page") from error


def _html(body: bytes, status: int = 200) -> Response:
    return Response(body, status_code=status, media_type="text/html; charset=utf-8")


def _error_page(asked: Asked, status: int, told: str, pages: tuple[Page, ...]) -> bytes:
    title = _TITLES.get(status, "Something went wrong")
    main = join(heading(title, told), el("p", el("code", str(status))))
    return frame(asked, title=title, main=main, pages=pages)


def _refusal(scope: Scope, status: int, told: str) -> ASGIApp:
    """What the guard answers: a page for a browser that asked for one, JSON for everything else."""
    accepts = b"".join(value for key, value in scope["headers"] if key.lower() == b"accept")
    headers: dict[str, Any] = {"www-authenticate": "Bearer"} if status == 401 else {}
    if b"text/html" not in accepts:
        return JSONResponse({"error": told}, status_code=status, headers=headers)
    nobody = Asked(
        user=User(id="", name="nobody"), role=Role.NOBODY, base=scope.get("root_path", ""), now=datetime.now(UTC)
    )
    main: Html = join(
        heading(_TITLES.get(status, "Refused"), told),
        el("p", el("a", "To Airflow", href=nobody.airflow("/"))) if status == 401 else None,
    )
    page = frame(nobody, title=_TITLES.get(status, "Refused"), main=main)
    return Response(page, status_code=status, headers=headers, media_type="text/html; charset=utf-8")
