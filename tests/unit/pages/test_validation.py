"""The page of validations: counts and row ids, screening, gaps between groups."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from perennial.domain.words import JobStatus
from perennial.pages.roles import Role
from perennial.pages.validation import gather, gather_agent, gather_all
from tests.pages_world import PagesWorld, Seen
from tests.waiting_world import make_waiting_world, validated

pytestmark = pytest.mark.req("J50", "K35")


@pytest.fixture
def world() -> PagesWorld:
    return make_waiting_world()


def _get(world: PagesWorld, **query: str) -> Seen:
    with world.client(Role.VIEWER) as client:
        answer = client.get("/validation", params=query)
    assert answer.status_code == 200, answer.text
    return Seen(answer.text)


def test_nothing_was_validated_yet() -> None:
    empty = make_waiting_world(full=False)
    assert "Nothing was validated yet" in _get(empty).text
    assert "Nothing was validated yet" in _get(empty, agent="scout").text


def test_jobs_are_listed_by_agent_with_what_did_not_hold(world: PagesWorld) -> None:
    good, bad = validated(world), validated(world, "second", broken=True)
    lines = gather_agent(world.ports, "scout")
    assert [(one.job_id, one.passed, one.broken) for one in lines] == [
        (bad, False, ("topic: text_repeats",)),
        (good, True, ()),
    ]
    assert "stopped the run" in _get(world).text
    seen = _get(world, agent="scout")
    assert "topic: text_repeats" in seen.text
    assert f"/validation?agent=scout&job={good}" in {one["href"] for one in seen.all("a")}


def _stored(
    world: PagesWorld, tasks: int, *, broken: int | None = None, attempt: int = 1, job: UUID | None = None
) -> UUID:
    """What the validation of a job with so many tasks leaves; the task number ``broken`` stops it."""
    job = job or uuid4()
    for number in range(tasks):
        report = {"rows": 10, "checks": [{"name": "label_known", "success": number != broken}]}
        world.ledger.add_validation(
            agent="scout", job_id=job, attempt=attempt, task=f"t{number:02d}", success=number != broken, report=report
        )
    return job


@pytest.mark.parametrize("tasks", [9, 10, 11, 12, 59, 60, 61, 200])
def test_a_job_with_many_tasks_is_never_called_passed_when_its_first_one_stopped_it(tasks: int) -> None:
    world = make_waiting_world(full=False)
    job = _stored(world, tasks, broken=0)
    (overall,), (listed,) = gather_all(world.ports), gather_agent(world.ports, "scout")
    assert overall == listed
    assert (listed.job_id, listed.passed, listed.rows, len(listed.tasks)) == (job, False, 10 * tasks, tasks)
    assert listed.broken == ("t00: label_known",)
    assert "stopped the run" in _get(world).text


def test_the_oldest_job_of_a_full_list_is_whole_or_not_listed() -> None:
    world = make_waiting_world(full=False)
    jobs = [_stored(world, 7, broken=None if number else 0) for number in range(9)]  # the first one was stopped
    found = gather_agent(world.ports, "scout")
    assert [one.job_id for one in found] == jobs[:0:-1]
    assert {(one.passed, one.rows, len(one.tasks)) for one in found} == {(True, 70, 7)}


def test_an_attempt_that_the_list_cuts_takes_no_newer_attempt_along() -> None:
    world = make_waiting_world(full=False)
    job = _stored(world, 40, broken=0)
    _stored(world, 12)
    _stored(world, 40, attempt=2, job=job)
    (line, _) = gather_agent(world.ports, "scout")
    assert (line.job_id, line.attempt, line.passed, len(line.tasks)) == (job, 2, True, 40)


def test_a_job_shows_every_expectation_with_counts_and_ids(world: PagesWorld) -> None:
    job = validated(world, broken=True, note="stopped")
    seen = _get(world, agent="scout", job=str(job))
    for words in ("texts do not repeat more than a few may", "text_repeats", "19.4 %", str(UUID(int=13)), "0.41", "What stopped it",
                  "the batch broke 1 expectation", "did not reach its screening"):  # fmt: skip
        assert words in seen.text, words
    text = seen.text
    assert text.index("text_repeats") < text.index(
        "text_present", text.index("Rows that break it")
    )  # what broke comes first
    assert world.buffer.job(job).status is JobStatus.FAILED


@pytest.mark.req("J49", "K24")
def test_the_screening_of_a_job_is_told_in_counts_and_aliases(world: PagesWorld) -> None:
    seen = _get(world, agent="scout", job=str(validated(world)))
    for words in ("72 of 100 rows were trained on", "source_cap", "beyond the share of its source", "0442f206da", "And 4 smaller ones",
                  "Let through by a person: 1.", "not measured on: 3."):  # fmt: skip
        assert words in seen.text, words


def test_a_version_leads_to_the_validation_of_its_job(world: PagesWorld) -> None:
    release = world.ledger.version("scout", "1.0.1")
    assert release is not None
    assert release.job_id is not None
    report = {"task": "topic", "success": True, "rows": 3, "checks": []}
    world.ledger.add_validation(
        agent="scout", job_id=release.job_id, attempt=1, task="topic", success=True, report=report
    )
    seen = _get(world, agent="scout", version="1.0.1")
    assert "/version?agent=scout&version=1.0.1" in {one["href"] for one in seen.all("a")}
    view = gather(world.ports, "scout", release.job_id)
    assert (view.version, view.results[0].rows) == ("1.0.1", 3)


def test_how_evenly_groups_are_served_and_what_was_not_measured(world: PagesWorld) -> None:
    seen = _get(world, agent="scout", version="1.0.1")
    assert "Evenness" in seen.text
    assert "fewer than two groups have enough rows" in seen.text
    assert "no gate report is stored" in _get(world, agent="scout", job=str(validated(world))).text


def test_what_is_not_there_is_said(world: PagesWorld) -> None:
    job = validated(world)
    with world.client(Role.VIEWER) as client:
        for query, status in (
            ({"agent": "nobody"}, 404), ({"agent": "scout", "job": str(uuid4())}, 404), ({"agent": "desk", "job": str(job)}, 404),
            ({"agent": "scout", "job": "x"}, 422), ({"agent": "scout", "version": "9.9.9"}, 404),
        ):  # fmt: skip
            assert client.get("/validation", params=query).status_code == status, query
    with world.client(Role.NOBODY) as client:
        assert client.get("/validation").status_code == 403
