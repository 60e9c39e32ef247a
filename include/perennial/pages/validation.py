"""The page of validations: what the stored Great Expectations result of a job says, in counts and row ids; screening; evenness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import Any
from uuid import UUID

from perennial.domain.words import State
from perennial.errors import InvalidExample, RegistryError, StoreError, UnknownAgent
from perennial.flows.ports import Ports
from perennial.flows.quarantine import meaning
from perennial.ingest.results import Job
from perennial.pages.gate_report import gaps_section
from perennial.pages.html import Html, el, join
from perennial.pages.layout import (
    Column,
    badge,
    code,
    count,
    facts,
    heading,
    lines,
    more,
    said,
    section,
    share,
    table,
    when,
)
from perennial.pages.page import Asked, Page, Site
from perennial.pages.rollout import style
from perennial.registry.rows import Validation

RECENT = 60  # stored results of an agent that are read for its list; a job has one per task and attempt

EXPECTS = {
    "rows_present": "the batch has rows",
    "columns_present": "the batch has exactly the columns that the suite looks at",
    "row_ids_unique": "no row is there twice",
    "text_present": "every row has a text",
    "text_type": "every text is a text",
    "text_not_blank": "no text is blank",
    "text_length": "texts are not longer than the task allows",
    "text_repeats": "texts do not repeat more than a few may",
    "label_present": "every row has a label",
    "label_form": "every label has the form that the task answers with",
    "score_range": "every score lies between 0 and 1",
    "label_known": "every label is one that the agent declares",
    "class_balance": "no label has nearly all of the rows",
    "freshness": "at least half of the rows are young enough",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckLine:
    """One expectation: how many rows broke it, some of their ids, and a number of the whole batch where it gives one."""

    name: str
    passed: bool
    broken: int
    row_ids: tuple[str, ...]
    observed: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskResult:
    """What the suite said of one task in one attempt."""

    attempt: int
    task: str
    passed: bool
    rows: int
    checks: tuple[CheckLine, ...]
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class ScreenedTask:
    """What the screening against poisoning held back of one task before it trained: counts by reason, and its senders by alias."""

    task: str
    rows: int
    kept: int
    held: tuple[tuple[str, int], ...]
    exempt: tuple[str, ...]
    source_rows: int | None
    young_rows: int | None
    trusted: int
    released: int
    holdout_left_out: int
    sources: tuple[Mapping[str, Any], ...]
    more_sources: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationView:
    """Everything that is stored about the data of one job. ``job`` None: it is not in the books any more."""

    agent: str
    job_id: UUID
    job: Job | None
    version: str | None
    results: tuple[TaskResult, ...] = ()
    screened: tuple[ScreenedTask, ...] = ()
    gates: Mapping[str, Any] | None = None  # the stored report, for the gaps between groups


@dataclass(frozen=True, kw_only=True, slots=True)
class JobLine:
    """One job in a list: its newest attempt's outcome."""

    agent: str
    job_id: UUID
    at: datetime
    passed: bool
    attempt: int
    tasks: tuple[str, ...]
    rows: int
    broken: tuple[str, ...] = field(default=())


def gather_all(ports: Ports) -> tuple[JobLine, ...]:
    """The newest validated job of every agent: one bounded query each, and a second where one attempt fills it."""
    return tuple(found[0] for agent in ports.fleet().names if (found := gather_agent(ports, agent, limit=10)))


def gather_agent(ports: Ports, agent: str, *, limit: int = RECENT) -> tuple[JobLine, ...]:
    """The agent's last validated jobs, newest first."""
    stored = ports.ledger.recent_validations(agent, limit)
    if len(stored) == limit:
        stored = _whole(stored) or ports.ledger.validations(stored[-1].job_id)
    by_job: dict[UUID, list[Validation]] = {}
    for one in stored:
        by_job.setdefault(one.job_id, []).append(one)
    found = []
    for job_id, rows in by_job.items():
        newest = max(row.attempt for row in rows)
        last = sorted((row for row in rows if row.attempt == newest), key=lambda row: row.task)
        broken = [f"{row.task}: {name}" for row in last for name in _broken(row.report)]
        found.append(
            JobLine(
                agent=agent, job_id=job_id, at=max(row.created_at for row in last), passed=all(row.success for row in last),
                attempt=newest, tasks=tuple(row.task for row in last), rows=sum(int(row.report.get("rows", 0)) for row in last),
                broken=tuple(broken),
            )
        )  # fmt: skip
    return tuple(found)


