"""The page of rollouts: what it shows of a live one, and who may end it."""

from __future__ import annotations

from typing import Any

import pytest

from perennial.domain.words import Parked, RolloutAction, RolloutState
from perennial.flows.permission import require_served_permission
from perennial.pages.roles import Role
from perennial.pages.rollout import Difference, gather, interval
from tests.pages_world import PagesWorld, Seen
from tests.waiting_world import judged_canary, make_waiting_world

pytestmark = pytest.mark.req("J50", "K40")


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> PagesWorld:
    monkeypatch.setattr(
        "perennial.flows.decide.bundle_folder", require_served_permission
    )  # signatures have their own tests
    made = make_waiting_world()
    models: Any = made.ports.models
    models.align_aliases = lambda *_, **__: True
    return made


def _get(world: PagesWorld, role: Role = Role.OPERATOR, **query: str) -> Seen:
    with world.client(role) as client:
        answer = client.get("/rollout", params=query)
    assert answer.status_code == 200, answer.text
    return Seen(answer.text)


def _post(world: PagesWorld, verb: str, role: Role = Role.OPERATOR, **form: str) -> tuple[int, str]:
    given = {"agent": "scout", "version": "1.0.1", "reason": "wrong about sports", **form}
    with world.client(role) as client:
        answer = client.post(f"/rollout/{verb}", data=given)
    return answer.status_code, answer.headers.get("location", "") or Seen(answer.text).text


def test_an_agent_without_a_rollout() -> None:
    empty = make_waiting_world(full=False)
    assert "none yet" in _get(empty).text
    seen = _get(empty, agent="scout")
    assert "There was no rollout" in seen.text
    assert not seen.all("form")
    with empty.client() as client:
        assert client.get("/rollout", params={"agent": "nobody"}).status_code == 404


def test_a_live_rollout_shows_arms_interval_verdict_and_what_comes_next(world: PagesWorld) -> None:
    judged_canary(world)
    view = gather(world.ports, "scout")
    assert [(arm.version, arm.share, arm.answers, arm.outcomes) for arm in view.arms] == [
        ("1.0.0", 0.95, 400, 400), ("1.0.1", 0.05, 60, 60),
    ]  # fmt: skip
    found = view.difference
    assert found is not None
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert found.value == pytest.approx((view.arms[1].right or 0) - (view.arms[0].right or 0), abs=1e-3)
    seen = _get(world, agent="scout")
    for words in ("In canary at 5 % of the keys", "Champion: 1.0.0", "95 % at all looks together", "Verdict now",
                  "its run looks every second",
                  "5 % now", "100 % to come", "20 answers and 5 s"):  # fmt: skip
        assert words in seen.text, words
    assert [one["aria-label"] for one in seen.all("svg")] == [f"Candidate minus champion: {_words(found)}"]
    assert "scout" in _get(world).text


def _words(found: Difference) -> str:
    from perennial.pages.layout import points

    return f"{points(found.value)} points, between {points(found.low)} and {points(found.high)}"


def test_the_page_is_read_again_by_a_script_of_this_site_alone(world: PagesWorld) -> None:
    seen = _get(world, agent="scout")
    assert {one["src"] for one in seen.all("script")} == {"/static/pages.js", "/static/live.js"}
    assert [one.get("data-reload") for one in seen.all("p") if one.get("data-reload")] == ["10"]
    assert "/static/live.js" not in {one["src"] for one in _get(world, agent="scout", still="1").all("script")}
    with world.client() as client:
        assert client.get("/static/live.js").headers["content-type"].startswith("text/javascript")


def test_a_parked_rollout_and_its_looks_say_why(world: PagesWorld) -> None:
    row = world.rollouts.latest("scout")
    assert row is not None
    world.rollouts.look(row.id, action=RolloutAction.ASK, reason="too little traffic", evidence={})
    world.rollouts.park(row.id, Parked.ASK, "too little traffic; a person decides")
    seen = _get(world, agent="scout")
    for words in (
        "waits for a person",
        "too little traffic; a person decides",
        "a person decides: `perennial rollout promote`",
    ):
        assert words in seen.text
    assert any(look.action == "ask" for look in gather(world.ports, "scout").looks)


def test_an_operator_aborts_with_a_reason(world: PagesWorld) -> None:
    assert _post(world, "abort") == (303, "/rollout?agent=scout&said=aborted")
    row = world.rollouts.latest("scout")
    assert row is not None
    assert (row.state, row.reason) == (RolloutState.REVERTED, "aborted by operator: wrong about sports")
    assert [entry.actor for entry in world.audit.entries("scout") if entry.action == "rollout_aborted"] == ["operator"]
    assert _post(world, "abort")[0] == 303  # the same decision again changes nothing
    seen = _get(world, agent="scout", said="aborted")
    assert "out of traffic" in seen.text
    assert not seen.all("form")


def test_an_operator_promotes_with_a_reason(world: PagesWorld) -> None:
    assert _post(world, "promote", reason="looks right") == (303, "/rollout?agent=scout&said=promoted")
    assert world.rollouts.serving("scout").champion == "1.0.1"
    seen = _get(world, agent="scout")
    assert "Serves everything, still watched" in seen.text
    status, told = _post(world, "abort", reason="too late")
    assert (status, "is baking and not open" in told) == (409, True)


