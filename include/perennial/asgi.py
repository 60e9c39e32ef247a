"""Bodies of requests, counted as they come; what the guards of the data plane and of the pages share."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope


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
