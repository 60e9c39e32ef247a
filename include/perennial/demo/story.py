"""The story of the README, told on a running stack with measured times."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from perennial.demo.bars import Bars
from perennial.demo.material import Material, as_examples
from perennial.demo.plane import Plane, RequiredActions, Traffic, Truth, wait_for
from perennial.demo.plot import Answer, Mark
from perennial.domain.model import SemanticVersion
from perennial.domain.words import GateAction, RolloutState
from perennial.errors import StackError
from perennial.flows.explain import Explanation, explain
from perennial.flows.ports import Ports
from perennial.ingest.job_log import JobEntry
from perennial.rollout.machine import ENDED
from perennial.serving.router import arm_for

TRAIN_SECONDS = 300.0
ROLLOUT_SECONDS = 240.0


@dataclass
class Chapter:
    """One row of the final table."""

    version: str
    trigger: str
    examples: int
    before: float | None
    after: float | None
    verdict: str
    seconds: float
    note: str = ""


@dataclass
class Facts:
    """Everything that the demo measured."""

    material: str
    chapters: list[Chapter] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    correction_seconds: float | None = None
    failed_requests: int = 0
    restored_digest_equal: bool | None = None
    poison_held: bool | None = None

    def broken_promises(self) -> list[str]:
        """What the story promises and this run did not keep."""
        kept = {
            "the gate holds the poisoned candidate": self.poison_held,
            "the predecessor's files come back byte-identical": self.restored_digest_equal,
            "a canary answers the correction right": self.correction_seconds is not None,
            "no request fails": self.failed_requests == 0,
        }
        return [promise for promise, held in kept.items() if not held]


Say = Callable[[str], None]


class Story:
    """Tells the seven chapters in order; ``say`` prints a line, ``ask`` leaves approvals to the person at the Airflow page."""

    def __init__(
        self,
        ports: Ports,
        plane: Plane,
        material: Material,
        *,
        say: Say,
        bars: Bars,
        editor: RequiredActions,
        ask: bool = False,
    ) -> None:
        self.bars = bars
        self.ports, self.plane, self.material, self.say = ports, plane, material, say
        self.editor, self.ask = editor, ask
        self.agent = plane.agent
        self.facts = Facts(material=material.name)
        self.began = time.monotonic()
        self.seen: list[Truth] = []

    # -- helpers ---------------------------------------------------------------------------------------------------------

    def champion(self) -> str | None:
        """The version that serves now."""
        return self.ports.ledger.champion(self.agent)

    def _mark(self, text: str, *, good: bool = True) -> None:
        self.facts.marks.append(Mark(second=time.monotonic() - self.began, text=text, good=good))

    def _heard(self, right: bool, version: str) -> None:
        self.facts.answers.append(Answer(second=time.monotonic() - self.began, right=right, version=version))

    def _ask_gateway(self, truths: list[Truth] | tuple[Truth, ...], *, until: Callable[[], bool]) -> int:
        """Send requests with their outcomes until ``until``; returns how many."""
        with self.bars.requests(len(truths)) as answered:
            for number, truth in enumerate(truths):
                answer = self.plane.predict(self.material.task, truth.text, key=f"story-{len(self.seen)}")
                self.plane.outcomes([(answer["prediction_id"], truth.label)])
                self._heard(answer["output"] == truth.label, answer["version"])
                self.seen.append(truth)
                answered(number + 1)
                if number % 10 == 9 and until():
                    return number + 1
        return len(truths)

    def _job_after(self, moment: float) -> JobEntry | None:
        """The newest finished job with examples that began after ``moment`` (counted back on the database's clock)."""
        jobs = self.ports.jobs.recent(self.agent, seconds=time.monotonic() - moment + 1.0)
        return next((job for job in jobs if job.finished and job.example_count), None)

    def _verdict(self, job: JobEntry) -> tuple[bool, str]:
        """Whether the gate held a job's candidate, and its summary."""
        report = self.ports.ledger.gate_report(job.job_id)
        if report is None:
            return False, "no report"
        return report.action == GateAction.HOLD.value, str(report.report.get("summary", ""))

    def _judged_chapter(self, job: JobEntry, began: float) -> tuple[bool, str]:
        """Add the row of a candidate that the gate judged; whether it was held, and the gate's summary."""
        held, summary = self._verdict(job)
        record = next((row for row in self.ports.buffer.performance(self.agent, 100) if row.job_id == job.job_id), None)
        self.facts.chapters.append(
            Chapter(
                version="-", trigger="threshold", verdict="held" if held else "not held", examples=job.example_count,
                before=record.accuracy_before if record else None, after=record.accuracy_after if record else None,
                seconds=round(time.monotonic() - began, 1), note=summary,
            )
        )  # fmt: skip
        return held, summary

    def _wait_champion(self, other_than: str | None, what: str) -> str:
        return str(self._champion_or(lambda: None, other_than, what))

    def _champion_or(
        self,
        refused: Callable[[], JobEntry | None],
        other_than: str | None,
        what: str,
        accept: Callable[[str], bool] = bool,
    ) -> str | JobEntry:
        """The next champion once the gateway serves it, or the job that ``refused`` names first."""

        def changed() -> str | JobEntry | None:
            self._answer_actions()
            now = self.champion()
            return now if now and now != other_than and accept(now) else refused()

        with self.bars.journey(what) as look:
            found: str | JobEntry = wait_for(what, changed, seconds=TRAIN_SECONDS + ROLLOUT_SECONDS, tick=look)
        if isinstance(found, str):
            wait_for(f"the gateway to serve {found}", lambda: self._served() == found, seconds=60)
        return found

    def _let_it_settle(self) -> None:
        """Wait until nothing trains, waits or rolls out, so that what happens next has one cause."""

        def still() -> bool:
            self._answer_actions()
            rollout = self.ports.rollouts.latest(self.agent)
            idle = rollout is None or rollout.state in {RolloutState.BAKING, *ENDED}
            return idle and self._nothing_trains()

        with Traffic(self.plane, self.material.task, self.seen[-200:], heard=self._heard) as traffic:
            wait_for("trainings and rollouts to end", still, seconds=TRAIN_SECONDS + ROLLOUT_SECONDS, every=1.0)
        self.facts.failed_requests += traffic.failed

    def _nothing_trains(self) -> bool:
        """Whether no job runs or is due and no version waits for its rollout."""
        training = self.agent in self.ports.buffer.running() or self.ports.buffer.due(self.agent).due
        return not training and self.ports.ledger.newest_unserved(self.agent) is None

    def _served(self) -> str | None:
        entry = self.plane.agents()["agents"].get(self.agent) or {}
        return entry.get("champion")

    def _answer_actions(self) -> None:
        for detail in self.editor.waiting(f"train_{self.agent}"):
            if self.ask:
                self.say("A person must decide: open Required Actions in Airflow and answer; the story waits.")
                time.sleep(5)
                continue
            self.editor.answer(detail, "Approve")
            self.say(
                f"The demo approves as its user [b]{self.editor.user}[/b] (with --ask it would leave this to you)."
            )

    def _chapter(self, version: str, trigger: str, verdict: str, began: float, note: str = "") -> Chapter:
        record = next((row for row in self.ports.buffer.performance(self.agent, 100) if row.version == version), None)
        chapter = Chapter(
            version=version, trigger=trigger, verdict=verdict, seconds=round(time.monotonic() - began, 1), note=note,
            examples=record.examples_trained if record else 0,
            before=record.accuracy_before if record else None, after=record.accuracy_after if record else None,
        )  # fmt: skip
        self.facts.chapters.append(chapter)
        return chapter

    # -- chapters --------------------------------------------------------------------------------------------------------

    def first_champion(self) -> None:
        """1. A small start set becomes the first champion."""
        began = time.monotonic()
        sets = ((self.material.task, self.material.start), *self.material.others)
        rows = [row for task, truths in sets for row in as_examples(task, truths, source_id="archive")]
        self.plane.examples(rows)  # in one request: what comes later waits for the next training
        self.say(
            f"{len(rows)} labelled examples for {', '.join(task for task, _ in sets)} are in the buffer; "
            "the threshold is crossed and training starts by itself."
        )
        version = self._wait_champion(None, "the first champion")
        self._mark(f"{version} first champion")
        chapter = self._chapter(version, "threshold", "bootstrap", began)
        self.say(
            f"[b]{version}[/b] is the first champion after {chapter.seconds:.0f} s: {_percent(chapter.after)} right."
        )
        self._show_an_answer()

    def _show_an_answer(self) -> None:
        """One article with every task's answer."""
        text = self.material.drift[0].text
        asked = (self.material.task, *(task for task, _ in self.material.others))
        outputs = ((task, self.plane.predict(task, text, key="reader")["output"]) for task in asked)
        answers = (f"{task}: [b]{round(out, 2) if isinstance(out, float) else out}[/b]" for task, out in outputs)
        self.say(f"[i]{text[:180]}[/i]\n  " + ", ".join(answers))

    def threshold(self) -> None:
        """2. and 3. The gateway serves; wrong and unsure answers come back; the threshold starts a training."""
        before = self.champion()
        began = time.monotonic()
        asked = self._ask_gateway(self.material.drift, until=lambda: self.ports.buffer.due(self.agent).due)
        self.say(f"{asked} requests served; enough wrong and unsure answers came back to be due.")
        began = time.monotonic() if asked else began
        with Traffic(self.plane, self.material.task, self.seen[-200:], heard=self._heard) as traffic:
            version = self._wait_champion(before, "a retrained champion")
        self.facts.failed_requests += traffic.failed
        self._mark(version)
        chapter = self._chapter(version, "threshold", "promoted through the canary", began)
        self.say(
            f"[b]{version}[/b] went through the canary to 100 % after {chapter.seconds:.0f} s: "
            f"{_percent(chapter.before)} -> {_percent(chapter.after)}."
        )

    def new_topic(self) -> None:
        """3b. A topic that the champion does not know: a major version, which a person must approve."""
        before = self.champion()
        asked = self._ask_gateway(self.material.later, until=lambda: False)
        began = time.monotonic()
        self.say(
            f"{asked} articles of a topic that no model knows yet ({self.material.later_label}) were answered wrong and came back."
        )
        with Traffic(self.plane, self.material.task, self.seen[-200:], heard=self._heard) as traffic:
            major = SemanticVersion.parse(before or "0.0.0").major
            version = self._champion_or(
                lambda: self._refused(began), before, "the major version",
                accept=lambda now: SemanticVersion.parse(now).major > major,
            )  # fmt: skip
        self.facts.failed_requests += traffic.failed
        if not isinstance(version, str):
            # on data of your own the gate may refuse a topic; that is its right, and the story goes on
            _, summary = self._judged_chapter(version, began)
            self._mark(f"{self.material.later_label} held", good=False)
            self.say(
                f"The gate holds every candidate that knows {self.material.later_label}: {summary}. The champion stays."
            )
            return
        self._mark(f"{version} knows {self.material.later_label}")
        chapter = self._chapter(
            version, "threshold", "approved, promoted", began, note=f"new label {self.material.later_label}"
        )
        self.say(f"[b]{version}[/b] answers {self.material.later_label} too, after {chapter.seconds:.0f} s.")

    def correction(self) -> None:
        """4. One critical correction is answered right by a canary within seconds."""
        before = self.champion()
        found = self._wrong_answer()
        if found is None:
            raise StackError("the champion answers everything right; send harder data with --data")
        truth, wrong = found
        share = self.ports.fleet().agent(self.agent).rollout.steps[0]
        key = next(
            f"vip-{number}"
            for number in range(100_000)
            if arm_for(f"vip-{number}", self.agent, share).value == "candidate"
        )
        with Traffic(self.plane, self.material.task, self.seen[-200:], heard=self._heard) as traffic:
            began = time.monotonic()
            self.plane.correct(self.material.task, truth.text, wrong, truth.label, priority=3, source_id="editor")

            def answered() -> dict[str, Any] | None:
                answer = self.plane.predict(self.material.task, truth.text, key=key)
                return answer if answer["version"] != before and answer["output"] == truth.label else None

            with self.bars.journey("the corrected answer") as look:
                answer = wait_for(
                    "the corrected answer in the canary", answered, seconds=TRAIN_SECONDS, every=0.1, tick=look
                )
            seconds = time.monotonic() - began
            self.facts.correction_seconds = round(seconds, 2)
            self.say(
                f"Corrected answer from [b]{answer['version']}[/b] in the {share:.0%} canary [b]{seconds:.1f} s[/b] after the correction."
            )
            version = self._wait_champion(before, "the corrected version at 100 %")
        self.facts.failed_requests += traffic.failed
        self._mark(f"{version} corrected")
        self._chapter(
            version,
            "correction (critical)",
            "promoted through the canary",
            began,
            note=f"canary answered in {seconds:.1f} s",
        )

    def _refused(self, began: float) -> JobEntry | None:
        """The job whose candidate the gate held since then, once nothing goes on any more."""
        job = self._job_after(began)
        return job if job is not None and self._nothing_trains() and self._verdict(job)[0] else None

    def _wrong_answer(self) -> tuple[Truth, Any] | None:
        """A text that the champion answers wrong; the editor knows better."""
        for truth in reversed(self.material.drift):
            answer = self.plane.predict(self.material.task, truth.text, key="desk")
            if answer["output"] != truth.label:
                return truth, answer["output"]
        return None

    def poison(self) -> None:
        """5. A poisoned batch trains a candidate that the gate holds."""
        before = self.champion()
        began = time.monotonic()
        rows = as_examples(self.material.task, self.material.flipped, source_id="intern", importance_score=1.0)
        self.plane.examples(rows + as_examples(self.material.task, self.material.honest, source_id="desk"))
        self.say(
            f"{len(self.material.flipped)} articles about {self.material.flipped_from} arrive, all labelled {self.material.flipped_to}, "
            "from an intern whom the agent's file trusts: no cap on a source applies, so the gate must see it."
        )
        with self.bars.journey("the gate's verdict") as look:
            job = wait_for("the gate's verdict", lambda: self._job_after(began), seconds=TRAIN_SECONDS, tick=look)
        held, summary = self._judged_chapter(job, began)
        self.facts.poison_held = held
        self._mark("poison held" if held else "poison passed", good=held)
        self.say(f"The gate {'holds' if held else 'does not hold'} the candidate: {summary}")
        if self.champion() != before:
            raise StackError("a poisoned candidate reached production; look at its gate report")

    def bad_champion(self) -> None:
        """6. The served champion is made bad; its predecessor's files come back by themselves."""
        self._let_it_settle()
        bad = self.champion()
        if bad is None:
            raise StackError("there is no champion to make bad")
        expected = self.ports.rollouts.previous_champion(self.agent)
        expected_digest = self.ports.targets["folder"].digest_of(self.agent, expected) if expected else None
        began = time.monotonic()
        self.plane.plant_fault(bad, "wrong", 1.0)
        self.say(f"From now on {bad} answers wrong (a planted fault in serving); nobody touches anything.")
        pool = self.seen[-200:]
        with Traffic(self.plane, self.material.task, pool, heard=self._heard) as traffic:
            version = self._wait_champion(bad, "the predecessor to come back")
        self.facts.failed_requests += traffic.failed
        now = self.ports.targets["folder"].digest(self.agent)
        self.facts.restored_digest_equal = expected_digest is not None and now == expected_digest
        self._mark(f"back to {version}", good=False)
        self._ask_gateway(self.seen[-150:], until=lambda: False)  # the picture shows that answers are right again
        same = "byte-identical files" if self.facts.restored_digest_equal else "files that differ"
        self.facts.chapters.append(
            Chapter(
                version=version, trigger="bake watch", verdict=f"reverted {bad}", examples=0, before=None, after=None,
                seconds=round(time.monotonic() - began, 1), note=same,
            )
        )  # fmt: skip
        self.say(f"[b]{version}[/b] serves again after {time.monotonic() - began:.0f} s, {same}.")

    def why(self) -> None:
        """7. Why did this model serve that day? The record answers."""
        bad = next((mark for mark in reversed(self.facts.chapters) if mark.verdict.startswith("reverted ")), None)
        for version in (bad.verdict.removeprefix("reverted ") if bad else None, self.champion()):
            if version is not None:
                self.say("\n".join(told(explain(self.ports, self.agent, version))))
        self.say(f"All of it: [b]perennial explain {self.agent}[/b], or with [b]--at TIME[/b] for another day.")

    def tell(self) -> Facts:
        """All chapters in order."""
        for chapter in (
            self.first_champion,
            self.threshold,
            self.new_topic,
            self.correction,
            self.poison,
            self.bad_champion,
            self.why,
        ):
            self.say(f"\n[bold cyan]{chapter.__doc__.strip() if chapter.__doc__ else chapter.__name__}[/]")
            chapter()
        return self.facts


def told(found: Explanation) -> list[str]:
    """An explanation in five lines: what became of it, what it was made from, who let it through, how it met traffic."""
    trained = [f"{task.new} new and {task.replay} replayed rows of {task.task}" for task in found.trained if task.new]
    people = [f"{one.decision} by {one.actor}" for one in found.decisions]
    trigger = found.trigger
    lines = [
        f"[b]{found.agent} {found.version}[/b]: {found.outcome}",
        f"  after     {trigger.reason}, {trigger.mode}" if trigger else "  after     nothing is on record",
        f"  made from {', '.join(trained) or 'no new row'}",
        f"  gates     {found.gate_action}; {', '.join(people) or 'no person was asked'}",
    ]
    for rollout in found.rollouts[-1:]:
        lines.append(f"  rollout   {rollout.state} {rollout.reason}".rstrip())
    return lines


def _percent(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.1%}"
