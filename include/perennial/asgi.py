"""Bodies of requests, counted as they come, and what is no request; what the guards of the data plane and of the pages share."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send


async def is_no_request(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> bool:
    """Whether this was no HTTP request, and is dealt with: start and end of the process go to ``app``, a websocket is closed.

    1008 is the code for a policy that forbids it (RFC 6455, 7.4.1).
    """
    if scope["type"] == "http":
        return False
    if scope["type"] == "lifespan":
        await app(scope, receive, send)
    else:
        await receive()
        await send({"type": "websocket.close", "code": 1008})
    return True


async def read_body(scope: Scope, receive: Receive, most: int) -> bytes | None:
    """The whole body of at most ``most`` bytes, or None when it is larger. A declared length is no proof, so bytes count."""
    declared = next((value for key, value in scope["headers"] if key.lower() == b"content-length"), b"")
    if declared.isdigit() and int(declared[:20]) > most:
        return None
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)  # the caller is gone; whatever answers will notice
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            return None
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """A ``receive`` that hands out a body that was read already, then whatever comes after it."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
