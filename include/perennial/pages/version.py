"""The page Version: one version, or one refused candidate, with everything that speaks for and against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from perennial.errors import UnknownAgent
from perennial.flows.explain import Explanation, Period, Rolled, Trained, explain
from perennial.flows.ports import Ports
from perennial.flows.questions import open_questions
from perennial.flows.rollback import rollback_agent
from perennial.pages.charts import Point, trend
from perennial.pages.gate_report import gaps_section, gates_table, task_sections, unmeasured, verdict_badge
from perennial.pages.html import Child, Html, el, join, link
from perennial.pages.layout import (
    Cell,
    Column,
    badge,
    code,
    count,
    facts,
    heading,
    more,
    post,
    said,
    section,
    share,
    table,
    when,
    why,
)
from perennial.pages.overview import Overview, Score, Verdict, VersionLine
from perennial.pages.page import Action, Asked, Page, Site
from perennial.pages.roles import Role
from perennial.settings import without_login

LISTED = 40  # versions and verdicts of the lists at the end
SAMPLE = 12  # examples of which the page shows the redacted text
LONGEST = 240  # characters of such a text


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One example as people may see it: its redacted text, or why there is none."""

    example_id: UUID
    task: str
    what: str  # fixed, broken, or how it took part
    label: str = ""
    text: str | None = None
    priority: int | None = None
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionView:
    """The page in plain values. ``subject`` is a version or a job's id; None: the agent has neither."""

    agent: str
    subject: str | None
    agents: tuple[str, ...]
    explanation: Explanation | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    judged_at: datetime | None = None
    question: str = ""  # what waits for a person, when it does
    changed: tuple[Shown, ...] = ()
    learned: tuple[Shown, ...] = ()
    versions: tuple[VersionLine, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    trend: tuple[Score, ...] = ()
    champion: str | None = None
    mlflow: Mapping[str, str] = field(default_factory=dict)


def gather(
    ports: Ports, overview: Overview, *, agent: str = "", subject: str = "", dag: str = "", run: str = ""
) -> VersionView:
    """What is on record; ``dag`` and ``run`` name an Airflow DAG or run that trained or rolled out, and find the rest.

    Raises RegistryError when the subject is unknown, UnknownAgent when no file and no release knows the agent.
    """
    agents = tuple(sorted({*ports.fleet().names, *ports.ledger.agents()}))
    if dag:
        agent, subject = _of_run(ports, dag, run)
        agent = agent if agent in agents else ""  # a DAG that is none of ours has this tab too
    if not agent:
        return VersionView(agent="", subject=None, agents=agents)
    if agent not in agents:
        raise UnknownAgent(agent, list(agents))
    versions, verdicts = overview.versions(agent, LISTED), overview.verdicts(agent, LISTED)
    standing = overview.standings([agent])[agent]
    chosen = subject or standing.champion or (versions[0].version if versions else "")
    if not chosen and verdicts:
        chosen = str(verdicts[0].job_id)
    view: dict[str, Any] = {
        "agent": agent, "agents": agents, "versions": versions, "verdicts": verdicts, "champion": standing.champion,
        "trend": standing.trend,
    }  # fmt: skip
    if not chosen:
        return VersionView(subject=None, **view)
    return _of_subject(ports, agent, chosen, view)


def _of_subject(ports: Ports, agent: str, chosen: str, view: dict[str, Any]) -> VersionView:
    found = explain(ports, agent, chosen, check_files=False)
    job = UUID(found.trigger.job_id) if found.trigger is not None and found.trigger.job_id else None
    stored = ports.ledger.gate_report(job) if job is not None else None
    report = stored.report if stored is not None else {}
    # of an agent without a file nobody can be asked any more
    asked = open_questions(ports, job_id=job) if job is not None and agent in ports.fleet().names else ()
    release = ports.ledger.version(agent, found.version) if found.version is not None else None
    return VersionView(
        subject=found.version or chosen, explanation=found, report=report,
        judged_at=stored.created_at if stored is not None else None,
        question=f"a person is asked whether this becomes {asked[0].version}" if asked and found.version is None else "",
        changed=_changed(ports, report), learned=_learned(ports, found.trained),
        mlflow=mlflow_links(ports.settings.mlflow_url, agent, release.mlflow_run_id if release is not None else None), **view,
    )  # fmt: skip


def _of_run(ports: Ports, dag_id: str, run: str) -> tuple[str, str]:
    """Agent and subject of an Airflow run of ``train_<agent>`` or ``rollout_<agent>``."""
    kind, _, agent = dag_id.partition("_")
    if not run:
        return agent, ""
    if kind == "rollout":
        row = ports.rollouts.of_run(agent, run)
        return agent, row.version if row is not None else ""
    if kind != "train":
        return "", ""
    job = ports.buffer.job_of_run(agent, run)
    if job is None:
        return agent, ""
    if job.version:
        return job.agent, job.version
    judged = ports.ledger.gate_report(job.job_id) is not None
    return job.agent, str(job.job_id) if judged else ""


def mlflow_links(url: str, agent: str, run_id: str | None) -> dict[str, str]:
    """Where MLflow shows a model and the run that made it; made from ids on record, so MLflow is not asked.

    >>> mlflow_links("http://127.0.0.1:5500/", "scout", None)
    {'Model in MLflow': 'http://127.0.0.1:5500/#/models/scout'}
    """
    base = without_login(url).rstrip("/")
    found = {"Model in MLflow": f"{base}/#/models/{quote(agent, safe='')}"}
    if run_id:
        found["Run in MLflow"] = f"{base}/#/runs/{quote(run_id, safe='')}"
    return found


def _changed(ports: Ports, report: Mapping[str, Any]) -> tuple[Shown, ...]:
    wanted = [
        (UUID(identity), table_["task"], what)
        for table_ in report.get("tables", ()) for what in ("broken", "fixed")
        for identity in (table_.get("changed_ids") or {}).get(what, ())
    ]  # fmt: skip
    return _texts(ports, wanted)


def _learned(ports: Ports, trained: Sequence[Trained]) -> tuple[Shown, ...]:
    wanted = [(UUID(identity), one.task, "new") for one in trained for identity in one.ids.get("new", ())[:SAMPLE]]
    return _texts(ports, wanted[: 2 * SAMPLE])


def _texts(ports: Ports, wanted: Sequence[tuple[UUID, str, str]]) -> tuple[Shown, ...]:
    """The texts of the buffer, which are redacted before they get there; one that was taken away is said to be."""
    known = ports.buffer.rows_by_id([identity for identity, _, _ in wanted]) if wanted else {}
    found = []
    for identity, task, what in wanted:
        row = known.get(identity)
        given = row.row if row is not None else None
        found.append(
            Shown(
                example_id=identity, task=task, what=what, label=str(given.label) if given is not None else "",
                text=given.text[:LONGEST] if given is not None else None, priority=row.priority if row is not None else None,
                source=row.source if row is not None else "",
            )
        )  # fmt: skip
    return tuple(found)


# --- markup -----------------------------------------------------------------------------------------------------------------


def render(view: VersionView, asked: Asked) -> Html:
    """Choice, then what the version is, what judged it, what made it, what became of it, and its sisters."""
    if not view.agent:
        return join(heading("Version", "Choose an agent.", side=_choose(view, asked)), _agents(view, asked))
    title = join(view.agent, " ", view.subject or "") if view.explanation is None else _title(view)
    found = view.explanation
    if found is None:
        return join(
            heading(title, "Nothing was trained yet.", side=_choose(view, asked)),
            _verdicts(view, asked),
            _versions(view, asked),
        )
    return join(
        heading(title, said(found.outcome), side=_choose(view, asked)),
        el("div", _standing(view, found, asked), _origin(view, found, asked), class_="grid"),
        _trend(view),
        _gates(view, asked),
        task_sections(view.report),
        gaps_section(view.report) if view.report else None,
        unmeasured(view.report) if view.report else None,
        _changes(view),
        _made_from(view, found),
        _rollouts(found, asked),
        _periods(found.periods, asked),
        _verdicts(view, asked),
        _versions(view, asked),
    )


def _title(view: VersionView) -> Html:
    assert view.explanation is not None
    if view.explanation.version is None:
        return join(view.agent, " ", el("span", "candidate ", code(view.subject, short=8)))
    return join(view.agent, " ", view.explanation.version)


def _choose(view: VersionView, asked: Asked) -> Html:
    names = [el("option", name, value=name, selected=name == view.agent) for name in view.agents]
    return el(
        "form",
        el("div", el("label", "Agent", for_="agent"), el("select", names, id="agent", name="agent"), class_="field"),
        el(
            "div",
            el("label", "Version or job", for_="version"),
            el("input", id="version", name="version", type="text", value=asked.query.get("version", ""), maxlength=80),
            class_="field",
        ),
        el("button", "Show", type="submit"),
        method="get",
        action=asked.to("/version"),
        class_="ask",
    )


def _agents(view: VersionView, asked: Asked) -> Html:
    columns = (Column(title="Agent"),)
    rows = [(el("a", name, href=asked.to("/version", agent=name)),) for name in view.agents]
    return section("Agents", table("Agents", columns, rows, empty="No agent yet. Add a file to include/fleet."))


def _standing(view: VersionView, found: Explanation, asked: Asked) -> Html:
    pairs: list[tuple[str, Child]] = [("Verdict", _decided(view, found))]
    if found.version is not None:
        pairs += [
            ("Released", when(found.released_at, asked.now)),
            ("Bundle", code(found.digest, short=16)),
            ("Candidate bytes", code(found.content_digest, short=16)),
            ("Signature", said(found.signature)),
        ]
    pairs += [("Approval", _approval(view, found, asked))]
    links = [
        link(name, url, data_leave=True, rel="noopener") for name, url in view.mlflow.items()
    ]  # fmt: skip
    pairs.append(
        ("MLflow", join(*(join(one, " · " if number < len(links) - 1 else None) for number, one in enumerate(links))))
    )
    checks = asked.to("/validation", agent=view.agent, version=found.version)
    pairs.append(("Checks of its batch", el("a", "Validation", href=checks)))
    back = _back(view, found, asked)
    return section("What it is", facts(pairs), back)


def _decided(view: VersionView, found: Explanation) -> Html:
    if not found.gate_action:
        return badge("no gate report", "warn")
    return join(verdict_badge(found.gate_action), " ", said(found.gate_summary))


def _approval(view: VersionView, found: Explanation, asked: Asked) -> Html:
    decisions = join(
        *(
            el("div", badge(one.decision, "good" if one.decision == "approve" else "bad"), " ", said(one.actor), " ",
               when(one.at, asked.now), said(f": {one.comment}") if one.comment else None)
            for one in found.decisions
        )
    )  # fmt: skip
    if view.question:
        required = el("a", "Answer in Airflow", href=asked.airflow("/required_actions"), data_leave=True)
        return join(decisions, badge("waits", "warn"), " ", view.question, ". ", required)
    if found.decisions:
        return decisions
    return badge("needed, none given", "warn") if found.approval_needed else el("span", "not needed", class_="none")


def _back(view: VersionView, found: Explanation, asked: Asked) -> Html | None:
    """The way back: an operator serves an earlier version again, in one step and with a reason."""
    served = any(period.alias == "champion" for period in found.periods)
    if found.version is None or found.version == view.champion or not served or not asked.may(Role.OPERATOR):
        return None
    form = post(
        asked.to("/version/rollback"), why("why-back"), button=f"Serve {found.version} again", tone="danger",
        hidden={"agent": view.agent, "version": found.version},
    )  # fmt: skip
    return more("Roll back to this version …", form)


def _origin(view: VersionView, found: Explanation, asked: Asked) -> Html:
    trigger = found.trigger
    if trigger is None:
        return section("Where it came from", el("p", "Nothing is on record.", class_="empty"))
    run = f"/dags/train_{quote(view.agent, safe='')}/runs/{quote(trigger.run_id, safe='')}" if trigger.run_id else ""
    pairs: list[tuple[str, Child]] = [
        ("Why it trained", join(badge(trigger.reason or "unknown", "info"), " ", trigger.mode, " forced" if trigger.forced else None)),
        ("Asked for by", said(trigger.requested_by) if trigger.requested_by else "a machine"),
        ("Job", code(trigger.job_id, short=13)),
        ("Run", link(said(trigger.run_id), asked.airflow(run), data_leave=True) if run else "–"),
        ("Trained", join(when(trigger.started_at, asked.now), _took(trigger.started_at, trigger.completed_at))),
        ("Outcome", join(badge(trigger.status or "unknown"), " ", said(trigger.note))),
    ]  # fmt: skip
    if trigger.missing:
        pairs.append(("Missing", said(trigger.missing)))
    base = next((one.base for one in found.trained if one.base), None)
    if base:
        pairs.append(("Based on", el("a", base, href=asked.to("/version", agent=view.agent, version=base))))
    pairs.append(("Explain", el("a", "What served when", href=asked.to("/explain", agent=view.agent))))
    return section("Where it came from", facts(pairs))


def _took(started: datetime | None, ended: datetime | None) -> str | None:
    return f", took {(ended - started).total_seconds():.0f} s" if started is not None and ended is not None else None


def _trend(view: VersionView) -> Html | None:
    if sum(one.score is not None for one in view.trend) < 2:
        return None
    here = view.subject or ""
    tables = view.report.get("tables", ())
    bounds = _bounds(tables) if len(tables) == 1 else (None, None)
    chosen = [
        Point(
            label=one.version or "refused", value=one.score, marked=one.refused or one.version is None,
            low=bounds[0] if one.version == here else None, high=bounds[1] if one.version == here else None,
        )
        for one in view.trend
    ]  # fmt: skip
    rows = [
        (one.version or "refused", share(one.score), Cell(shown=badge("refused", "bad") if one.refused else badge("passed", "good"),
                                                          key=int(one.refused)))
        for one in reversed(view.trend)
    ]  # fmt: skip
    columns = (Column(title="Candidate"), Column(title="Score", number=True), Column(title="Outcome"))
    return section(
        "Trend",
        trend(chosen, title=f"Score of {view.agent} over its last candidates"),
        more("As a table", table("Score of the last candidates", columns, rows)),
        note="Mean score of each candidate on its own holdout. A red dot was refused or rolled back.",
    )


def _bounds(tables: Sequence[Mapping[str, Any]]) -> tuple[float | None, float | None]:
    """The interval of the candidate's own score: the champion's plus that of the difference."""
    one = tables[0]
    if one.get("champion") is None or "low" not in one:
        return None, None
    return one["champion"] + one["low"], one["champion"] + one["high"]


def _gates(view: VersionView, asked: Asked) -> Html:
    if not view.report:
        return section("Gate report", el("p", "No gate report is on record.", class_="empty"))
    lead = join(
        verdict_badge(str(view.report.get("action", ""))), " judged ", when(view.judged_at, asked.now),
        el("div", said(view.report.get("question"))) if view.report.get("question") else None,
    )  # fmt: skip
    return section("Gate report", gates_table(view.report), note=lead)


def _changes(view: VersionView) -> Html | None:
    counted = [
        (str(one["task"]), one["changes"]) for one in view.report.get("tables", ()) if one.get("changes")
    ]  # fmt: skip
    if not counted:
        return None
    told = [
        el("p", el("strong", said(task)), ": ", badge(f"{found['fixed']} fixed", "good"), " ", badge(f"{found['broken']} broken", "bad"),
           " ", badge(f"{found['same']} as before"))
        for task, found in counted
    ]  # fmt: skip
    return section(
        "What changed",
        told,
        _texts_table("Holdout rows that the candidate answers otherwise", view.changed, empty="No row is listed."),
        note="Rows of the holdout that only one of the two models answers right. Texts are redacted.",
    )


def _texts_table(caption: str, shown: Sequence[Shown], *, empty: str) -> Html:
    tones = {"fixed": "good", "broken": "bad"}
    columns = (
        Column(title="Example"),
        Column(title="Task"),
        Column(title="What"),
        Column(title="Label"),
        Column(title="Redacted text"),
    )
    rows = [
        (code(str(one.example_id), short=-8), said(one.task), badge(one.what, tones.get(one.what, "quiet")), said(one.label),
         said(one.text) if one.text is not None else el("span", "its text is gone", class_="none"))
        for one in shown
    ]  # fmt: skip
    return el("div", table(caption, columns, rows, empty=empty), class_="texts")


def _made_from(view: VersionView, found: Explanation) -> Html:
    columns = (
        Column(title="Task"), Column(title="How"), Column(title="Base"), Column(title="New", number=True),
        Column(title="Replayed", number=True), Column(title="Holdout", number=True), Column(title="Sources"),
        Column(title="Priorities"),
    )  # fmt: skip
    rows = [
        (said(one.task), one.how, one.base or "–", count(one.new), count(one.replay), count(one.holdout),
         said(_counted(one.sources)), _counted(one.priorities))
        for one in found.trained
    ]  # fmt: skip
    return section(
        "What it was made from",
        table("Examples by task", columns, rows, empty="No examples are on record."),
        more(
            "Some of the new examples, redacted", _texts_table("New examples", view.learned, empty="None is on record.")
        )
        if view.learned
        else None,
    )


def _counted(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {number}" for name, number in numbers.items()) or "–"


def _rollouts(found: Explanation, asked: Asked) -> Html | None:
    if not found.rollouts:
        return None
    columns = (Column(title="Rollout"), Column(title="State"), Column(title="Began"), Column(title="Steps"), Column(title="Reason"),
               Column(title="What was seen"))  # fmt: skip
    rows = [
        (str(one.id), badge(one.state, "bad" if one.state == "reverted" else "info"), when(one.started_at, asked.now),
         " → ".join(share(step, 0) for step in one.steps), said(one.reason), _looks(one, asked))
        for one in found.rollouts
    ]  # fmt: skip
    return section("Rollouts", table("Rollouts of this version", columns, rows))


def _looks(one: Rolled, asked: Asked) -> Html:
    if not one.looks:
        return el("span", "nothing yet", class_="none")
    shown = [
        el("li", when(look.at, asked.now), f" {look.state} {look.step + 1}: {look.action}. ", said(look.reason)) for look in one.looks
    ]  # fmt: skip
    return more(f"{len(shown)} look{'' if len(shown) == 1 else 's'}", el("ul", shown))


def _periods(periods: Sequence[Period], asked: Asked) -> Html | None:
    if not periods:
        return None
    columns = (
        Column(title="As"),
        Column(title="From"),
        Column(title="Until"),
        Column(title="By"),
        Column(title="Why"),
        Column(title="Shares"),
    )
    rows = [
        (badge(one.alias, "good" if one.alias == "champion" else "busy"), when(one.since, asked.now),
         when(one.until, asked.now) if one.until else badge("now", "info"), said(one.actor), said(one.reason),
         ", ".join(share(part, 0) for _, part in one.shares) or "–")
        for one in periods
    ]  # fmt: skip
    return section("When it served", table("Periods of this version", columns, rows))


def _verdicts(view: VersionView, asked: Asked) -> Html:
    columns = (Column(title="When"), Column(title="Verdict"), Column(title="Summary"), Column(title="Report"))
    rows = [
        (Cell(shown=when(one.at, asked.now), key=one.at.timestamp()), verdict_badge(one.action), said(one.summary),
         el("a", "open", href=asked.to("/version", agent=view.agent, version=str(one.job_id)), aria_label=f"report of job {one.job_id}"))
        for one in view.verdicts
    ]  # fmt: skip
    return section(
        "Recent gate reports", table(f"Gate reports of {view.agent}", columns, rows, empty="No gate report yet.")
    )


def _versions(view: VersionView, asked: Asked) -> Html:
    columns = (
        Column(title="Version"),
        Column(title="Released"),
        Column(title="Based on"),
        Column(title="Why"),
        Column(title="Gate"),
    )
    rows = [
        (join(el("a", one.version, href=asked.to("/version", agent=view.agent, version=one.version)), " ",
              badge("champion", "good") if one.version == view.champion else None),
         Cell(shown=when(one.at, asked.now), key=one.at.timestamp()), one.base or "–", said(f"{one.reason} {one.mode}"),
         verdict_badge(one.gate))
        for one in view.versions
    ]  # fmt: skip
    return section("Versions", table(f"The newest versions of {view.agent}", columns, rows, empty="No version yet."))


def _show(site: Site, asked: Asked) -> Html:
    query = asked.query
    view = gather(
        site.ports, site.overview, agent=query.get("agent", ""), subject=query.get("version", ""), dag=query.get("dag", ""),
        run=query.get("run", ""),
    )  # fmt: skip
    return render(view, asked)


def _roll_back(site: Site, asked: Asked) -> str:
    agent, version = asked.needed("agent"), asked.needed("version")
    rollback_agent(site.ports, agent, actor=asked.user.id, reason=asked.reason(), version=version)
    return asked.to("/version", agent=agent, version=version, said="back")


PAGE = Page(
    path="/version",
    title="Version",
    show=_show,
    actions=(Action(path="/version/rollback", role=Role.OPERATOR, run=_roll_back),),
    notices={"back": "This version serves again."},
)