def _whole(stored: Sequence[Validation]) -> tuple[Validation, ...]:
    """A full list without its oldest attempt, of which the limit may have left out tasks: those may be the ones that broke."""
    last = stored[-1]
    return tuple(one for one in stored if one.job_id != last.job_id or one.attempt > last.attempt)


def _broken(report: Mapping[str, Any]) -> list[str]:
    return [str(check["name"]) for check in report.get("checks", ()) if not check["success"]]


def gather(ports: Ports, agent: str, job_id: UUID) -> ValidationView:
    """One job; RegistryError when nothing is stored about it, or when it belongs to another agent."""
    stored = ports.ledger.validations(job_id)
    try:
        job: Job | None = ports.buffer.job(job_id)
    except StoreError:
        job = None
    owner = job.agent if job is not None else stored[0].agent if stored else None
    if owner != agent:
        raise RegistryError(
            f"{agent[:64]} has no job {job_id} with a stored validation; the list of the page has those that there are"
        )
    report = ports.ledger.gate_report(job_id)
    release = ports.ledger.version_of_job(job_id)
    screening = (job.dataset.get("screening") if job is not None else None) or (
        report.report.get("screening") if report else None
    )
    return ValidationView(
        agent=agent, job_id=job_id, job=job, version=release.version if release else None,
        results=tuple(_result(one) for one in stored), screened=tuple(_screened(screening or {})),
        gates=report.report if report is not None else None,
    )  # fmt: skip


def job_of_version(ports: Ports, agent: str, version: str) -> UUID:
    """The job that made a version; RegistryError when there is none such."""
    release = ports.ledger.version(agent, version)
    if release is None or release.job_id is None:
        raise RegistryError(
            f"{agent[:64]} has no version {version[:64]} with a job; `perennial models` lists the releases"
        )
    return release.job_id


def _result(stored: Validation) -> TaskResult:
    return TaskResult(
        attempt=stored.attempt, task=stored.task, passed=stored.success, rows=int(stored.report.get("rows", 0)),
        at=stored.created_at,
        checks=tuple(
            CheckLine(
                name=str(check["name"]), passed=bool(check["success"]), broken=int(check.get("unexpected_count") or 0),
                row_ids=tuple(str(one) for one in check.get("row_ids") or ()), observed=check.get("observed"),
            )
            for check in stored.report.get("checks", ())
        ),
    )  # fmt: skip


def _screened(screening: Mapping[str, Any]) -> Sequence[ScreenedTask]:
    return [
        ScreenedTask(
            task=task, rows=found["rows"], kept=found["kept"], held=tuple(sorted(found["held"].items())), exempt=tuple(found["exempt"]),
            source_rows=found.get("source_rows"), young_rows=found.get("young_rows"), trusted=found.get("trusted", 0),
            released=found.get("released", 0), holdout_left_out=found.get("holdout_left_out", 0),
            sources=tuple(found.get("sources", ())), more_sources=found.get("more_sources", 0),
        )
        for task, found in sorted(screening.items())
    ]  # fmt: skip


# --- markup -----------------------------------------------------------------------------------------------------------------------

_LEAD = "What Great Expectations said of each batch before it trained: counts and row ids, never a text or a label."


