"""The page of what stands aside."""

from __future__ import annotations

import pytest

from perennial.domain.origin import LABEL_CONFLICT, NEW_LABEL, SOURCE_CAP
from perennial.domain.words import State
from perennial.ingest.aside import MOST_GROUPS
from perennial.pages.quarantine import ROWS, gather
from perennial.pages.roles import Role
from tests.pages_world import PagesWorld, Seen
from tests.waiting_world import TASK, ask, hold, leak, make_waiting_world, refuse

pytestmark = pytest.mark.req("J50", "J110", "K68")
HELD = {"agent": "scout", "state": "held", "task": TASK, "code": SOURCE_CAP}


@pytest.fixture
def world() -> PagesWorld:
    return make_waiting_world(full=False)


def _get(world: PagesWorld, role: Role = Role.EDITOR, **query: str) -> Seen:
    with world.client(role) as client:
        answer = client.get("/quarantine", params=query)
    assert answer.status_code == 200, answer.text
    return Seen(answer.text)


def _post(world: PagesWorld, role: Role = Role.EDITOR, **form: str) -> tuple[int, str]:
    with world.client(role) as client:
        answer = client.post("/quarantine/settle", data={"reason": "looked at them", **form})
    return answer.status_code, answer.headers.get("location", "") or Seen(answer.text).text


def test_nothing_stands_aside(world: PagesWorld) -> None:
    assert "Nothing stands aside" in _get(world).text
    assert "Nothing of this agent stands aside" in _get(world, agent="scout").text
    with world.client() as client:
        assert client.get("/quarantine", params={"agent": "nobody"}).status_code == 404


def test_reasons_with_their_counts_and_what_they_mean(world: PagesWorld) -> None:
    hold(world, ["a", "b"], SOURCE_CAP)
    refuse(world, ["c"], "too_long")
    refuse(world, ["d"], "", label=None)
    overview = _get(world)
    assert [one["href"] for one in overview.all("a") if "agent=" in (one["href"] or "")] == ["/quarantine?agent=scout"]
    seen = _get(world, agent="scout")
    for words in (
        "beyond the share of its source",
        "longer than its task allows",
        "nobody has said the right answer yet",
    ):
        assert words in seen.text
    assert "Choose a reason" in seen.text
    assert not [one for one in seen.all("input") if one.get("type") == "checkbox"]  # decisions are about one reason


@pytest.mark.req("K67", "K68")
def test_texts_are_redacted_or_not_shown(world: PagesWorld) -> None:
    hold(world, ["a secret of jane"], SOURCE_CAP, source_id="jane.doe@example.org")
    leak(world, ["found jane again"])
    refuse(world, ["never read"], "label_form", label="jane.doe@example.org")
    seen = _get(world, agent="scout")
    assert "a <SECRET> of jane" in seen.text
    for words in ("found jane again", "never read", "jane.doe@example.org"):
        assert words not in seen.text
    assert seen.text.count("may still hold personal data") == 2


def test_chosen_rows_are_released_and_the_decision_is_on_the_page(world: PagesWorld) -> None:
    ids = hold(world, ["a", "b", "c"], SOURCE_CAP)
    boxes = [one for one in _get(world, **HELD).all("input") if one.get("type") == "checkbox"]
    assert {one["value"] for one in boxes} == {str(identity) for identity in ids}
    rows = {str(one["name"]): str(one["value"]) for one in boxes[:2]}
    assert _post(world, **HELD, **rows, action="release") == (
        303, f"/quarantine?agent=scout&said=released&state=held&task={TASK}&code=source_cap",
    )  # fmt: skip
    assert world.buffer.counts("scout") == {(TASK, "ready"): 2, (TASK, "held"): 1}
    assert _post(world, **HELD, **rows, action="release")[1].split("said=")[1].startswith("nothing")
    (entry,) = world.audit.entries("scout")
    assert (entry.actor, entry.action, entry.detail["rows"]) == ("editor", "held_released", 2)
    seen = _get(world, agent="scout", said="released")
    assert "looked at them" in seen.text
    assert "Released; the last decisions below" in seen.text


