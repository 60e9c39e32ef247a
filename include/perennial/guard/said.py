"""What a person typed that is no example: reasons, answers that were true. Kept readable, without personal data.

An example is redacted with stand-ins that keep it usable for training. A reason is read by people, who must see that something
was taken out, so here the kind of the find stands in its place.
"""

from __future__ import annotations

import logging
import re
from functools import lru_cache

from perennial.domain.words import JSON
from perennial.errors import GuardError, GuardUnavailable
from perennial.guard.recognisers import Recogniser
from perennial.guard.redactor import redactor_for
from perennial.guard.spans import Span

logger = logging.getLogger(__name__)

REMOVED = "[removed]"
_STRUCTURED = re.compile(r"[@\d]|://|:[A-Fa-f]{0,4}:")  # as the redactor's gate: no identifier is without one of these
_CRUDE = re.compile(r"\S*[@]\S*|\S*://\S*|\+?\d[\d ().:/-]{3,}\w*")  # where no detector is installed: rather too much
_ROUNDS = 8


def said(text: str) -> str:
    """The text with ``[KIND]`` in the place of each find; saying it again changes nothing.

    Runs wherever a person's reason comes in: command line, pages, data plane, forms of Airflow. Where the detectors are not
    installed, whatever looks like a number, an address or an e-mail goes, and names stay.

    >>> said("Ms Jane Doe of the sports desk complained")
    '[PERSON] of the sports desk complained'
    """
    for _ in range(_ROUNDS):
        try:
            spans = _find(text)
        except GuardUnavailable as error:
            logger.warning("a reason is kept without what looks like an identifier: %s", error)
            return _CRUDE.sub(REMOVED, text)
        except GuardError:
            return REMOVED
        if not spans:
            return text
        for span in reversed(spans):
            text = f"{text[: span.start]}[{span.kind.value}]{text[span.end :]}"
    return REMOVED


def said_json(value: JSON) -> JSON:
    """A JSON value with every string in it as ``said``, keys too; a whole number of nine digits or more is no answer and goes.

    >>> said_json({"mood": "good", "card": 4111111111111111})
    {'mood': 'good', 'card': '[removed]'}
    """
    if isinstance(value, str):
        return said(value)
    if isinstance(value, dict):
        return {said(key): said_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [said_json(item) for item in value]
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 1e8:
        return REMOVED
    return value


def kept_text(text: str) -> str | None:
    """A recorded input with stand-ins, as an admission would make it; None when no detector could look: it is not kept then."""
    try:
        return redactor_for(names=True).redact(text).text
    except GuardError as error:
        logger.warning("a recorded input is not kept: %s", error)
        return None


def _find(text: str) -> list[Span]:
    # names need no Presidio, whose import takes seconds: most reasons are looked at without it
    if _STRUCTURED.search(text):
        return redactor_for(names=True).find(text)
    return _names().find(text)


@lru_cache(maxsize=1)
def _names() -> Recogniser:
    from perennial.guard.recognisers import person

    return person.build()
