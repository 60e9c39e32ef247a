"""What a record says beside its text, before anybody looked at it: kept where it is plain, else a pseudonym or nothing.

Sender, tag, address, an unknown task, labels and answers stand in ``examples`` from the first moment, where the app role reads them;
the text itself waits with the originals for admission. So whatever looks like a person's e-mail, number or address is never written
there. The same rules as the trigger of migration 0020; pure, and used by the twin in memory.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import replace

from perennial.domain.example import Example
from perennial.domain.words import JSON

_AT = re.compile(r"@|%40", re.IGNORECASE)
_ADDRESS = re.compile(r"(?<![0-9])[0-9]{1,3}([.][0-9]{1,3}){3}(?![0-9])|([0-9a-fA-F]{0,4}:){3,}[0-9a-fA-F]{0,4}")
_NUMBER = re.compile(r"([0-9][ ().-]{0,2}){8,}[0-9]")
# addresses of articles have numbers too
_LONG_NUMBER = re.compile(r"([0-9][ ().-]{0,2}){12,}[0-9]|[0-9]{3}-[0-9]{2}-[0-9]{4}|%")
_BLANK = re.compile(r"\s")
_MACHINE = re.compile(r"^(inbox:[0-9a-f]{12}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})$")
_MOST_WORDS = 4  # of an answer that is kept: more is a sentence, and no label
_QUERY = re.compile(r"[?#].*$", re.DOTALL)


def is_plain(text: str) -> bool:
    """Whether a short text holds no e-mail address, no IP address and no number of nine digits or more.

    >>> is_plain("sci/tech"), is_plain("jane@corp.com"), is_plain("4111 1111 1111 1111"), is_plain("203.0.113.7")
    (True, False, False, False)
    """
    return not (_AT.search(text) or _ADDRESS.search(text) or _NUMBER.search(text))


def pseudonym(text: str, salt: bytes) -> str:
    """The same name for the same text in one deployment, by HMAC-SHA256 (RFC 2104); nobody without the salt can test a guess."""
    return hmac.new(salt, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]


def plain_sender(source_id: str, salt: bytes) -> str:
    """The sender's id, or ``id-`` and a pseudonym when it may be a person's address, number or name."""
    if _MACHINE.match(source_id) or (is_plain(source_id) and not _BLANK.search(source_id)):
        return source_id
    return f"id-{pseudonym(source_id, salt)}"


def plain_task(task: str, salt: bytes) -> str:
    """The name of a task that the fleet does not know, or ``task-`` and a pseudonym when it is no name at all."""
    named = not _BLANK.search(task) or task == task.lower()  # several words with capitals may be a person
    return task if is_plain(task) and named else f"task-{pseudonym(task, salt)}"


def plain_url(url: str) -> str:
    """The address, without its query where that may hold personal data, or nothing.

    >>> plain_url("https://news.example/a-1?mail=jane@corp.com"), plain_url("https://jane:pw@host.example/")
    ('https://news.example/a-1', '')
    """
    for shown in (url, _QUERY.sub("", url)):
        if not (_AT.search(shown) or _ADDRESS.search(shown) or _LONG_NUMBER.search(shown) or _BLANK.search(shown)):
            return shown
    return ""


def plain_answer(value: JSON) -> JSON:
    """A label or a model's answer, or None when it is a string or a number that may be personal data."""
    if isinstance(value, str):
        return value if is_plain(value) and len(value.split()) <= _MOST_WORDS else None
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 1e8:
        return None
    return value


def plain_example(example: Example, salt: bytes) -> Example:
    """The example with its metadata as it may stand beside a text that nobody has looked at; text and label stay as they are."""
    return replace(
        example, source_id=plain_sender(example.source_id, salt), source_url=plain_url(example.source_url),
        tag=example.tag if is_plain(example.tag) and not _BLANK.search(example.tag) else "other",
        predicted_output=plain_answer(example.predicted_output),
    )  # fmt: skip