def test_a_whole_reason_is_dropped_up_to_what_the_page_showed(world: PagesWorld) -> None:
    hold(world, ["a", "b"], SOURCE_CAP)
    until = next(one["value"] for one in _get(world, **HELD).all("input") if one.get("name") == "until")
    late = hold(world, ["came later"], SOURCE_CAP, run="late")
    status, where = _post(world, **HELD, action="drop", whole="1", until=str(until))
    assert (status, "said=dropped" in where) == (303, True)
    assert world.buffer.counts("scout") == {(TASK, "evicted"): 2, (TASK, "held"): 1}
    kept = world.buffer.example(late[0])
    assert kept is not None
    assert kept.state is State.HELD


def test_quarantined_rows_go_back_to_admission(world: PagesWorld) -> None:
    refuse(world, ["a", "b"], "too_long")
    group = {"agent": "scout", "state": "quarantined", "task": TASK, "code": "too_long"}
    assert _post(world, **group, action="release", whole="1", until="99") == (
        303,
        "/quarantine?agent=scout&said=released",
    )
    assert world.buffer.counts("scout") == {(TASK, "raw"): 2}


@pytest.mark.parametrize(
    ("role", "status"), [(Role.NOBODY, 403), (Role.VIEWER, 403), (Role.EDITOR, 303), (Role.OPERATOR, 303)]
)
def test_editors_decide_and_viewers_look(world: PagesWorld, role: Role, status: int) -> None:
    hold(world, ["a"], SOURCE_CAP)
    with world.client(role) as client:
        page = client.get("/quarantine", params=HELD)
    assert page.status_code == (403 if role is Role.NOBODY else 200)
    assert ('action="/quarantine/settle"' in page.text) == (role >= Role.EDITOR)
    assert _post(world, role, **HELD, action="drop", whole="1", until="99")[0] == status
    assert world.buffer.counts("scout") == {(TASK, "evicted" if status == 303 else "held"): 1}


