"""From raw to ready: checks each waiting record and replaces personal data, with the one role that may read originals.

What another version of the redactor made is redacted again here, before it is trained on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from perennial.domain.redaction import ScanCache
from perennial.domain.words import JSON, TaskKind
from perennial.errors import GuardError, GuardUnavailable, NotConfigured
from perennial.fleet.agent import Agent
from perennial.flows.ports import Ports
from perennial.flows.quiet import quiet
from perennial.guard.edits import realigned
from perennial.guard.records import RecordReason, check_record
from perennial.guard.redactor import Redaction, Redactor, redactor_for
from perennial.ingest.admit import Admission, Admitted, Refused

logger = logging.getLogger(__name__)

BEFORE_TRAINING = 5.0  # seconds that a training gives to rows of an older redactor: somebody waits for it
IN_BACKGROUND = 120.0
_FLUSH = 1000  # texts found clean that wait to be remembered


@quiet
def admit_agent(ports: Ports, agent_name: str, *, background: bool = False) -> dict[str, Any]:
    """Admit every raw row of one agent; returns counts by outcome. Safe to run twice at once and again after a kill.

    ``background``: nobody waits, so more rows of an older redactor are redacted again, and those that were trained on as well.
    """
    admission = _admission(ports)
    agent = ports.fleet().agent(agent_name)
    cleared = ports.redaction_tasks.cleared(agent_name) if ports.redaction_tasks is not None else {}
    look = Examiner(agent, scans=ports.scans, cleared=cleared)
    outcome = admission.run(agent_name, look, look.ahead, personal(agent))
    again = _again(admission, agent, look, background)
    look.flush()
    released = {
        task.name: ports.buffer.release_new_labels(agent_name, task.name, task.new_label_rows)
        for task in agent.tasks
        if task.kind is TaskKind.CLASSIFICATION and task.labels is None
    }
    if again:
        logger.info("%s rows of %s were redacted again: the redactor changed, or a person decided", again, agent_name)
    return {**outcome.as_dict(), "released": sum(released.values()), "redacted_again": again}


def admittable(ports: Ports, agents: Sequence[str]) -> list[str]:
    """Those of the agents for which ``admit_agent`` has anything to do, in their order; one statement for all."""
    return _admission(ports).waiting(agents)


def personal(agent: Agent) -> Callable[[str], bool]:
    """Whether a model's answer that came along is no label but personal data; true when no detector can look."""
    known = frozenset(label for task in agent.tasks for label in task.labels or ())

    @lru_cache(maxsize=1024)
    def holds(text: str) -> bool:
        try:
            return text not in known and _is_personal(redactor_for(names=agent.redact_names), text)
        except GuardError:
            return True

    return holds


def _is_personal(redactor: Redactor, word: str) -> bool:
    """Whether a label holds what a detector is sure of: a label is one word without a sentence around it."""
    return any(span.sure for span in redactor.find(word))


def _admission(ports: Ports) -> Admission:
    if ports.admission is None:
        raise NotConfigured("PERENNIAL_ADMIT_DATABASE_URL", "the admit step needs the role that may read originals")
    return ports.admission


def _again(admission: Admission, agent: Agent, look: Examiner, background: bool) -> int:
    try:
        version = redactor_for(names=agent.redact_names).version
    except GuardUnavailable as error:
        logger.warning("rows of %s cannot be redacted again now: %s", agent.name, error)
        return 0
    seconds = IN_BACKGROUND if background else BEFORE_TRAINING
    return admission.redact_again(
        agent.name, version, look.redact, seconds=seconds, trained=background, ahead=look.ahead
    )


class Examiner:
    """How this agent's records are checked and redacted. Its calls raise GuardUnavailable when the detector cannot be built.

    ``cleared``: words that a person let stand, by keyed digest of the original. ``scans`` remembers texts without personal data.
    """

    def __init__(
        self, agent: Agent, *, scans: ScanCache | None = None, cleared: Mapping[bytes, frozenset[str]] | None = None
    ) -> None:  # fmt: skip
        self._agent, self._scans, self._cleared = agent, scans, cleared or {}
        self._clean: set[bytes] = set()
        self._fresh: set[bytes] = set()
        self._known: Redactor | None = None

    def __call__(self, task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        """The record, checked and redacted."""
        spec = self._agent.task(task)
        reason = check_record(text, expected, kind=spec.kind, labels=spec.labels, max_length=spec.max_length)
        if reason is not None:
            return Refused(reason=reason)
        if isinstance(expected, str) and spec.labels is None and _is_personal(self._redactor, expected):
            # a label that the agent does not declare, and a person's data
            return Refused(reason=RecordReason.LABEL_FORM)
        return self.redact(task, text, expected, feedback)

    def redact(self, task: str, text: str, expected: JSON, feedback: str | None) -> Admitted:
        """The record redacted. In notes and labels a find that is not sure is replaced without asking anybody."""
        redactor = self._redactor
        key = redactor.content_key(text)
        body = self._body(key, text)
        note = redactor.redact(feedback) if feedback else None
        expected = realigned(expected, len(text), body.edits)
        label = redactor.redact_json(expected) if isinstance(expected, dict | list) else expected
        return Admitted(
            text=body.text, expected_output=label, feedback=note.text if note else None, counts=dict(body.counts),
            version=body.version, doubts=body.doubts, text_key=key, cleared=body.cleared,
        )  # fmt: skip

    def ahead(self, texts: Sequence[str]) -> None:
        """Ask the cache about a batch at once."""
        if self._scans is None:
            return
        if len(self._fresh) >= _FLUSH:
            self.flush()
        try:
            redactor = self._redactor
        except GuardUnavailable:
            return  # the look at the first of them says so
        keys = {redactor.content_key(text) for text in texts if isinstance(text, str)}
        self._clean = self._scans.known(redactor.version, keys)

    def flush(self) -> None:
        """Have the cache remember what was found clean."""
        if self._scans is not None and self._fresh:
            self._scans.remember(self._redactor.version, self._fresh)
        self._fresh = set()

    def _body(self, key: bytes, text: str) -> Redaction:
        redactor = self._redactor
        if key in self._clean:
            return Redaction(text=text, counts={}, version=redactor.version)
        body = redactor.redact(text, self._cleared.get(key, ()))
        if not body.cleared:  # a redacted text holds nothing: the second look of a training need not look
            self._fresh.add(redactor.content_key(body.text))
        return body

    @property
    def _redactor(self) -> Redactor:
        self._known = self._known or redactor_for(names=self._agent.redact_names)
        return self._known
