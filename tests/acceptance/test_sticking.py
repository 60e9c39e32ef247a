"""Corrections stick: the short form of ``benchmarks/bench_sticking.py``, and many at once of which two contradict each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.demo.stream import LATE_TOPIC, TOPICS, NewsStream
from perennial.domain.words import CorrectionOutcome, Priority, Reason, Source
from perennial.flows import train
from perennial.flows.corrections import corrections
from tests.acceptance import sticking
from tests.acceptance.sticking import Truth, correct_one_by_one, training_share
from tests.acceptance.world import World

EARLY = tuple(topic for topic in TOPICS if topic != LATE_TOPIC)[:3]  # few, so that each has the rows of a slice


def _truths(count: int, period: float) -> list[Truth]:
    rows = NewsStream(int(period * 100)).articles(count, period=period, topics=EARLY, pii_rate=0.0)
    return [(row.text, row.true_topic) for row in rows]


@pytest.mark.req("J33", "J49", "K43")
def test_five_corrections_are_learned_one_by_one_and_many_at_once_do_not_block_each_other(world: World) -> None:
    start = training_share(_truths(240, 0.0), 0.35, 130)
    later = _truths(110, 0.9)
    found = correct_one_by_one(world, start=start, later=later, test=_truths(30, 0.2), count=5)
    assert (found.rows, found.right, found.right_at_end, found.unlearned) == (130, 5, 5, 0), found.steps
    assert [step.promoted for step in found.steps] == [True] * 5
    assert found.after >= found.before - 0.07

    # many at once: an accent is all that tells two of them apart, the encoder does not see it, and their labels differ
    champion = sticking._champion(world)
    wrong = [truth for truth in later if not sticking._right(champion, [truth])[0]][:9]
    assert len(wrong) >= 3
    contrary = (
        (f"{wrong[0][0]} Café.", wrong[0][1]),
        (f"{wrong[0][0]} Cafe.", next(t for t in EARLY if t != wrong[0][1])),
    )
    batch = [*wrong[1:], *contrary]
    world.ports.buffer.add_many(
        [sticking._example(*truth, priority=Priority.HIGH, source=Source.CORRECTION) for truth in batch]
    )
    actions = []
    while world.ports.buffer.due("scout").reason is Reason.CORRECTION:
        ref = world.claim(reason=Reason.CORRECTION)
        assert ref is not None
        verdict = train.fast_lane(world.ports, ref)
        actions.append((verdict["action"], ref.count))
        world.release(ref, verdict)
        if verdict["action"] == "pass":
            world.promote()
    assert actions[0] == ("hold", len(batch)), "two that contradict each other cannot both be learned"
    assert actions[1][0] == "pass", "what was not to blame is trained at once, without the others"
    rows = corrections(world.ports, "scout")
    missed = [one for one in rows if one.outcome is CorrectionOutcome.NOT_LEARNED]
    assert len(missed) == 1
    assert "waits for a person" in missed[0].why
    assert "corrections" in missed[0].why
    assert missed[0].right_now is False
    learned = [one for one in rows if one.outcome is CorrectionOutcome.LEARNED]
    assert len(learned) == 5 + len(batch) - 1
    assert all(one.right_now for one in learned)
    assert learned[-1].version == "1.0.1"
    assert not any(text in str([one.as_dict() for one in rows]) for text, _ in batch), "texts stay where they are"


@pytest.mark.req("J33")
def test_the_command_shows_each_correction_without_its_text(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import json

    from typer.testing import CliRunner

    from perennial import wiring
    from perennial.cli import build

    monkeypatch.setattr(wiring, "ports", lambda: world.ports)
    world.ports.buffer.add(sticking._example("Rain again.", "world", priority=Priority.HIGH, source=Source.CORRECTION))
    shown = CliRunner().invoke(build(), ["corrections", "scout", "--json"])
    (one,) = json.loads(shown.stdout)
    assert (one["task"], one["priority"], one["outcome"], one["version"], one["right_now"]) == (
        "news_classification", 2, "waiting", None, None,
    )  # fmt: skip
    page = CliRunner().invoke(build(), ["corrections", "scout"])
    assert "1 waiting" in page.stdout
    assert one["example_id"] in page.stdout.replace("\n", "")
    assert "Rain" not in page.stdout + shown.stdout
    assert CliRunner().invoke(build(), ["corrections", "nobody"]).exit_code == 1
    assert json.loads(CliRunner().invoke(build(), ["corrections", "scout", "--missed", "--json"]).stdout) == []
