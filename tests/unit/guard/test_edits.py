"""Labels on parts of a text keep pointing at the same parts when personal data is replaced."""

from __future__ import annotations

import random

import pytest

from perennial.guard.edits import moved, realigned
from perennial.guard.redactor import Redactor

_PIECES = (
    "jane.doe@example.com", "(212) 555-0142", "4111 1111 1111 1111", "203.0.113.7", "Jane Doe", "Dr. Kowalczyk", "wrote", "Oslo",
    " ", ", ", "\n", "a", "é", "\ufffc", "x1", "user-00c0ffee@redacted.example",
)  # fmt: skip


@pytest.mark.req("J16", "K68")
def test_no_span_ever_leaves_its_text_and_untouched_words_stay_under_theirs(nameless: Redactor) -> None:
    draw = random.Random("spans")
    for _ in range(300):
        text = "".join(draw.choice(_PIECES) for _ in range(draw.randrange(1, 14)))
        result = nameless.redact(text)
        for _ in range(10):
            start = draw.randrange(len(text))
            end = draw.randrange(start + 1, len(text) + 1)
            new_start, new_end = moved(start, end, result.edits)
            assert 0 <= new_start < new_end <= len(result.text), (text, start, end)
            if all(end <= edit.start or start >= edit.end for edit in result.edits):
                assert "".join(result.text[new_start:new_end].split()) == "".join(text[start:end].split()), (
                    text,
                    start,
                )


@pytest.mark.req("K68")
def test_an_entity_that_was_replaced_is_the_stand_in(redactor: Redactor) -> None:
    text = "Contact Jane Doe at jane@corp.com in Oslo"
    result = redactor.redact(text)
    label = {"entities": [[8, 16, "PER"], {"start": 37, "end": 41, "label": "LOC"}], "note": [1, 2]}
    (start, end, kind), place = realigned(label, len(text), result.edits)["entities"]
    name = result.text.removeprefix("Contact ").split(" at ")[0]
    assert (result.text[start:end], kind) == (name, "PER")
    assert result.text[place["start"] : place["end"]] == "Oslo"
    assert realigned(label, len(text), result.edits)["note"] == [1, 2]


def test_what_is_no_span_stays_as_it_is(redactor: Redactor) -> None:
    result = redactor.redact("jane@corp.com wrote")
    for label in (
        "world",
        0.5,
        None,
        [[3, 99, "X"]],
        [["a", 1]],
        {"start": 0, "end": 3},
        [[True, 2, "X"]],
        [[2, 2, "X"]],
    ):
        assert realigned(label, 19, result.edits) == label
    assert realigned([[0, 5, "X"]], 19, ()) == [[0, 5, "X"]]
