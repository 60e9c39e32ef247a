"""Redaction as a whole: complete, repeatable, silent about values, bounded in time, closed when it fails."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from perennial.errors import GuardError, GuardUnavailable
from perennial.guard import redactor as module
from perennial.guard.keys import FILE, VARIABLE, deployment_key
from perennial.guard.redactor import Redactor, redactor_for
from tests.unit.guard.conftest import KEY

PLANTED = {
    "EMAIL_ADDRESS": "jane.doe@example.com",
    "PHONE_NUMBER": "(212) 555-0142",
    "CREDIT_CARD": "4111 1111 1111 1111",
    "US_SSN": "123-45-6789",
    "IP_ADDRESS": "203.0.113.7",
    "IBAN_CODE": "GB82 WEST 1234 5698 7654 32",
    "PERSON": "Jane Doe",
    "URL_CREDENTIALS": "https://jane:secret@host.example/path",
    "STREET_ADDRESS": "12 Main Street",
}
LETTER = (
    "Contact Jane Doe at jane.doe@example.com or (212) 555-0142; card 4111 1111 1111 1111, SSN 123-45-6789, from 203.0.113.7, "
    "account GB82 WEST 1234 5698 7654 32, https://jane:secret@host.example/path, 12 Main Street. Doe agreed."
)


@pytest.mark.req("K67", "K68")
def test_every_planted_identifier_is_caught_and_counted(redactor: Redactor) -> None:
    result = redactor.redact(LETTER)
    assert result.counts == {**dict.fromkeys(PLANTED, 1), "PERSON": 2}
    assert not [value for value in (*PLANTED.values(), "Doe", "secret") if value in result.text]
    assert result.text.startswith("Contact ")
    assert result.text.endswith(" agreed.")


@pytest.mark.req("K68")
def test_redacting_again_finds_nothing_and_changes_nothing(redactor: Redactor) -> None:
    once = redactor.redact(LETTER)
    again = redactor.redact(once.text)
    assert redactor.scan(once.text) == {}
    assert (again.text, again.counts) == (once.text, {})


def test_what_is_added_to_a_redacted_text_is_found_alone(redactor: Redactor) -> None:
    once = redactor.redact(LETTER).text
    twice = redactor.redact(f"{once} Also write to bob@example.com")
    assert twice.counts == {"EMAIL_ADDRESS": 1}
    assert twice.text.startswith(once)


@pytest.mark.req("K67")
def test_random_neighbours_do_not_bring_anything_back(redactor: Redactor) -> None:
    draw = random.Random("neighbours")
    for _ in range(400):
        text = "".join(draw.choice((*PLANTED.values(), *'a1@.:/ -+()AQ_"')) for _ in range(draw.randrange(1, 30)))
        result = redactor.redact(text)
        assert redactor.scan(result.text) == {}, text
        assert redactor.redact(result.text).text == result.text, text


def test_one_person_is_one_stand_in_across_texts(redactor: Redactor) -> None:
    one, other = (redactor.redact(text).text for text in ("Contact Jane Doe.", "Later we met Jane Doe again."))
    name = one.removeprefix("Contact ").removesuffix(".")
    assert name in other


@pytest.mark.req("K68")
def test_names_stay_only_by_policy_and_direct_identifiers_never(nameless: Redactor) -> None:
    result = nameless.redact("Contact Jane Doe at jane@corp.com")
    assert "Jane Doe" in result.text
    assert result.counts == {"EMAIL_ADDRESS": 1}
    assert result.version != Redactor(names=True, key=KEY).version


@pytest.mark.req("J16", "K68")
def test_json_is_redacted_in_every_string_and_nowhere_else(redactor: Redactor) -> None:
    value = {
        "jane@corp.com": ["call 212-555-0142", 4111111111111111, True, None, {"by": "Contact Jane Doe"}],
        "label": "world",
    }
    result = redactor.redact_json(value)
    text, address = json.dumps(result), next(iter(result))
    assert not [word for word in ("jane@corp.com", "212-555-0142", "Jane Doe") if word in text]
    assert result[address][1:4] == [4111111111111111, True, None]
    assert result["label"] == "world"


def test_json_without_end_is_an_error_and_no_crash(redactor: Redactor) -> None:
    value: list[object] = []
    for _ in range(500):
        value = [value]
    with pytest.raises(GuardError, match="nested deeper"):
        redactor.redact_json(value)


def test_many_keeps_the_order(redactor: Redactor) -> None:
    results = redactor.redact_many(["plain", "a@b.com", "plain"])
    assert [sum(result.counts.values()) for result in results] == [0, 1, 0]


# -- when it fails ----------------------------------------------------------------------------------------------------------


@pytest.mark.req("K67")
def test_a_detector_that_cannot_be_built_is_said_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module._built.cache_clear()
    redactor_for.cache_clear()
    monkeypatch.setenv(VARIABLE, "tests")
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "presidio_analyzer.predefined_recognizers", None)  # as if it were not installed
        with pytest.raises(GuardUnavailable, match="presidio-analyzer"):
            redactor_for(names=True)
    assert redactor_for(names=True).scan("a@b.com") == {"EMAIL_ADDRESS": 1}
    redactor_for.cache_clear()


@pytest.mark.req("K67")
def test_a_detector_that_fails_on_a_text_says_so_without_the_text(
    redactor: Redactor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(text: str) -> list[object]:
        raise RuntimeError(text)

    monkeypatch.setattr(redactor._always[0], "find", fail)
    with pytest.raises(GuardError) as caught:
        redactor.redact("secret 123")
    assert not isinstance(caught.value, GuardUnavailable)  # which would send all other rows to quarantine too
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_network_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the guard must not use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    module._built.cache_clear()
    assert Redactor(names=True, key=KEY).redact(LETTER).counts["EMAIL_ADDRESS"] == 1


def test_importing_the_room_is_cheap() -> None:
    code = (
        "import sys; import perennial.guard.redactor, perennial.guard.validation, perennial.guard.records; "
        "print([name for name in ('spacy', 'presidio_analyzer', 'great_expectations', 'pandas') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(module.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


# -- hostile texts ----------------------------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
HOSTILE = [
    "a", "1", "1 ", "@", "a@", "a@a.a", "a.", "a.a.a.a.a.a.a.a@b.co ", "4111 1111 1111 1111 ", "1:", "a::b ", "1.", "1.2.3.4 ",
    "GB82WEST12345698765432 ", "http://a:b@c/", "http://a/?token=", "Jane ", "Aa ", "A'", "12 Aaa ", "(", "+1", "1-", "call 123456 ",
    "Dr. ", "my name is ", "ssn 123456789 ", "٠١٢٣ ", "user-0123abcd@redacted.example ", "x@" + "b-" * 400, "Qa",
]  # fmt: skip


@pytest.mark.req("K67")
@pytest.mark.parametrize("piece", HOSTILE, ids=[repr(piece[:20]) for piece in HOSTILE])
def test_a_megabyte_of_anything_takes_seconds_at_most(piece: str, redactor: Redactor) -> None:
    text = (piece * (MEGABYTE // len(piece) + 1))[:MEGABYTE]
    began = time.process_time()
    redactor.find(text)
    # about one second on a quiet core; a pattern of quadratic time would take hours
    assert time.process_time() - began < 12


def test_a_crowded_text_is_redacted_without_a_look_at_each_number(redactor: Redactor) -> None:
    draw = random.Random("crowd")
    numbers = [
        f"{draw.randrange(200, 999)}-{draw.randrange(200, 999)}-{draw.randrange(10**4):04d}" for _ in range(2_000)
    ]
    result = redactor.redact(", ".join(numbers))
    assert not [number for number in numbers if number in result.text]
    assert redactor.scan(result.text) == {}


# -- the key ----------------------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_kept_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    home = tmp_path / "home"
    first = deployment_key(home)
    assert (len(first), deployment_key(home)) == (32, first)
    assert stat.S_IMODE((home / FILE).stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == [FILE]
    assert deployment_key(tmp_path / "other") != first


def test_the_variable_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "one for all hosts")
    assert deployment_key(tmp_path) == deployment_key(tmp_path / "elsewhere")
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("content", ["", "not hexadecimal", "abcd"])
def test_a_broken_key_file_is_no_new_key(content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    (tmp_path / FILE).write_text(content)
    with pytest.raises(GuardUnavailable, match=VARIABLE):
        deployment_key(tmp_path)
