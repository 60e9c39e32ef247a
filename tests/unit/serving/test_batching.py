"""What comes while a batch runs is the next batch; nobody waits for a clock, and nobody pays for another's text."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from perennial.errors import PerennialError
from perennial.serving.batching import Batcher, BatchLimits, Cut, lost_to_others, next_batch
from perennial.serving.errors import ModelFailed, Overloaded
from perennial.serving.models import LoadedModel, failure_of
from tests.unit.serving.world import in_threads


class Work:
    """Doubles each text; the first call waits for ``free``, and ``bad`` cannot be borne."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.free, self.began = threading.Event(), threading.Event()

    def __call__(self, texts: list[str]) -> list[str]:
        self.batches.append(texts)
        self.began.set()
        assert self.free.wait(10)
        if "bad" in texts:
            raise ValueError("bad")
        return [text * 2 for text in texts]


def behind_a_running_one(batcher: Batcher[list[str]], work: Work, texts: Sequence[str]) -> dict[str, object]:
    """One request runs, the others line up behind it, then it may end; what each got."""
    got: dict[str, object] = {}

    def ask(text: str) -> None:
        try:
            got[text] = batcher.ask([text])
        except Exception as error:  # noqa: BLE001 - the test looks at it
            got[text] = error

    first = threading.Thread(target=ask, args=("first",))
    first.start()
    assert work.began.wait(10)
    others = [threading.Thread(target=ask, args=(text,)) for text in texts]
    for thread in others:
        thread.start()
        time.sleep(0.01)  # so that they stand in line in this order
    work.free.set()
    for thread in (first, *others):
        thread.join(10)
    return got


@pytest.mark.req("K39")
def test_what_comes_while_one_runs_is_computed_together() -> None:
    work = Work()
    got = behind_a_running_one(Batcher(work, BatchLimits(most=4)), work, list("abcdef"))
    assert work.batches == [["first"], list("abcd"), list("ef")]
    assert got == {text: [text * 2] for text in ["first", *"abcdef"]}


def test_a_request_alone_does_not_wait_and_nothing_is_gathered_for_it() -> None:
    work = Work()
    work.free.set()
    batcher = Batcher(work, BatchLimits())
    assert [batcher.ask([text]) for text in "ab"] == [["aa"], ["bb"]]
    assert work.batches == [["a"], ["b"]]
    assert batcher._at_work == 0


def test_a_text_that_the_model_cannot_bear_fails_alone() -> None:
    work = Work()
    got = behind_a_running_one(Batcher(work, BatchLimits()), work, ["a", "bad", "b"])
    assert isinstance(got.pop("bad"), ValueError)
    assert got == {"first": ["firstfirst"], "a": ["aa"], "b": ["bb"]}


def test_a_full_line_refuses_and_a_line_that_does_not_move_ends() -> None:
    work = Work()
    batcher = Batcher(work, BatchLimits(waiting=1, patience=0.2))
    first = threading.Thread(target=batcher.ask, args=(["first"],))
    first.start()
    assert work.began.wait(10)
    refused: list[type[Exception]] = []

    def ask(_: int) -> None:
        try:
            batcher.ask(["x"])
        except PerennialError as error:
            refused.append(type(error))

    in_threads(3, ask)
    work.free.set()
    first.join(10)
    assert refused == [Overloaded] * 3
    assert work.batches == [["first"]]  # nobody computes for callers that are gone
    assert batcher.ask(["again"]) == ["againagain"]


def test_many_callers_and_workers_each_get_their_own_rows() -> None:
    wrong: list[object] = []
    batcher = Batcher(lambda texts: [text * 2 for text in texts], BatchLimits(workers=3, most=5))

    def ask(number: int) -> None:
        for turn in range(200):
            texts = [f"{number}-{turn}-{place}" for place in range(1 + turn % 3)]
            if batcher.ask(texts) != [text * 2 for text in texts]:
                wrong.append(texts)

    in_threads(12, ask)
    assert not wrong
    assert (batcher._at_work, len(batcher._line)) == (0, 0)


def test_the_share_of_a_line() -> None:
    now, limits = 100.0, BatchLimits(most=8, workers=2, patience=10)
    assert next_batch([], now, limits, own=1) == Cut(refused=0, taken=0)
    assert next_batch([(1, 99.0)] * 15, now, limits, own=1) == Cut(refused=0, taken=7)
    assert next_batch([(1, 99.0)] * 3, now, limits, own=1) == Cut(refused=0, taken=1)  # the other worker gets the rest
    assert next_batch([(1, 80.0)] * 3, now, limits, own=1) == Cut(refused=3, taken=0)
    assert next_batch([(256, 99.0), (1, 99.0)], now, limits, own=1) == Cut(refused=0, taken=0)
    assert next_batch([(1, 99.0)], now, limits, own=256) == Cut(refused=0, taken=0)


def test_time_in_line_and_others_texts_are_not_the_models_own() -> None:
    work, now, lost = Work(), [0.0], {}

    def four_seconds(texts: list[str]) -> list[str]:
        found = work(texts)
        now[0] += 4.0
        return found

    class Asked(Batcher[list[str]]):
        def ask(self, texts: Sequence[str]) -> list[str]:
            found = super().ask(texts)
            lost[texts[0]] = lost_to_others()
            return found

    behind_a_running_one(Asked(four_seconds, BatchLimits(), clock=lambda: now[0]), work, ["a", "b"])
    assert lost == {"first": 0.0, "a": 6.0, "b": 6.0}  # of 8 seconds, 2 were their own


def test_a_long_line_is_nobodys_failure() -> None:
    class Full:
        def predict(self, texts: Sequence[str]) -> list[object]:
            raise Overloaded("full")

    with pytest.raises(Overloaded):
        LoadedModel(agent="a", version="1.0.0", predictors={"t": Full()}).answer("t", ["x"])  # type: ignore[dict-item]
    assert not failure_of("1.0.0", Overloaded("full")).final
    assert failure_of("1.0.0", ModelFailed("broken")).final
