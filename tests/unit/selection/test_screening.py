"""Who may teach how much: caps, contradictions, floods and self-made labels, without any store."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.domain.origin import Origin
from perennial.domain.words import Source
from perennial.fleet import TRUSTED, Selection
from perennial.selection.page import screening_page
from perennial.selection.screening import NO_CHAMPION, TOO_SMALL, Rules, screen
from perennial.selection.sent import Sent, alias_of, is_trusted, senders

pytestmark = pytest.mark.req("J49")

RULES = Rules(source_share=0.02, young_share=0.05, near_duplicates=5, self_labelled_share=0.1, seed=7)
NOW = datetime(2025, 8, 8, 12, tzinfo=UTC)
WORDS = (
    "bank",
    "rate",
    "harbour",
    "storm",
    "goal",
    "season",
    "phone",
    "chip",
    "treaty",
    "border",
    "river",
    "judge",
    "film",
)


def text(number: int) -> str:
    """Texts that are no near duplicates of each other."""
    return " ".join(random.Random(number).choices(WORDS, k=12)) + f" {number}"


def one(number: int, sender: str = "desk", label: str = "a", *, words: str | None = None, **fields: object) -> Sent:
    """A claimed row; ``desk`` is trusted."""
    priority = int(fields.pop("priority", 0))  # type: ignore[call-overload]
    row = TrainingRow(
        example_id=UUID(int=number), task="t", text=words or text(number), label=label, priority=priority,
        correction=priority >= 2,
    )  # fmt: skip
    made = Sent(row=row, kind=Source.EXAMPLE, alias=sender, trusted=sender == "desk", young=False)
    return replace(made, **fields)


def ids(rows: object) -> list[int]:
    return [row.example_id.int for row in rows]  # type: ignore[attr-defined]


# --- caps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accounts", [1, 5, 20, 100])
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_however_many_accounts_an_attacker_makes_their_rows_stay_within_the_bounds(accounts: int, share: float) -> None:
    total, bad = 500, int(500 * share)
    batch = [one(i) for i in range(total - bad)]
    batch += [one(1000 + i, f"new{i % accounts}", "b", young=True) for i in range(bad)]
    result = screen(batch, [], RULES, first_version=False)
    kept = Counter(row.label for row in result.rows)
    assert kept["a"] == total - bad  # the trusted sender loses nothing
    assert kept["b"] == min(10 * accounts, 25)
    assert len(result.rows) + sum(len(gone) for gone in result.aside.values()) == total
    assert set(result.aside) == {"source_cap"}


def test_known_sources_are_held_to_their_own_share_only() -> None:
    batch = [one(i) for i in range(300)] + [one(1000 + i, f"reader{i % 20}", "b") for i in range(200)]
    assert Counter(row.label for row in screen(batch, [], RULES, first_version=False).rows) == {"a": 300, "b": 200}


def test_the_same_rows_stay_in_any_order_and_no_importance_buys_a_place() -> None:
    batch = [one(i) for i in range(80)] + [one(1000 + i, "eve", "b") for i in range(20)]
    shuffled = random.Random(3).sample(batch, len(batch))
    first, second = (screen(rows, [], RULES, first_version=False) for rows in (batch, shuffled))
    assert sorted(ids(first.rows)) == sorted(ids(second.rows))
    other = screen(batch, [], replace(RULES, seed=8), first_version=False)
    assert sorted(ids(other.rows)) != sorted(ids(first.rows))  # the sender cannot know which


def test_urgent_corrections_are_the_last_of_a_source_to_wait() -> None:
    batch = [one(i) for i in range(80)] + [one(1000 + i, "eve", "b") for i in range(18)]
    batch += [one(2000 + i, "eve", "c", priority=2) for i in range(2)]
    assert [row.label for row in screen(batch, [], RULES, first_version=False).rows if row.label != "a"] == ["c", "c"]


def test_small_batches_and_the_first_version_are_exempt_and_the_report_says_so() -> None:
    small = screen([one(i, "eve") for i in range(49)], [], RULES, first_version=False)
    assert (len(small.rows), small.report["exempt"]) == (49, [TOO_SMALL])
    flood = [one(i, "eve", words="the very same text of a flood") for i in range(200)]
    first = screen(flood, [], RULES, first_version=True)
    assert (len(first.rows), first.report["exempt"], first.report["kept"]) == (200, [NO_CHAMPION], 200)
    assert "first version" in screening_page({"t": first.report})
    assert len(screen([one(i, "eve") for i in range(50)], [], RULES, first_version=False).rows) == 1


def test_what_a_person_released_is_not_screened() -> None:
    batch = [one(i) for i in range(80)] + [one(1000 + i, "eve", "b", released=True) for i in range(20)]
    result = screen(batch, [], RULES, first_version=False)
    assert (len(result.rows), result.report["released"]) == (100, 20)


# --- contradictions ---------------------------------------------------------------------------------------------------

STORM = "A storm closed the harbour of Rotterdam on Monday and ships wait outside."


def test_a_near_duplicate_with_another_label_waits_unless_its_sender_weighs_more() -> None:
    known = one(1, "desk", "a", words=STORM)
    eve = one(2, "eve", "b", words=STORM.upper())
    assert ids(screen([known, eve], [], RULES, first_version=False).rows) == [1]
    both = screen([one(1, "x", "a", words=STORM), eve], [], RULES, first_version=False)
    assert (ids(both.rows), both.report["held"]) == ([], {"label_conflict": 2})


def test_a_correction_contradicts_what_it_corrects_and_two_corrections_both_wait() -> None:
    jane = one(1, "jane", "b", words=STORM, priority=2)
    old = one(9, "archive", "a", words=STORM)
    assert ids(screen([jane, one(2)], [old], RULES, first_version=False).rows) == [1, 2]
    john = one(3, "john", "c", words=STORM + "!", priority=3)
    assert ids(screen([jane, john, one(2)], [old], RULES, first_version=False).rows) == [2]


def test_nobody_but_a_person_contradicts_what_a_person_corrected() -> None:
    corrected = one(9, "jane", "a", words=STORM, priority=2)
    learned = one(9, "archive", "a", words=STORM)
    desk, eve = one(1, "desk", "b", words=STORM), one(2, "eve", "b", words=STORM)
    assert ids(screen([desk, eve], [learned], RULES, first_version=False).rows) == [1]
    assert ids(screen([desk, eve], [corrected], RULES, first_version=False).rows) == []


def test_one_sender_alone_and_equal_labels_are_no_conflict() -> None:
    same = [one(1, "eve", "a", words=STORM), one(2, "eve", "b", words=STORM), one(3, "bob", "z")]
    assert len(screen(same, [], RULES, first_version=False).rows) == 3
    agree = [one(1, "eve", "a", words=STORM), one(2, "bob", "a", words=STORM)]
    assert len(screen(agree, [], RULES, first_version=False).rows) == 2
    unnamed = [one(1, "unnamed", "a", words=STORM), one(2, "unnamed", "b", words=STORM)]
    assert screen(unnamed, [], RULES, first_version=False).rows == ()


# --- floods and self-made labels --------------------------------------------------------------------------------------


def test_of_a_flood_of_one_text_five_stay_whoever_sent_it() -> None:
    flood = [one(1000 + i, f"new{i}", "b", words=f"{STORM} {i % 7}") for i in range(40)]
    result = screen([one(i) for i in range(60)] + flood, [], RULES, first_version=False)
    assert result.report["held"] == {"near_duplicate_flood": 35}
    assert sum(row.label == "b" for row in result.rows) == 5


def test_a_flood_of_three_thousand_is_judged_in_seconds() -> None:
    began = datetime.now(UTC)
    flood = [one(i, f"new{i}", "b", words=f"{STORM} {i}") for i in range(3000)]
    assert len(screen(flood, [], RULES, first_version=False).rows) == 5
    assert datetime.now(UTC) - began < timedelta(seconds=30)  # all pairs would be 4.5 million comparisons


def test_labels_that_repeat_the_models_answer_are_a_tenth_at_most() -> None:
    batch = [one(i, self_labelled=i < 30) for i in range(100)]
    result = screen(batch, [], RULES, first_version=False)
    assert result.report["held"] == {"self_labelled_cap": 20}
    assert ids(result.rows) == [*range(10), *range(30, 100)]


# --- senders ----------------------------------------------------------------------------------------------------------


def origin(kind: Source = Source.EXAMPLE, source_id: str = "jane", days: float = 0.0) -> Origin:
    return Origin(kind=kind, source_id=source_id, first_seen=NOW - timedelta(days=days))


def seen(made: Origin, *, founded: datetime | None = None, own: tuple[str, ...] = ()) -> Sent:
    row = TrainingRow(example_id=UUID(int=1), task="t", text="x", label="a")
    found = senders(
        "scout", [row], {row.example_id: made}, patterns=TRUSTED, own=own, young_days=7.0, now=NOW, founded=founded
    )
    return found[0]


def test_young_is_who_came_this_week_and_after_the_first_version() -> None:
    assert seen(origin(days=1)).young
    assert not seen(origin(days=8)).young
    assert not seen(origin(days=1), founded=NOW).young  # was there when the first version was made
    assert seen(origin(days=1), founded=NOW - timedelta(days=2)).young


def test_trust_follows_the_way_in_and_not_the_name_that_a_sender_gives_itself() -> None:
    assert seen(origin(Source.GATEWAY, "gateway")).trusted
    assert seen(origin(Source.IMPORT, "import:1f3c")).trusted
    for name in ("gateway", "import:1f3c", "inbox:77", "jane/", "/"):
        assert not seen(origin(Source.EXAMPLE, name)).trusted, name
    assert not seen(origin(Source.INBOX, "jane")).trusted  # a dropped file that names its senders
    assert seen(origin(Source.EXAMPLE, "app"), own=(alias_of("scout", "app"),)).trusted
    assert is_trusted(Source.CORRECTION, "editor", (*TRUSTED, "*/editor"))


def test_no_name_of_a_sender_gets_into_the_report() -> None:
    sent = seen(origin(source_id="jane.doe@example.org"))
    result = screen([sent], [], RULES, first_version=False)
    assert "jane" not in str(result.report) + screening_page({"t": result.report})


def test_settings_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="source_share"):
        Selection(source_share=0.0)
    with pytest.raises(ValueError, match="kind/source_id"):
        Selection(trusted_sources=("editor",))