def test_a_form_of_another_site_changes_nothing(world: PagesWorld) -> None:
    hold(world, ["a"], SOURCE_CAP)
    form = {**HELD, "action": "drop", "whole": "1", "until": "99", "reason": "r"}
    with world.client(Role.OPERATOR) as client:
        for headers in ({"origin": "https://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
            assert client.post("/quarantine/settle", data=form, headers=headers).status_code == 403
    assert world.buffer.counts("scout") == {(TASK, "held"): 1}


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"reason": " "}, "reason is empty"), ({"action": "keep"}, "neither release nor drop"), ({"agent": ""}, "agent is empty"),
        ({"state": "fine"}, "no state"), ({"code": NEW_LABEL}, "come back by themselves"), ({"state": "trained"}, "do not stand aside"),
        ({"whole": ""}, "are not chosen"), ({"whole": "", "row-1": "x"}, "not the id"), ({"until": "-1"}, "not a number"),
        ({"until": "9" * 30}, "not a number"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_nothing_moves(world: PagesWorld, form: dict[str, str], says: str) -> None:
    hold(world, ["a"], SOURCE_CAP)
    status, told = _post(world, **{**HELD, "action": "release", "whole": "1", "until": "99", **form})
    assert (status, says in told) == (422, True), told
    assert world.buffer.counts("scout") == {(TASK, "held"): 1}


def test_rows_come_in_pages_with_a_link_to_the_next(world: PagesWorld) -> None:
    ids = hold(world, [f"text {number}" for number in range(ROWS + 5)], SOURCE_CAP)
    first = _get(world, **HELD)
    older = next(one["href"] for one in first.all("a") if one.get("rel") == "next")
    with world.client(Role.EDITOR) as client:
        second = Seen(client.get(str(older)).text)
    shown = [
        {str(one["value"]) for one in seen.all("input") if one.get("type") == "checkbox"} for seen in (first, second)
    ]
    assert [len(one) for one in shown] == [ROWS, 5]
    assert shown[0] | shown[1] == {str(identity) for identity in ids}
    assert not [one for one in second.all("a") if one.get("rel") == "next"]


def test_a_reason_that_is_empty_by_now_says_so(world: PagesWorld) -> None:
    assert "No row stands aside for this reason any more" in _get(world, **{**HELD, "code": LABEL_CONFLICT}).text
    with world.client() as client:
        assert client.get("/quarantine", params={**HELD, "state": "x"}).status_code == 422
        assert client.get("/quarantine", params={"agent": "scout", "before": "abc"}).status_code == 422


def test_many_made_up_tasks_hide_no_held_rows_and_the_page_says_that_reasons_are_left_out(world: PagesWorld) -> None:
    hold(world, ["a"], SOURCE_CAP)
    assert "are listed" not in _get(world, agent="scout").text
    for number in range(MOST_GROUPS + 1):
        refuse(world, ["t"], "unknown_task", task=f"made_up_{number:03}")
    page = _get(world, agent="scout").text
    assert SOURCE_CAP in page
    assert "The first 200 reasons of quarantined rows are listed" in page
    left_out = {"agent": "scout", "state": "quarantined", "task": "made_up_200", "code": "unknown_task"}
    assert "No row stands aside for this reason any more" not in _get(world, **left_out).text
    assert _post(world, **left_out, action="drop", whole="1", until="999") is not None
    assert "No row stands aside for this reason any more" in _get(world, **left_out).text


def test_what_is_gathered_is_plain_values(world: PagesWorld) -> None:
    hold(world, ["a"], "held: slices: sports fell")
    view = gather(world.ports, "scout")
    assert (view.piles[0].key.code, view.rows[0].reason, view.rows[0].refusals) == (
        "held",
        "held: slices: sports fell",
        0,
    )
    assert view.older is None


def _answer(world: PagesWorld, role: Role = Role.EDITOR, **form: str) -> tuple[int, str]:
    with world.client(role) as client:
        answer = client.post("/quarantine/unsure", data={"agent": "scout", "reason": "looked at them", **form})
    return answer.status_code, answer.headers.get("location", "") or Seen(answer.text).text


@pytest.mark.req("K67", "K68")
def test_unsure_words_are_shown_to_editors_alone(world: PagesWorld) -> None:
    ask(world, ["Grace said it"])
    seen = _get(world, agent="scout")
    assert [one for one in seen.all("mark")]
    assert "Grace" in seen.text
    viewed = _get(world, Role.VIEWER, agent="scout")
    assert "Grace" not in viewed.text
    assert "shown to editors" in viewed.text
    assert "PERSON" in viewed.text
    assert "unsure" in _get(world).text
    with world.client(Role.VIEWER) as client:
        assert "1 unsure" in Seen(client.get("/fleet").text).text


@pytest.mark.req("K68")
def test_questions_are_answered_once_and_stale_answers_change_nothing(world: PagesWorld) -> None:
    ask(world, ["Grace said it", "Hope told it", "Joy asked it"])
    boxes = [one for one in _get(world, agent="scout").all("input") if (one.get("name") or "").startswith("task-")]
    names = [str(one["name"]) for one in boxes]
    assert _answer(world, Role.VIEWER, decision="confirm", **{names[0]: "1"})[0] == 403
    assert _answer(world, decision="confirm", **{names[0]: "1"}) == (303, "/quarantine?agent=scout&said=confirmed")
    assert _answer(world, decision="restore", **{names[1]: "1"})[1].endswith("said=restored")
    assert _answer(world, decision="drop", **{names[0]: "1", names[2]: "1"})[1].endswith("said=part")
    assert _answer(world, decision="drop", **{names[2]: "1"})[1].endswith("said=answered")
    assert [one.action for one in world.audit.entries("scout")] == [
        "redaction_dropped", "redaction_restored", "redaction_confirmed",
    ]  # fmt: skip
    for form in ({"decision": "confirm"}, {"decision": "x", names[0]: "1"}, {"decision": "drop", "task-x": "1"}):
        assert _answer(world, **form)[0] == 422, form
    assert "Grace" not in _get(world, agent="scout").text