@pytest.mark.parametrize("verb", ["abort", "promote"])
@pytest.mark.parametrize(
    ("form", "status", "says"),
    [({"reason": ""}, 422, "reason is empty"), ({"version": ""}, 422, "version is empty"), ({"agent": "desk"}, 409, "has no rollout"),
     ({"version": "9.9.9"}, 409, "is by now that of 1.0.1, not 9.9.9")],
)  # fmt: skip
def test_what_the_command_line_refuses_is_refused_here_in_the_same_words(
    world: PagesWorld, verb: str, form: dict[str, str], status: int, says: str
) -> None:
    got, told = _post(world, verb, **form)
    assert (got, says in told) == (status, True), told
    row = world.rollouts.latest("scout")
    assert row is not None
    assert row.state is RolloutState.CANARY


@pytest.mark.parametrize("role", Role)
def test_operators_alone_decide(world: PagesWorld, role: Role) -> None:
    with world.client(role) as client:
        page = client.get("/rollout", params={"agent": "scout"})
    assert page.status_code == (403 if role is Role.NOBODY else 200)
    assert ("/rollout/abort" in page.text) == (role is Role.OPERATOR)
    for verb in ("abort", "promote"):
        assert _post(world, verb, role)[0] == (
            303 if role is Role.OPERATOR and verb == "abort" else 403 if role < Role.OPERATOR else 409
        )


def test_a_form_of_another_site_decides_nothing(world: PagesWorld) -> None:
    with world.client() as client:
        for verb in ("abort", "promote"):
            for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
                form = {"agent": "scout", "version": "1.0.1", "reason": "r"}
                assert client.post(f"/rollout/{verb}", data=form, headers=headers).status_code == 403
    row = world.rollouts.latest("scout")
    assert row is not None
    assert row.state is RolloutState.CANARY


def test_older_rollouts_can_be_looked_at_and_not_decided_on(world: PagesWorld) -> None:
    first = world.rollouts.recent("scout")[-1]
    seen = _get(world, agent="scout", id=str(first.id))
    assert "1.0.0 (shown)" in seen.text
    assert not seen.all("form")
    with world.client() as client:
        assert client.get("/rollout", params={"agent": "scout", "id": "99"}).status_code == 409
        assert (
            client.get("/rollout", params={"agent": "desk", "id": str(first.id)}).status_code == 200
        )  # it has none to show
        assert client.get("/rollout", params={"agent": "scout", "id": "1' OR 1"}).status_code == 422


def test_a_bake_is_shown_without_loading_a_model(world: PagesWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    _post(world, "promote", reason="looks right")
    judged_canary(world, right=0.3)
    monkeypatch.setattr("perennial.flows.watch._on_equal_terms", lambda *_: pytest.fail("a page loads no model"))
    view = gather(world.ports, "scout")
    assert (view.says, view.arms[1].name) == ("rollback", "champion now")


def _baked(world: PagesWorld, *, evidence_of: str = "baking") -> int:
    """1.0.1 takes all traffic with a look that kept numbers, in canary or in its bake; returns its rollout's id."""
    row = world.rollouts.latest("scout")
    assert row is not None
    arm = {"answers": 50, "errors": 10, "p50_ms": 1, "p95_ms": 2, "outcomes": 0, "correct_sum": 0, "agreement": None}
    evidence = {"candidate": arm, "champion": {**arm, "errors": 0}}
    if evidence_of == "canary":
        world.rollouts.look(row.id, action=RolloutAction.PROMOTE, reason="no worse", evidence=evidence)
    world.rollouts.promote_full(row.id, actor="perennial", reason="r")
    world.ledger.move_alias("scout", "champion", "1.0.1", actor="perennial", reason="r")
    if evidence_of == "baking":
        world.rollouts.look(row.id, action=RolloutAction.ROLLBACK, reason="20 % failed", evidence=evidence)
    world.clock.move(3600)
    return row.id


@pytest.mark.parametrize("evidence_of", ["baking", "canary"])
def test_a_bake_that_was_reverted_is_not_said_to_serve(world: PagesWorld, evidence_of: str) -> None:
    rollout = _baked(world, evidence_of=evidence_of)
    assert "Serves everything, still watched" in _get(world, agent="scout").text
    assert "Serves everything since" in _get(world, agent="scout").text
    world.rollouts.revert(rollout, reason="20 % failed", actor="perennial")
    assert world.rollouts.serving("scout").champion == "1.0.0"
    view = gather(world.ports, "scout")
    then = ["predecessor", "champion then"] if evidence_of == "baking" else ["champion", "candidate"]
    assert [(arm.name, arm.version) for arm in view.arms] == list(zip(then, ["1.0.0", "1.0.1"], strict=True))
    text = _get(world, agent="scout").text
    for words in ("Reverted. Champion: 1.0.0.", "Served everything from", "50 % passed", "100 % reverted"):
        assert words in text, words
    for words in ("champion now", "Serves everything", "100 % passed"):
        assert words not in text, words


def test_a_bake_that_ended_well_is_not_said_to_serve_once_another_version_does(world: PagesWorld) -> None:
    rollout = _baked(world)
    world.rollouts.close(rollout)
    text = _get(world, agent="scout").text
    assert ("Done. Champion: 1.0.1." in text, "Served everything from" in text, "100 % passed" in text) == (True,) * 3
    world.release("scout", "1.0.2", base="1.0.1")
    world.serve("scout", "1.0.2")
    for words in ("champion now", "Serves everything"):
        assert words not in _get(world, agent="scout", id=str(rollout)).text


def test_an_interval_that_is_not_bounded_yet_is_drawn_without_ends() -> None:
    drawn = str(interval(Difference(value=-0.5, low=None, high=None, allowed=0.05)))
    assert "interval" not in drawn
    assert "−50.0 points" in drawn