def render_list(rows: Sequence[JobLine], asked: Asked, *, agent: str = "") -> Html:
    """Jobs with their outcome."""
    columns = [
        Column(title="Agent" if not agent else "Job"), Column(title="Result"), Column(title="Rows", number=True), Column(title="Tasks"),
        Column(title="Expectations that did not hold"), Column(title="When"),
    ]  # fmt: skip
    shown = [
        (
            join(
                el("a", code(str(one.job_id), short=8) if agent else one.agent,
                   href=asked.to("/validation", agent=one.agent, job=str(one.job_id) if agent else None)),
            ),
            join(_passed(one.passed), f" attempt {one.attempt}" if one.attempt > 1 else ""), count(one.rows), ", ".join(one.tasks),
            said(", ".join(one.broken)), when(one.at, asked.now),
        )
        for one in rows
    ]  # fmt: skip
    title = f"Validations of {agent}" if agent else "Validations"
    side = el("a", "All agents", href=asked.to("/validation")) if agent else None
    name = "The last validated jobs, newest first" if agent else "Newest validated job of each agent"
    empty = "Nothing was validated yet: the first training writes the first result."
    return join(
        heading(title, _LEAD, side=side),
        section("Jobs" if agent else "Agents", table(name, columns, shown, empty=empty)),
    )


def _passed(passed: bool) -> Html:
    return badge("passed", "good") if passed else badge("stopped the run", "bad")


def render(view: ValidationView, asked: Asked) -> Html:
    """One job."""
    side = join(
        el("a", f"Jobs of {view.agent}", href=asked.to("/validation", agent=view.agent)), " ",
        el("a", "Quarantine", href=asked.to("/quarantine", agent=view.agent)),
    )  # fmt: skip
    return join(
        heading(join("Validation of ", view.agent, ", job ", code(str(view.job_id), short=8)), _LEAD, side=side),
        section("Job", facts(_job(view, asked))),
        [_attempt(attempt, list(found), asked) for attempt, found in groupby(view.results, key=lambda one: one.attempt)]
        or section(
            "Expectations", el("p", "No result is stored: the job did not reach its validation.", class_="empty")
        ),
        _screening(view),
        _fairness(view),
        style(asked),
    )


def _job(view: ValidationView, asked: Asked) -> list[tuple[str, Any]]:
    job = view.job
    pairs: list[tuple[str, Any]] = [("Job", code(str(view.job_id)))]
    if view.version is not None:
        address = asked.to("/version", agent=view.agent, version=view.version)
        pairs.append(("Made", el("a", f"{view.agent} {view.version}", href=address)))
    if job is None:
        return [*pairs, ("State", "its row is not in the books any more")]
    tone = {"completed": "good", "failed": "bad"}.get(job.status.value, "quiet")
    pairs += [
        ("State", badge(job.status.value, tone)), ("Started because of", f"{job.reason.value} ({job.mode})"),
        ("Began", when(job.started_at or job.created_at, asked.now)), ("Note", said(job.note)),
    ]  # fmt: skip
    stopped = [
        f"{one.task}: {check.name}"
        for one in view.results
        if not one.passed
        for check in one.checks
        if not check.passed
    ]
    if stopped:
        pairs.append(("What stopped it", said(", ".join(stopped))))
    if job.error:
        pairs.append(("Error", said(job.error)))
    return pairs


def _attempt(attempt: int, results: Sequence[TaskResult], asked: Asked) -> Html:
    columns = [
        Column(title="Expectation"), Column(title="Holds"), Column(title="Rows that break it", number=True),
        Column(title="Of the batch", number=True), Column(title="Measured", number=True, about="a number of the whole batch"),
        Column(title="Row ids"),
    ]  # fmt: skip
    tables = []
    for one in results:
        rows = [
            (
                join(el("span", EXPECTS.get(check.name, check.name), class_="stack"), el("code", check.name, class_="small")),
                badge("yes", "good") if check.passed else badge("no", "bad"), count(check.broken),
                share(check.broken / one.rows) if one.rows else "–", "–" if check.observed is None else f"{check.observed:.3g}",
                _ids(check, one.rows),
            )
            for check in sorted(one.checks, key=lambda check: check.passed)
        ]  # fmt: skip
        tables.append(
            join(
                el("h3", "Task ", one.task, " ", _passed(one.passed)),
                el("p", f"{count(one.rows)} rows, ", when(one.at, asked.now), class_="small"),
                table(f"Expectations of task {one.task}", columns, rows, sortable=False),
            )
        )
    return section(f"Expectations, attempt {attempt}", tables)


