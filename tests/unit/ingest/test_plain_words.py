"""What may stand beside a text that nobody has looked at."""

from __future__ import annotations

import pytest

from perennial.domain.example import Example
from perennial.ingest.plain_words import plain_answer, plain_example, plain_sender, plain_task, plain_url
from tests.acceptance.leaks import CANARIES, found_in

SALT = b"s" * 32


@pytest.mark.req("K67")
def test_no_identifier_stands_in_a_name_an_address_or_an_answer() -> None:
    for canary in CANARIES:
        value = canary.value
        shown = (plain_sender(value, SALT), plain_task(value, SALT))
        assert not found_in(" ".join(shown).encode()), canary.kind
        if canary.kind not in {"person", "street"}:  # a label may have blanks; admission looks at it again
            assert plain_answer(value) is None or not found_in(str(plain_answer(value)).encode()), canary.kind


def test_ordinary_names_stay_and_a_pseudonym_is_one_persons() -> None:
    for name in ("editor", "desk-7", "inbox:0123456789ab", "gateway", "018f2a3c-0000-7000-8000-000000000000", "ana.b"):
        assert plain_sender(name, SALT) == name
    first, again, other = (plain_sender(name, SALT) for name in ("ana@desk.org", "ana@desk.org", "bo@desk.org"))
    assert first == again != other
    assert first.startswith("id-")
    assert plain_sender("ana@desk.org", b"t" * 32) != first
    assert plain_task("headline", SALT) == "headline"
    assert plain_url("https://news.example/world-1234567890") == "https://news.example/world-1234567890"
    assert [plain_answer(value) for value in ("sci/tech", 0.5, True, 4111111111111111)] == ["sci/tech", 0.5, True, None]
    made = plain_example(
        Example(agent="a", task="t", input_text="x", expected_output="y", uncertainty=0.5, tag="asked by Ana", source_id="Ana B"), SALT
    )  # fmt: skip
    assert (made.tag, made.expected_output, made.source_id[:3]) == ("other", "y", "id-")
