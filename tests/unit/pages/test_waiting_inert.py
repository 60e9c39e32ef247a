"""Texts on the pages of rollouts, validations and the quarantine are texts, whatever they look like."""

from __future__ import annotations

import re
from collections.abc import Sequence
from uuid import UUID

import pytest

from perennial.domain.origin import SOURCE_CAP
from perennial.domain.words import Parked, RolloutAction
from perennial.pages.app import PAGES
from perennial.pages.html import text as as_text
from perennial.pages.identity import User
from perennial.pages.layout import frame
from perennial.pages.page import Asked
from perennial.pages.roles import Role
from tests.pages_world import PagesWorld, Seen, gate_report
from tests.waiting_world import ask, hold, make_waiting_world, refuse, validated
from tests.xss_payloads import PAYLOADS

pytestmark = pytest.mark.req("J50")

EVENTS = ("onerror", "onload", "ontoggle", "onfocus", "onclick")


_SHOWS = {page.path: page for page in PAGES}


def _markup_of(world: PagesWorld, path: str, **query: str) -> str:
    """The page as an operator gets it, without the way through HTTP: that is the same for every text."""
    asked = Asked(
        user=User(id="operator", name="Ms Operator"), role=Role.OPERATOR, base="", now=world.clock(), query=query
    )
    page = _SHOWS[path]
    return frame(asked, title=page.title, main=page.show(world.site, asked), pages=PAGES, here=path).decode()


def _shape(markup: str) -> list[str]:
    """The tags of a page without the values of their attributes: what a text can never change."""
    tags: list[str] = re.findall("<[^<>]*>", markup)
    assert markup.count("<") == markup.count(">") == len(tags)
    return [re.sub('"[^"<>]*"', '""', tag) for tag in tags]


def _inert(markup: str) -> None:
    """What a browser would make of it holds no code."""
    seen = Seen(markup)
    for name, attributes in seen.elements:
        assert name not in {"iframe", "object", "embed", "img", "math", "style", "base"}
        assert not set(attributes) & set(EVENTS)
        for key in ("href", "src", "action"):
            assert not (attributes.get(key) or "").lower().startswith(("javascript", "data", "//"))
    assert {one["src"] for one in seen.all("script")} <= {"/static/pages.js", "/static/live.js"}


CHUNK = 10  # of the payloads on one page: as many as it shows of what is listed


def _pages(texts: Sequence[str]) -> dict[str, str]:
    """Every page of ours with the texts in every field that a person or a sender can write."""
    world, whole = make_waiting_world(), " ".join(texts)
    row = world.rollouts.latest("scout")
    assert row is not None
    world.rollouts.park(row.id, Parked.ASK, whole)
    for number, text in enumerate(texts):
        world.rollouts.look(row.id, action=RolloutAction.ASK, reason=text, evidence={})
        hold(world, [text], SOURCE_CAP, run=f"cap-{number}", label=text, source_id=text)
        hold(world, [f"{text} again"], f"held: {text}", run=f"refused-{number}")
        told = {"why": text, "reason_code": text, "rows": 1}
        world.audit.append(actor=text, action="held_dropped", agent="scout", subject=text, detail=told)
    refuse(world, [f"{text} too" for text in texts], "", label=None)
    ask(world, [f"{text} is unsure" for text in texts])
    stopped = validated(world, broken=True, tasks=texts, note=whole)
    done = validated(world, "screened", tasks=texts, sender=whole, note=whole)
    report = gate_report()
    (table,) = report["tables"]
    (line, *_) = table["slices"]
    report["tables"] = [
        {**table, "task": text, "slices": [{**line, "name": text}, {**line, "name": f"{text} 2", "candidate": 0.5}]} for text in texts
    ]  # fmt: skip
    world.ledger.add_gate_report(
        agent="scout", job_id=done, attempt=1, content_digest="d", action="pass", report=report
    )
    held = {"agent": "scout", "state": "held", "task": "topic"}
    return {
        "rollouts": _markup_of(world, "/rollout"), "rollout": _markup_of(world, "/rollout", agent="scout"),
        "validations": _markup_of(world, "/validation"), "jobs": _markup_of(world, "/validation", agent="scout"),
        "stopped": _markup_of(world, "/validation", agent="scout", job=str(stopped)),
        "screened": _markup_of(world, "/validation", agent="scout", job=str(done)),
        "quarantines": _markup_of(world, "/quarantine"), "quarantine": _markup_of(world, "/quarantine", agent="scout"),
        "group": _markup_of(world, "/quarantine", **held, code=SOURCE_CAP),
        "refused": _markup_of(world, "/quarantine", **held, code="held"),
    }  # fmt: skip


SHOWN = ("rollout", "jobs", "stopped", "screened", "quarantine", "group", "refused")


def test_150_payloads_in_every_field_change_no_page() -> None:
    assert len(PAYLOADS) >= 150
    plain = {path: _shape(markup) for path, markup in _pages([f"harmless {number}" for number in range(CHUNK)]).items()}
    for first in range(0, len(PAYLOADS), CHUNK):
        texts = PAYLOADS[min(first, len(PAYLOADS) - CHUNK) :][:CHUNK]
        for path, markup in _pages(texts).items():
            assert _shape(markup) == plain[path], (path, texts)
            if path in SHOWN:
                assert all(as_text(one) in markup for one in texts), path
            if first % (4 * CHUNK) == 0:
                _inert(markup)


def test_texts_of_a_request_are_never_shown() -> None:
    with make_waiting_world().client(Role.OPERATOR) as client:
        for payload in PAYLOADS[::11]:
            for path in ("/rollout", "/validation", "/quarantine"):
                for query in ({"agent": payload}, {"agent": "scout", "said": payload}, {"agent": "scout", "id": payload, "job": payload},
                              {"agent": "scout", "state": "held", "task": payload, "code": payload}):  # fmt: skip
                    _inert(client.get(path, params=query).text)
            for path in ("/rollout/abort", "/rollout/promote", "/quarantine/settle", "/quarantine/unsure"):
                form = {
                    "decision": payload,
                    "agent": payload,
                    "version": payload,
                    "state": payload,
                    "action": payload,
                    "reason": payload,
                }
                _inert(client.post(path, data=form).text)


def test_names_of_examples_are_ids_alone() -> None:
    world = make_waiting_world()
    ids = hold(world, ["a"], SOURCE_CAP)
    markup = _markup_of(world, "/quarantine", agent="scout", state="held", task="topic", code=SOURCE_CAP)
    assert UUID(str(next(one["value"] for one in Seen(markup).all("input") if one.get("type") == "checkbox"))) == ids[0]