def _ids(check: CheckLine, rows: int) -> Html | str:
    if not check.row_ids:
        return ""
    rest = check.broken - len(check.row_ids)
    told = f"{len(check.row_ids)} id{'' if len(check.row_ids) == 1 else 's'}" + (
        f" of {check.broken}" if rest > 0 else ""
    )
    return more(told, lines(code(one) for one in check.row_ids))


def _screening(view: ValidationView) -> Html:
    note = "Before a batch trains, rows that could poison it wait: what a sender has beyond its share, contradictions, floods."
    if not view.screened:
        return section(
            "Screening", el("p", "Nothing is stored: the job did not reach its screening.", class_="empty"), note=note
        )
    return section("Screening", [_screened_task(one) for one in view.screened], note=note)


def _screened_task(one: ScreenedTask) -> Html:
    columns = [Column(title="Held back as"), Column(title="Rows", number=True), Column(title="Why")]
    held = [(el("code", reason), count(rows), meaning(State.HELD, reason)) for reason, rows in one.held]
    told = [
        f"{count(one.kept)} of {count(one.rows)} rows were trained on; {count(one.trusted)} are of trusted sources."
    ]
    if one.source_rows is not None:
        told.append(
            f"An untrusted source has {one.source_rows} rows at most here, all young ones together {one.young_rows}."
        )
    if one.released:
        told.append(f"Let through by a person: {count(one.released)}.")
    if one.holdout_left_out:
        told.append(f"Holdout rows beyond their source's share, not measured on: {count(one.holdout_left_out)}.")
    told += [f"Exempt from the caps: {reason}." for reason in one.exempt]
    senders = [
        (
            code(str(line["source"])), count(line["rows"]), count(line["kept"]), str(line["kind"]),
            badge("trusted", "good") if line["trusted"] else badge("young", "warn") if line["young"] else badge("known", "quiet"),
        )
        for line in one.sources
    ]  # fmt: skip
    names = [
        Column(title="Sender", about="an alias: a sender's name may be a person's"), Column(title="Rows", number=True),
        Column(title="Trained on", number=True), Column(title="Way in"), Column(title="Standing"),
    ]  # fmt: skip
    rest = el("p", f"And {one.more_sources} smaller ones.", class_="small") if one.more_sources else None
    return join(
        el("h3", "Task ", one.task),
        el("p", " ".join(told)),
        table(f"Rows of {one.task} that wait", columns, held, empty="Nothing was held back.", sortable=False),
        more(f"Senders ({len(one.sources) + one.more_sources})", table(f"Senders of {one.task}", names, senders), rest),
    )


def _fairness(view: ValidationView) -> Html:
    if view.gates is None:
        return section("Evenness", el("p", "Not measured: no gate report is stored for this job.", class_="empty"))
    return gaps_section(view.gates)


def _show(site: Site, asked: Asked) -> Html:
    agent, version, job = (asked.query.get(name, "") for name in ("agent", "version", "job"))
    if not agent:
        return render_list(gather_all(site.ports), asked)
    known = site.ports.fleet().names
    if agent not in known:
        raise UnknownAgent(agent, list(known))
    if job or version:
        job_id = _uuid(job) if job else job_of_version(site.ports, agent, version)
        return render(gather(site.ports, agent, job_id), asked)
    return render_list(gather_agent(site.ports, agent), asked, agent=agent)


def _uuid(given: str) -> UUID:
    try:
        return UUID(given)
    except ValueError as error:
        raise InvalidExample("job", "is not the id of a job", "choose one from the list") from error


PAGE = Page(path="/validation", title="Validation", show=_show)
