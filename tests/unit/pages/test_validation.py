"""The page of validations: counts and row ids, screening, gaps between groups."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from perennial.domain.words import JobStatus
from perennial.pages.roles import Role
from perennial.pages.validation import gather, gather_agent
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
