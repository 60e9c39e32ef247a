"""The tagger of names: the shipped file, what it is asked, and that nothing passes when it is away."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import sys
from pathlib import Path

import pytest

from perennial.errors import GuardUnavailable
from perennial.guard import tagger as module
from perennial.guard.gazetteer import gazetteer
from perennial.guard.recognisers import person
from perennial.guard.redactor import Redactor
from perennial.guard.spans import Kind
from perennial.guard.surrogates import MASK, surrogate
from perennial.guard.tagger import FILE, Tagger, tagger
from perennial.guard.tagger_encoder import digest_of, folder
from perennial.guard.tagger_windows import View, candidates, windows
from tests.unit.guard.conftest import KEY


@pytest.mark.req("K67")
def test_the_shipped_head_is_small_and_made_from_these_templates_and_this_encoder() -> None:
    manifest = json.loads(FILE.with_suffix(".json").read_text())
    root = Path(__file__).parents[3] / "tagger"
    parts = (root / name for name in ("templates.txt", "names.txt", "slots.txt"))
    assert FILE.stat().st_size < 500_000
    assert manifest["weights"] == hashlib.sha256(FILE.read_bytes()).hexdigest()
    assert manifest["templates"] == hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()
    assert manifest["encoder"] == digest_of(folder())


@pytest.mark.req("K67")
@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Yesterday Oluwaseun Bamgboye called about his invoice.", "Oluwaseun Bamgboye"),
        ("The parcel was signed for by Ragnheidur Thorvaldsdottir on Monday.", "Ragnheidur Thorvaldsdottir"),
        ("the song was written by Zbyszek Wrobel in 1998", "Zbyszek Wrobel"),
    ],
    ids=["news", "mail", "chat"],
)
def test_names_of_no_list_are_found(text: str, name: str) -> None:
    found = person.build().find(text)
    start = text.index(name)
    assert any(span.start <= start and span.end >= start + len(name) for span in found)


@pytest.mark.parametrize(
    "text",
    [
        "Shares of Northwind Energy fell in Rotterdam on Tuesday.",
        "Oil Prices Climb After Storm Hits Louisiana Coast",
        "Does Photoshop work with Windows Vista?",
    ],
    ids=["company", "headline", "product"],
)
def test_other_capitals_are_no_names(text: str) -> None:
    assert person.build().find(text) == []


@pytest.mark.req("K67")
def test_a_text_without_a_candidate_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(person, "tagger", lambda: pytest.fail("the tagger was asked"))
    assert person.build().find("The prices fell on Monday, and nobody knew why.") == []
    assert list(candidates("my name is sarah", gazetteer())) == [(11, 16)]


@pytest.mark.req("K67")
def test_without_its_file_or_encoder_the_guard_is_away_and_tries_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    redactor = Redactor(names=True, key=KEY)
    tagger.cache_clear()
    with monkeypatch.context() as broken:
        broken.setattr(module, "folder", lambda: tmp_path / "away")
        with pytest.raises(GuardUnavailable, match="wait in quarantine") as caught:
            redactor.redact("Yesterday Bamgboye called.")
    assert "Bamgboye" not in str(caught.value)
    with monkeypatch.context() as broken:
        broken.setitem(sys.modules, "tokenizers", None)  # as if it were not installed
        with pytest.raises(GuardUnavailable, match="tokenizers"):
            redactor.redact("Yesterday Bamgboye called.")
    assert redactor.redact("Yesterday Mr. Bamgboye called.").counts == {"PERSON": 1}


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / FILE.name
    copy.write_bytes(FILE.read_bytes()[:-1] + b"\0\1")
    shutil.copy(FILE.with_suffix(".json"), tmp_path)
    with pytest.raises(GuardUnavailable, match="manifest"):
        Tagger(copy)


@pytest.mark.req("K67")
def test_names_among_other_words_are_redacted_once_and_for_all(redactor: Redactor) -> None:
    draw = random.Random("names")
    words = (
        "Oluwaseun Bamgboye",
        "zbyszek",
        "Dr. Wrobel",
        "Oslo",
        "jane@corp.com",
        "called",
        "and",
        ",",
        ".",
        "\n",
        "-",
        "A.",
        "Acme",
    )
    for _ in range(60):
        text = " ".join(draw.choice(words) for _ in range(draw.randrange(1, 25)))
        once = redactor.redact(text)
        again = redactor.redact(once.text)
        assert (again.text, again.counts) == (once.text, {}), text


# -- what it is asked -------------------------------------------------------------------------------------------------------


def test_a_stand_in_of_any_length_reads_alike_and_places_come_back() -> None:
    name = surrogate(Kind.PERSON, "Jane Doe", KEY)
    views = [View(f"Ask {piece} or Bob Ray") for piece in (name, MASK, f" {MASK} ")]
    assert {view.text for view in views} == {"Ask someone or Bob Ray"}
    place = views[0].text.index("Bob")
    (found,) = views[0].original([(place, place + 3)])
    assert f"Ask {name} or Bob Ray"[slice(*found)] == "Bob"


def test_windows_cover_every_word_and_none_is_long() -> None:
    draw = random.Random("windows")
    for _ in range(100):
        text = "".join(draw.choice(("Jane ", "Dr. ", "x" * 90, ". ", "\n", ", ", "J. ", "word ")) for _ in range(60))
        cut = list(windows(text))
        assert all(0 < end - start <= 240 for start, end in cut)
        assert "".join("".join(text[start:end].split()) for start, end in cut) == "".join(text.split())


def test_beyond_the_limit_every_candidate_counts_as_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WINDOWS", 2)
    text = " ".join(f"In the year {year} the old town of Oslo{year} saw rain and snow." for year in range(9))
    assert [score for _, _, score in tagger().scores(text)].count(1.0) >= 7
