"""Named SQL: each room keeps its statements in ``.sql`` files beside its code, as ``-- name: claim`` blocks."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

_NAME = re.compile(r"^-- name: (\w+)\s*$", re.MULTILINE)


@cache
def load(package: str, file: str = "queries.sql") -> dict[str, str]:
    """The statements of one file by name; the text between two ``-- name:`` lines, comments included.

    >>> sorted(load("perennial.storage"))[0]
    'applied'
    """
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    parts = _NAME.split(text)
    return {name: body.strip() for name, body in zip(parts[1::2], parts[2::2], strict=True)}
