"""From the bytes of a request to plain values, and back: what JSON does not know is refused, never echoed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from perennial.domain.words import JSON
from perennial.errors import InvalidExample

MAX_NAME = 128
MAX_KEY = 512


def parse(raw: bytes) -> JSON:
    """The JSON value of a body. InvalidExample (field ``body``) for anything else, NaN and 1e400 among it.

    >>> parse(b'{"a": 1}')
    {'a': 1}
    """
    try:
        return json.loads(raw.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise InvalidExample("body", "is not UTF-8", "send JSON in UTF-8") from error
    except RecursionError as error:
        raise InvalidExample("body", "is nested too deeply", "flatten it") from error
    except json.JSONDecodeError as error:
        problem = f"is not JSON (line {error.lineno}, column {error.colno})"
        raise InvalidExample("body", problem, "send one JSON value") from error
    except ValueError as error:  # a whole number of more digits than Python reads
        raise InvalidExample("body", "holds a number that is too long", "send it as a string") from error


def _refuse(name: str) -> float:
    raise InvalidExample("body", f"holds {name}, which JSON does not know", "send null when it is not known")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise InvalidExample("body", "holds a number beyond all bounds", "send null when it is not known")
    return number


def record(value: JSON, field: str = "body") -> Mapping[str, Any]:
    """The value as an object."""
    if not isinstance(value, dict):
        raise InvalidExample(field, "is not an object", "send {...}")
    return value


def records(value: JSON, inside: str, *, most: int) -> tuple[list[JSON], bool]:
    """One record, a list of them, or {inside: [...]}; and whether it was one alone."""
    if isinstance(value, dict) and isinstance(value.get(inside), list):
        value = value[inside]
    if isinstance(value, dict):
        return [value], True
    if not isinstance(value, list) or not value:
        raise InvalidExample("body", "is neither an object nor a list of some", "send {...} or [{...}, ...]")
    if len(value) > most:
        raise InvalidExample("body", f"holds {len(value)} records, more than {most}", "send them in parts")
    return value, False


def name(body: Mapping[str, Any], field: str) -> str:
    """A name that must be there and can be stored."""
    value = body.get(field)
    if value is None:
        raise InvalidExample(field, "is missing", f"send {field}")
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_NAME or "\0" in value or not _whole(value):
        raise InvalidExample(field, "is not a name", f"send a string of at most {MAX_NAME} characters")
    return value


def note(body: Mapping[str, Any], field: str, default: str) -> str:
    """A short text that may be left out and can be stored."""
    value = body.get(field)
    if value is None:
        return default
    if not isinstance(value, str) or len(value) > 2000 or "\0" in value or not _whole(value):
        raise InvalidExample(field, "is not a short text", "send a string of at most 2000 characters")
    return value


def key_of(body: Mapping[str, Any]) -> str | None:
    """The key that decides the arm; whole numbers are read as their digits."""
    value = body.get("key")
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > MAX_KEY:
        raise InvalidExample("key", "is not a key", f"send a string of at most {MAX_KEY} characters")
    return value


def inputs_of(body: Mapping[str, Any], *, most: int) -> Sequence[str]:
    """The texts to answer; each is checked by the gateway, which knows the task."""
    value = body.get("inputs")
    if not isinstance(value, list) or not value:
        raise InvalidExample("inputs", "is not a list of texts", 'send {"inputs": ["..."]}')
    if len(value) > most:
        raise InvalidExample("inputs", f"holds {len(value)} texts, more than {most}", "send them in parts")
    return value


class Reply(Response):
    """JSON in ASCII, so that no half surrogate of a name can break it; never NaN."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def _whole(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)
