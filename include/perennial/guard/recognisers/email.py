"""E-mail addresses: Presidio's pattern, without its look-up of public suffixes.

Presidio accepts an address only when its domain ends in a known public suffix, which it tries to download, and so lets
``jane@corp.internal`` pass. Here any domain with a dot and a last label of letters counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from perennial.guard.recognisers._presidio import Place, Windowed
from perennial.guard.spans import Kind

_DOMAIN = re.compile(r"@(?=\w)[\w\-]{1,63}(?:\.[\w\-]{1,63}){1,8}")
_LOCAL = re.compile(r"[!#$%&'*+\-/=?^_`{|}~.\w]{1,128}")


def build() -> Windowed:
    """The recogniser of e-mail addresses."""
    from presidio_analyzer.predefined_recognizers import EmailRecognizer

    class AnyDomain(EmailRecognizer):  # type: ignore[misc]
        def validate_result(self, pattern_text: str) -> bool:
            return not pattern_text.rpartition(".")[2].isdigit()

    return Windowed(Kind.EMAIL_ADDRESS, AnyDomain(), places, margin=1)


def places(text: str) -> Iterator[Place]:
    """Around each @ that a domain follows: up to 128 characters of local part before it."""
    if "@" not in text:
        return
    for domain in _DOMAIN.finditer(text):
        at = domain.start()
        local = _LOCAL.match(text[max(0, at - 128) : at][::-1])
        if local:
            yield at - local.end(), domain.end()
