"""What people type is kept without personal data, and readable."""

from __future__ import annotations

import pytest

from perennial.errors import GuardError, GuardUnavailable
from perennial.guard import said as module
from perennial.guard.said import REMOVED, kept_text, said, said_json
from tests.acceptance.leaks import CANARIES, Canary, found_in


@pytest.mark.req("K67", "K68")
@pytest.mark.parametrize("canary", CANARIES, ids=lambda canary: f"{canary.kind}-{CANARIES.index(canary)}")
def test_nothing_personal_is_left_and_saying_it_again_changes_nothing(canary: Canary) -> None:
    once = said(canary.text)
    assert not found_in(once.encode())
    assert "[" in once
    assert said(once) == once
    assert not found_in(str(said_json({canary.text: [canary.text, 1, None, True]})).encode())
    assert not found_in((kept_text(canary.text) or "").encode())


def test_an_ordinary_reason_stays_word_for_word() -> None:
    for text in (
        "wrong answers about sports",
        "checked with the desk at 14:02",
        "1.4.2 is worse by 3 points",
        "50 % of politics",
    ):
        assert said(text) == text


def test_without_detectors_rather_too_much_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise GuardUnavailable("not installed here")

    monkeypatch.setattr(module, "redactor_for", away)
    told = said("card 4539 1488 0343 6467 of jane@corp.com, worse by 3 points")
    assert ("4539" in told, "jane" in told, "3 points" in told) == (False, False, True)
    assert kept_text("anything") is None
    monkeypatch.setattr(module, "redactor_for", lambda **_: (_ for _ in ()).throw(GuardError("failed")))
    assert said("call 555") == REMOVED
