"""Texts of people and machines stay texts: every payload in every such field of every page, parsed as a browser would."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any
from uuid import UUID
from xml.etree import ElementTree

import pytest

from perennial.domain.words import RolloutAction
from perennial.pages import explain, fleet, version
from perennial.pages.html import document, el, is_address, join, link
from perennial.pages.identity import User
from perennial.pages.layout import badge, code, frame, said
from perennial.pages.overview import PortsOverview
from perennial.pages.page import Asked
from perennial.pages.roles import Role
from tests.pages_world import NOW, PagesWorld, Seen, gate_report, make_pages_world
from tests.xss_payloads import PAYLOADS

pytestmark = pytest.mark.req("J50")
BENIGN = "a plain word"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{8}")


def _planted(text: str) -> PagesWorld:
    """A world in which every text that people or machines chose is ``text``."""
    world = make_pages_world(full=False, broken=text, owner=text)
    report = gate_report("pass", summary=text, label=text, reason=text)
    report["question"], report["not_measured"] = text, [text]
    report["tables"][0]["groups"]["stress"]["missing"] = text
    report["tables"][0]["slices"][0]["title"] = text
    report["tables"].append({"task": text, "kind": "classification", "rows": 1, "champion": None, "candidate": None, "slices": [],
                             "problems": [text]})  # fmt: skip
    for number in ("1.0.0", "1.0.1"):
        world.release(
            "scout",
            number,
            report=report,
            texts=[f"{text} {number} {place}" for place in range(3)],
            requested_by=text,
            note=text,
        )
        ids = [str(row.example.example_id) for row in world.buffer.state.rows][-3:]
        report["tables"][0]["changed_ids"] = {"fixed": ids[:1], "broken": ids[1:2]}
    for row in world.buffer.state.rows:
        row.label = text
    world.serve("scout", "1.0.0", actor=text or "x", reason=text or "x")
    number = world.canary("scout", "1.0.1")
    world.rollouts.look(number, action=RolloutAction.HOLD, reason=text, evidence={})
    world.rollouts.revert(number, reason=text, actor="perennial")
    job = UUID(str(world.ledger.versions("scout")[0].job_id))
    world.ledger._reports = [replace(one, action="approve") for one in world.ledger._reports]
    digest = world.ledger._reports[-1].content_digest
    world.ledger.add_approval(
        agent="scout", job_id=job, content_digest=digest, decision="approve", actor=text.strip() or "x", comment=text
    )
    world.links.update(run_url=text)
    return world


def _asked(text: str) -> Asked:
    user = User(id=text, name=text, standing=Role.OPERATOR)
    return Asked(
        user=user, role=Role.OPERATOR, base="/perennial", now=NOW, query={"version": text, "at": text, "agent": text}
    )


def _shown(text: str, subject: str = "1.0.1") -> dict[str, str]:
    """Every page with the text everywhere; what is found by an address is asked for directly."""
    world, asked = _planted(text), _asked(text)
    overview = PortsOverview(world.ports)
    mains = {
        "fleet": fleet.render(fleet.gather(world.ports, overview, world.dags), asked),
        "version": version.render(version.gather(world.ports, overview, agent="scout", subject=subject), asked),
        "explain": explain.render(explain.gather(world.ports, agent="scout", at="14:02:30", now=NOW), asked),
        "parts": join(
            said(text), badge(text), code(text, short=8), link(text, text), link("x", f"http://x.example/{text}")
        ),
    }
    return {
        name: frame(asked, title=text, main=main, notice=text).decode("utf-8", "replace")
        for name, main in mains.items()
    }


Shape = list[tuple[str, tuple[str, ...]]]


def _structure(seen: Seen) -> Shape:
    return [(tag, tuple(sorted(attributes))) for tag, attributes in seen.elements]


@pytest.fixture(scope="module")
def benign() -> dict[str, Shape]:
    return {page: _structure(Seen(markup)) for page, markup in _shown(BENIGN).items()}


def test_there_are_enough_payloads() -> None:
    assert len(PAYLOADS) >= 150


@pytest.mark.parametrize("part", range(10))
def test_every_payload_is_inert_on_every_page(benign: dict[str, Shape], part: int) -> None:
    for payload in PAYLOADS[part::10]:
        for page, markup in _shown(payload).items():
            seen = Seen(markup)
            if page != "parts":
                assert _structure(seen) == benign[page], (page, payload)
            for tag, attributes in seen.elements:
                assert tag not in {"img", "iframe", "object", "embed", "base", "style"}, (page, payload)
                assert not [
                    name for name in attributes if name.startswith("on") or name in {"style", "srcdoc", "formaction"}
                ]
                for name in ("href", "src", "action"):
                    if name in attributes:
                        assert is_address(attributes[name] or ""), (page, payload, attributes)


def test_payloads_are_inert_on_a_version_that_served() -> None:
    plain = _structure(Seen(_shown(BENIGN, "1.0.0")["version"]))
    for payload in PAYLOADS[::20]:
        assert _structure(Seen(_shown(payload, "1.0.0")["version"])) == plain


def test_the_payloads_did_reach_the_pages() -> None:
    payload = "<script>alert(1)</script>"
    for page, markup in _shown(payload).items():
        assert markup.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 5 or page in {"parts"}, page
        assert payload in Seen(markup).text
        assert payload not in markup


def test_pages_are_well_formed() -> None:
    """Every element that opens closes: read once more by a parser that forgives nothing."""
    for markup in _shown(BENIGN).values():
        text = re.sub(
            r"<(meta|link|br|hr|input)((?: [\w-]+(?:=\"[^\"]*\")?)*)>",
            r"<\1\2/>",
            markup.removeprefix("<!doctype html>"),
        )
        text = re.sub(r" (defer|required|selected|data-sortable|data-leave|open)(?=[ />])", r' \1=""', text)
        ElementTree.fromstring(text)


@pytest.mark.parametrize("payload", PAYLOADS[:40])
def test_the_builder_has_no_way_around(payload: str) -> None:
    for attempt in (
        lambda: el(payload, "x"),
        lambda: el("p", **{payload: "x"}),
        lambda: el("a", href=f"javascript:{payload}"),
        lambda: el("script", payload),
        lambda: el("script", payload, src="/x"),
        lambda: el("p", onclick=payload),
        lambda: el("p", style=payload),
    ):
        with pytest.raises(ValueError, match=r"no element|no attribute|no address|file of this site"):
            attempt()
    made = document(el("p", payload, title=payload)).decode()
    assert [tag for tag, _ in Seen(made).elements] == ["p"]


def test_markup_cannot_be_made_elsewhere() -> None:
    from perennial.pages.html import Html

    with pytest.raises(TypeError, match="builder alone"):
        Html(object(), "<b>")
    shown: Any = el("p", str(el("em", "x")))
    assert str(shown) == "<p>&lt;em&gt;x&lt;/em&gt;</p>"
    assert document(el("p", "\ud83d<script>\x00")) == "<!doctype html>\n<p>\ufffd&lt;script&gt;\ufffd</p>\n".encode()
