"""What `perennial explain` works out from moves, and how its page reads in a narrow terminal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from perennial.cli import provenance
from perennial.cli.common import moment
from perennial.flows import explain as flow
from perennial.flows.explain import (
    Answer,
    Explanation,
    Look,
    Moment,
    Period,
    Rolled,
    Trained,
    Trigger,
    moment_of,
    outcome_of,
    periods_of,
)
from perennial.registry.rows import Alias, AliasMove
from perennial.rollout.rows import ServingMove

T0 = datetime(2026, 11, 21, 14, 2, tzinfo=UTC)


def _at(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


def _move(minutes: float, alias: Alias, version: str | None) -> AliasMove:
    return AliasMove(
        agent="scout", alias=alias, version=version, actor="perennial", reason="r", job_id=None, moved_at=_at(minutes)
    )  # fmt: skip


def _share(minutes: float, candidate: str | None, weight: float) -> ServingMove:
    return ServingMove(
        agent="scout", champion="1.0.0", candidate=candidate, weight=weight, epoch=int(minutes), changed_at=_at(minutes)
    )  # fmt: skip


OLDEST_FIRST = (
    _move(0, Alias.CHAMPION, "1.0.0"), _move(10, Alias.CANDIDATE, "1.0.1"), _move(14, Alias.CHAMPION, "1.0.1"),
    _move(14, Alias.CANDIDATE, None), _move(30, Alias.CHAMPION, "1.0.0"),
)  # fmt: skip
MOVES = tuple(reversed(OLDEST_FIRST))
HISTORY = (_share(10, "1.0.1", 0.0), _share(11, "1.0.1", 0.05), _share(12, "1.0.1", 0.25), _share(14, None, 0.0))


@pytest.mark.req("K57", "J91")
@pytest.mark.parametrize(
    ("minutes", "champion", "until", "candidate", "share"),
    [
        (-1, None, None, None, None), (0, "1.0.0", 14, None, None), (10.5, "1.0.0", 14, "1.0.1", 0.0),
        (11.5, "1.0.0", 14, "1.0.1", 0.05), (13, "1.0.0", 14, "1.0.1", 0.25), (14, "1.0.1", 30, None, None),
        (99, "1.0.0", None, None, None),
    ],
)  # fmt: skip
def test_a_moment(
    minutes: float, champion: str | None, until: float | None, candidate: str | None, share: float | None
) -> None:
    found = moment_of(MOVES, HISTORY, _at(minutes))
    assert (found.champion, found.candidate, found.share) == (champion, candidate, share)
    assert found.until == (None if until is None else _at(until))
    assert found.first == (("1.0.0", T0) if champion is None else None)


def test_a_share_from_before_shares_were_kept_is_not_made_up() -> None:
    found = moment_of(MOVES, (), _at(12))
    assert (found.candidate, found.share) == ("1.0.1", None)


@pytest.mark.req("J91")
def test_periods_have_ends_and_shares() -> None:
    first, again = (period for period in periods_of("1.0.0", MOVES, HISTORY))
    assert [(first.since, first.until), (again.since, again.until)] == [(T0, _at(14)), (_at(30), None)]
    canary, champion = periods_of("1.0.1", MOVES, HISTORY)
    assert canary.shares == ((_at(11), 0.05), (_at(12), 0.25))
    assert (champion.alias, champion.until, champion.shares) == ("champion", _at(30), ())
    assert periods_of("7.0.0", MOVES, HISTORY) == ()


def _rolled(state: str, *, full: bool) -> Rolled:
    return Rolled(
        id=1, run_id="run", previous="1.0.0", steps=(0.05, 1.0), state=state, reason="errors", started_at=T0,
        full_at=T0 if full else None, ended_at=None,
        looks=(Look(at=T0, state="canary", step=0, action="rollback", reason="too many errors"),),
    )  # fmt: skip


def test_what_became_of_a_version() -> None:
    past = Period(alias="champion", since=T0, until=_at(1), actor="a", reason="r")
    now = Period(alias="candidate", since=T0, until=None, actor="a", reason="r")
    assert outcome_of("1", (past,), ()) == "served, and was replaced"
    assert outcome_of("1", (past, now), ()) == "is on its way as candidate"
    assert outcome_of("1", (past,), (_rolled("reverted", full=True),)) == "served and was reverted: errors"
    assert outcome_of("1", (), (_rolled("superseded", full=False),)) == "was superseded: errors"


PAGE = Explanation(
    agent="scout", version="1.0.1", outcome="served and was reverted: errors",
    moment=Moment(time=T0, champion="1.0.1", since=T0, actor="perennial", reason="rollout 1 met its plan", candidate="1.0.2", share=0.05),
    released_at=T0, digest="d" * 64, signature="verified now", trigger=Trigger(job_id="j" * 36, reason="correction", run_id="run-7"),
    trained=(
        Trained(task="news_classification", how="trained", base="1.0.0", new=1, replay=3, holdout=40, sources={"correction": 1},
                priorities={"2": 1}, gone=3, ids={"new": ("i" * 36,)}),
        Trained(task="sentiment", how="kept from 1.0.0"),
    ),
    gate_action="pass", gate_summary="passes every gate", gates=(Answer(gate="non_inferiority", action="pass", reason="not worse"),),
    metrics={"news_classification.candidate": 0.9, "news_classification.holdout_rows": 40.0}, rollouts=(_rolled("reverted", full=True),),
    links={"run_url": "http://127.0.0.1:5500/#/experiments/1/runs/" + "r" * 32},
)  # fmt: skip


@pytest.mark.req("K57")
@pytest.mark.parametrize("columns", [44, 80, 200])
def test_the_page_fits_the_terminal_and_says_everything(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_ports", lambda: None)
    monkeypatch.setattr(flow, "explain", lambda *given, **more: PAGE)
    app = typer.Typer()
    provenance.register(app)
    done: Any = CliRunner().invoke(app, ["explain", "scout", "1.0.1", "--ids"], env={"COLUMNS": str(columns)})
    assert done.exit_code == 0, done.output
    assert max(len(line) for line in done.stdout.splitlines()) <= columns
    page = "".join(done.stdout.split())
    for needed in (
        "servedandwasreverted:errors", "d" * 64, "run-7", "1new,3replayed;judgedon40;from1.0.0", "keptfrom1.0.0",
        "3ofthemarenotinthebufferanymore", "i" * 36, "PASSnotworse", "90.0%righton40rows", "nobodyhadto",
        "canaryrollback:toomanyerrors", "candidate1.0.2with5%ofthekeys", "r" * 32,
    ):  # fmt: skip
        assert needed in page or columns < 80, needed


@pytest.mark.parametrize("typed", ["14:02+01", "yesterday", "0001-01-01T00:00+23:59", "9999-12-31T23:59-23:59"])
def test_a_time_that_is_none_is_refused_in_a_sentence(typed: str) -> None:
    with pytest.raises(typer.BadParameter, match="is not a time like 2026-11-21T16:10"):
        moment(typed)
    assert moment("2026-11-21T14:02+01") == moment("2026-11-21T13:02")
