"""Digests that decide what counts as the same input, and which inputs are kept for the holdout."""

from __future__ import annotations

import hashlib
import re

_SPACE = re.compile(r"[ \t\n\r\x0b\f]+")


def plain(text: str) -> str:
    r"""The text with runs of ASCII white space made one blank and ASCII letters lowered.

    ASCII only, so that Python and every PostgreSQL, whatever its locale, agree to the byte.

    >>> plain("  Shares\n\tROSE at Zürich ")
    'shares rose at zürich'
    """
    return _SPACE.sub(" ", text).strip(" ").encode().lower().decode()


def plain_digest(text: str) -> bytes:
    """sha256 of the plain text, as the database's function ``perennial.plain_digest`` computes it.

    >>> plain_digest("A  b") == plain_digest("a b")
    True
    """
    # bytes.split() and bytes.lower() know ASCII alone and cost a tenth of the pattern above
    return hashlib.sha256(b" ".join(text.encode().split()).lower()).digest()


def text_digest(text: str) -> bytes:
    """Half a sha256 of the exact text, as the database's function ``perennial.text_digest`` computes it.

    >>> text_digest("A  b") == text_digest("a b"), len(text_digest(""))
    (False, 16)
    """
    return hashlib.sha256(text.encode()).digest()[:16]


def input_digest(agent: str, task: str, plain_sha: bytes) -> bytes:
    """Digest of agent, task and normalised input: equal for inputs that a model would treat alike."""
    return hashlib.sha256(f"{agent}\x1f{task}\x1f".encode() + plain_sha).digest()


def share(digest: bytes) -> float:
    """Where a digest stands between 0 and 1; below the agent's holdout share it is kept from training.

    >>> share(bytes([128, 0, 0, 0]))
    0.5
    """
    return int.from_bytes(digest[:4], "big") / 2**32
