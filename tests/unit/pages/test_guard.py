"""Who may ask: nobody anonymous but for the health check, whatever the path; no form of another site."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from perennial.pages.guard import HEADERS, MAX_BODY
from perennial.pages.identity import MemoryIdentity
from perennial.pages.roles import Role
from tests.pages_world import ORIGIN, TOKENS, make_pages_world, people

pytestmark = pytest.mark.req("J50")
FORM = {"content-type": "application/x-www-form-urlencoded"}


def _app(**more: object) -> FastAPI:
    """The real app with what a careless change could add beside its routes."""
    app = make_pages_world().app(**more)

    async def raw(request: object) -> PlainTextResponse:
        return PlainTextResponse("open")

    app.router.routes.append(Route("/raw", raw, methods=["GET", "POST"]))
    app.router.routes.append(Mount("/sub", Starlette(routes=[Route("/y", raw)])))
    return app


def _routes(app: FastAPI) -> list[tuple[str, str]]:
    """Every (method, path) of the live route table, sub-mounts included, beside paths that nobody declared."""
    found: list[tuple[str, str]] = []
    for route in app.routes:
        if isinstance(route, Mount):
            found += [("GET", f"{route.path}{inner.path}") for inner in route.routes if isinstance(inner, Route)]
        elif isinstance(route, Route | APIRoute):
            found += [(method, route.path.replace("{name}", "pages.css")) for method in sorted(route.methods or ())]
    known = {path for _, path in found}
    guesses = (
        "/docs",
        "/redoc",
        "/openapi.json",
        "/nope",
        "/fleet/",
        "/healthz/",
        "/healthz/x",
        "//healthz",
        "/HEALTHZ",
    )
    return found + [(method, path) for path in guesses if path not in known for method in ("GET", "POST")]


def test_the_route_table_is_closed() -> None:
    app = _app()
    with TestClient(app) as client:
        routes = _routes(app)
        assert len(routes) > 20
        for method, path in routes:
            answer = client.request(method, path)
            assert answer.status_code == (200 if path == "/healthz" else 401), (method, path)
        assert client.post("/healthz").status_code == 401


def test_every_unsafe_route_refuses_a_form_of_another_site() -> None:
    app = _app()
    unsafe = [path for method, path in _routes(app) if method not in {"GET", "HEAD", "OPTIONS"}]
    assert {"/fleet/pause", "/fleet/resume"} <= set(unsafe)
    with TestClient(app, cookies={"_token": TOKENS[Role.OPERATOR]}) as client:
        for path in unsafe:
            for headers in (
                {}, {"origin": "https://evil.example"}, {"origin": "null"}, {"origin": f"{ORIGIN}.evil.example"},
                {"origin": ORIGIN, "sec-fetch-site": "cross-site"}, {"origin": "https://testserver"},
                {"referer": f"{ORIGIN}/fleet"},
            ):  # fmt: skip
                assert client.post(path, headers={**FORM, **headers}).status_code == 403, (path, headers)


def test_a_bearer_needs_no_origin_and_never_falls_back_to_the_cookie() -> None:
    with TestClient(_app(), follow_redirects=False) as client:
        good = {"authorization": f"Bearer {TOKENS[Role.OPERATOR]}"}
        assert client.get("/fleet", headers=good).status_code == 200
        asked = client.post("/fleet/pause", headers={**good, **FORM}, content="agent=scout&reason=why")
        assert asked.status_code == 303
        client.cookies.set("_token", TOKENS[Role.OPERATOR])
        assert client.get("/fleet").status_code == 200
        for bad in ("Bearer wrong", "Bearer ", "bearer"):
            assert client.get("/fleet", headers={"authorization": bad}).status_code in {401, 403}, bad


def test_no_page_while_everybody_is_an_administrator() -> None:
    closed = MemoryIdentity({}, closed="simple_auth_manager_all_admins is on")
    with TestClient(_app(identify=closed)) as client:
        for path in ("/fleet", "/nope", "/raw", "/sub/y"):
            assert client.get(path, headers={"authorization": f"Bearer {TOKENS[Role.OPERATOR]}"}).status_code == 503
        assert client.get("/healthz").status_code == 200


def test_bodies_are_counted() -> None:
    with TestClient(_app(), headers={"authorization": f"Bearer {TOKENS[Role.OPERATOR]}"}) as client:
        assert client.post("/fleet/pause", headers=FORM, content=b"x" * (MAX_BODY + 1)).status_code == 413
        pieces = (b"x" * 1024 for _ in range(MAX_BODY // 1024 + 1))
        assert client.post("/fleet/pause", headers=FORM, content=pieces).status_code == 413
        assert client.post("/raw", content=b"x" * (MAX_BODY + 1)).status_code == 413


def test_websockets_are_closed() -> None:
    with (
        TestClient(_app(), cookies={"_token": TOKENS[Role.OPERATOR]}) as client,
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("/fleet"),
    ):
        pass
    assert closed.value.code == 1008


def test_every_answer_carries_the_strict_headers() -> None:
    app = _app()
    with TestClient(app) as anonymous, TestClient(app, cookies={"_token": TOKENS[Role.OPERATOR]}) as known:
        answers = [client.request(method, path) for client in (anonymous, known) for method, path in _routes(app)]
        answers.append(known.post("/fleet/pause", headers={**FORM, "origin": ORIGIN}, content=b"x" * (MAX_BODY + 1)))
    for answer in answers:
        for name, value in HEADERS:
            assert answer.headers.get_list(name.decode()) == [value.decode()], answer.url


def test_under_the_prefix_of_airflow_it_is_just_as_closed() -> None:
    outer = FastAPI()
    outer.mount("/perennial", _app())
    with TestClient(outer, follow_redirects=False) as client:
        assert client.get("/perennial/healthz").status_code == 200
        assert client.get("/perennial/fleet").status_code == 401
        client.cookies.set("_token", TOKENS[Role.OPERATOR])
        page = client.get("/perennial/fleet")
        assert page.status_code == 200
        assert 'href="/perennial/static/pages.css"' in page.text
        headers = {**FORM, "origin": ORIGIN}
        done = client.post("/perennial/fleet/pause", headers=headers, content="agent=scout&reason=why")
        assert (done.status_code, done.headers["location"]) == (303, "/perennial/fleet?said=paused")


def test_a_proxy_that_changes_the_host_is_named() -> None:
    origin = {"origin": "https://airflow.example.org"}
    for origins, status in (((), 403), (("https://airflow.example.org",), 303)):
        app = make_pages_world().app(origins=origins)
        with TestClient(app, cookies={"_token": TOKENS[Role.OPERATOR]}, follow_redirects=False) as client:
            sent = client.post("/fleet/pause", headers={**FORM, **origin}, content="agent=scout&reason=why")
            assert sent.status_code == status


def test_a_browser_gets_a_page_and_a_program_gets_json() -> None:
    with TestClient(make_pages_world().app(identify=people())) as client:
        assert client.get("/fleet").json() == {"error": "sign in to Airflow first"}
        page = client.get("/fleet", headers={"accept": "text/html,*/*"})
        assert page.headers["content-type"].startswith("text/html")
        assert "To Airflow" in page.text
