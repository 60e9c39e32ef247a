"""Admission: from raw to ready. The only code that reads originals, with a database role of its own.

For each waiting row it hands the original to the caller's examiner and stores what comes back: the redacted record, with a task
for a person where a detector was not sure, or the reason for which the row stands in quarantine. Rows that another version of the
redactor made are redacted again. Nothing of a text is logged.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from perennial.domain.redaction import Doubt
from perennial.domain.words import JSON
from perennial.errors import GuardUnavailable
from perennial.storage.database import Database
from perennial.storage.queries import load

if TYPE_CHECKING:
    from perennial.storage.database import Connection

logger = logging.getLogger(__name__)

GUARD_AWAY = "guard_unavailable"
REDACTOR_CHANGED = "redactor_changed"
_ASKED = ("example_id", "task", "input_text", "expected_output", "user_feedback")


@dataclass(frozen=True, kw_only=True, slots=True)
class Admitted:
    """The redacted record, with the number of replacements by type and the redactor's version.

    ``doubts`` are replaced like all finds, and a person is asked about them under ``text_key``, a keyed digest of the original.
    ``cleared``: keys of words that stand because a person said so.
    """

    text: str
    expected_output: JSON
    feedback: str | None
    counts: Mapping[str, int] = field(default_factory=dict)
    version: str = ""
    doubts: tuple[Doubt, ...] = field(default=(), repr=False)
    text_key: bytes = b""
    cleared: tuple[str, ...] = ()

    def as_note(self) -> dict[str, Any]:
        """What the row remembers of its redaction: no words."""
        note: dict[str, Any] = {"counts": dict(self.counts), "version": self.version}
        return {**note, "cleared": list(self.cleared)} if self.cleared else note


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Why a record must not be trained on; a short code, never a value."""

    reason: str


Examine: TypeAlias = Callable[[str, str, JSON, "str | None"], Admitted | Refused]
"""``examine(task, text, expected_output, user_feedback)``; raises GuardUnavailable when it cannot look."""

Ahead: TypeAlias = Callable[[Sequence[str]], None]
"""Told the texts of a batch before they are examined one by one."""

Personal: TypeAlias = "Callable[[str], bool]"
"""Whether a short text, such as a model's answer, holds personal data."""

Look: TypeAlias = Callable[[UUID, str, str, JSON, "str | None"], Admitted | Refused]


@dataclass(frozen=True, kw_only=True, slots=True)
class AdmitOutcome:
    """What one run did with the waiting rows, as counts."""

    admitted: int = 0
    unlabelled: int = 0
    quarantined: int = 0
    unavailable: int = 0  # among the quarantined: the guard was away
    unsure: int = 0  # among the admitted: a person is asked about a find

    def as_dict(self) -> dict[str, int]:
        """Plain JSON."""
        return asdict(self)


_STALE_TRAINED = ("stale_trained_below", "stale_trained_above")


def is_personal(answer: JSON, personal: Personal) -> bool:
    """Whether a model's answer is a text that ``personal`` objects to."""
    return isinstance(answer, str) and personal(answer)


def never(text: str) -> bool:
    """Nothing is personal: for twins and trials that know their texts."""
    return False


class Admission:
    """Admits rows with the ``admit`` role. Two at once share the work; a kill loses and repeats nothing."""

    _sql = load("perennial.ingest", "admit.sql")
    _overtake = load("perennial.ingest", "aside.sql")["aside_overtake"]

    def __init__(self, database: Database, *, batch: int = 100) -> None:
        self._database, self._batch = database, batch

    def run(
        self, agent: str, examine: Examine, ahead: Ahead | None = None, personal: Personal = never
    ) -> AdmitOutcome:  # fmt: skip
        """Admit every waiting row of the agent, a batch per transaction, also those that waited for an absent guard.

        A model's answer that ``personal`` objects to is taken off its row.

        An examiner that raises GuardUnavailable sends the rest of the waiting rows to quarantine without asking again;
        the next run looks at them anew. Any other exception quarantines its row alone: one text cannot stop the rest.
        """
        self.release(agent)
        totals = {"admitted": 0, "unlabelled": 0, "quarantined": 0, "unavailable": 0, "unsure": 0}
        look = guarded(examine)
        for statement in ("take_urgent", "take_raw", "take_unlabelled"):
            while self._one_batch(agent, statement, look, totals, ahead, personal):
                pass
        if totals["unavailable"]:
            logger.error("the guard of %s was away: %s rows wait in quarantine", agent, totals["unavailable"])
        return AdmitOutcome(**totals)

    def waiting(self, agents: Sequence[str]) -> list[str]:
        """Those of the agents with rows that ``run`` or the release of new labels may move, in their order. Probes of indexes: its
        time grows with the number of agents and not with their rows."""
        with self._database.connection() as connection:
            rows = connection.execute(self._sql["waiting_agents"], {"agents": list(agents)}).fetchall()
        found = {row["agent"] for row in rows}
        return [agent for agent in agents if agent in found]

    def release(self, agent: str) -> int:
        """Let rows wait again that stood aside for an absent guard or for a task that the fleet knows by now."""
        with self._database.connection() as connection:
            waiting = connection.execute(self._sql["release_guard"], {"agent": agent}).rowcount
            named = [
                row["example_id"] for row in connection.execute(self._sql["release_tasks"], {"agent": agent}).fetchall()
            ]
            if named:  # a correction under the right name at last outranks what came before it
                connection.execute(self._overtake, {"ids": named})
        return waiting + len(named)

    def redact_again(
        self, agent: str, version: str, redact: Examine, *, seconds: float, trained: bool, ahead: Ahead | None = None
    ) -> int:  # fmt: skip
        """Redact rows anew that another version than ``version`` made, from the original, or where none is left from what they hold.

        A row keeps its state, but for one that waited for exactly this. Begins with rows whose words a person let stand, and ends
        after about ``seconds``; the rest is done by the next call. ``trained``: also rows that were trained on, which later trainings
        replay. Returns how many rows were redacted. Killed anywhere, it goes on. A row that the redactor fails on is quarantined.
        """
        until = time.monotonic() + seconds
        look, done = guarded(redact), 0
        statements = ("stale_waiting", "stale_below", "stale_above", *(_STALE_TRAINED if trained else ()))
        for statement in statements:
            while time.monotonic() < until and (moved := self._again(agent, version, statement, look, ahead)):
                done += moved
        return done

    def _again(self, agent: str, version: str, statement: str, look: Look, ahead: Ahead | None) -> int:
        with self._database.connection() as connection:
            values = {"agent": agent, "version": version, "limit": self._batch}
            ids = [row["example_id"] for row in connection.execute(self._sql[statement], values).fetchall()]
            rows = connection.execute(self._sql["as_sent"], {"ids": ids}).fetchall() if ids else []
            if ahead is not None:
                ahead([row["input_text"] for row in rows])
            found = [(row, look(*(row[name] for name in _ASKED))) for row in rows]
            if any(isinstance(answer, Refused) and answer.reason == GUARD_AWAY for _row, answer in found):
                connection.rollback()
                return 0  # they stay as they are; the second look of a training keeps what must not be trained on
            done = [(row, answer) for row, answer in found if isinstance(answer, Admitted)]
            with connection.cursor() as cursor:
                cursor.executemany(self._sql["redacted_again"], [self._stored(row, answer) for row, answer in done])
            for row, answer in found:
                if isinstance(answer, Refused):
                    values = {"example_id": row["example_id"], "reason": answer.reason[:200]}
                    connection.execute(self._sql["quarantined"], values)
            connection.execute(self._sql["overtaken"], {"ids": ids})
            self._ask(connection, agent, done)
            self._unask(connection, agent, done)
            if statement == "stale_waiting" and rows:
                connection.execute(self._sql["wake"], {"agent": agent})
        return len(rows)

    def _one_batch(
        self, agent: str, statement: str, look: Look, totals: dict[str, int], ahead: Ahead | None, personal: Personal
    ) -> int:  # fmt: skip
        with self._database.connection() as connection:
            rows = connection.execute(self._sql[statement], {"agent": agent, "limit": self._batch}).fetchall()
            if ahead is not None:
                ahead([row["input_text"] for row in rows])
            found: list[tuple[dict[str, Any], Admitted | Refused]] = [
                (row, look(*(row[name] for name in _ASKED))) for row in rows
            ]
            refused = [(row, answer) for row, answer in found if isinstance(answer, Refused)]
            accepted = [
                self._stored(row, answer) | {"predicted": self._shown(row, answer, personal)}
                for row, answer in found
                if isinstance(answer, Admitted)
            ]
            with connection.cursor() as cursor:
                cursor.executemany(self._sql["admitted"], accepted)
            self._ask(connection, agent, [(row, answer) for row, answer in found if isinstance(answer, Admitted)])
            for row, answer in refused:
                self._refuse(connection, row, answer)
            connection.execute(self._sql["overtaken"], {"ids": [row["example_id"] for row in rows]})
            connection.execute(self._sql["count"], {"agent": agent, "amount": len(refused)})
        totals["admitted"] += sum(values["label"] is not None for values in accepted)
        totals["unlabelled"] += sum(values["label"] is None for values in accepted)
        totals["quarantined"] += len(refused)
        totals["unsure"] += sum(bool(answer.doubts) for _row, answer in found if isinstance(answer, Admitted))
        totals["unavailable"] += sum(answer.reason == GUARD_AWAY for _row, answer in refused)
        return len(rows)

    def _shown(self, row: Mapping[str, Any], answer: Admitted, personal: Personal) -> Any:
        """The model's answer as it may stand: one that is the label stands as the label does, so that everyone sees that it is."""
        from psycopg.types.json import Jsonb

        if row["own_answer"]:
            return None if answer.expected_output is None else Jsonb(answer.expected_output)
        predicted = row["predicted_output"]
        return None if predicted is None or is_personal(predicted, personal) else Jsonb(predicted)

    def _stored(self, row: Mapping[str, Any], answer: Admitted) -> dict[str, Any]:
        from psycopg.types.json import Jsonb

        return {
            "example_id": row["example_id"], "text": answer.text, "feedback": answer.feedback,
            "label": None if answer.expected_output is None else Jsonb(answer.expected_output),
            "redaction": Jsonb(answer.as_note()),
        }  # fmt: skip

    def _ask(self, connection: Connection, agent: str, found: Sequence[tuple[Mapping[str, Any], Admitted]]) -> None:
        """Open a task for each text with a find that nobody is sure of, in the transaction that replaces it."""
        from psycopg.types.json import Jsonb

        asked = sorted(
            ((answer.text_key, row, answer) for row, answer in found if answer.doubts), key=lambda one: one[0]
        )
        for key, row, answer in asked:  # in one order, so that two admissions never wait for each other
            values = {
                "agent": agent, "text_key": key, "task": row["task"], "example_id": row["example_id"], "version": answer.version,
                "kinds": Jsonb(kinds_of(answer.doubts)), "words": [doubt.key for doubt in answer.doubts],
                "doubts": Jsonb([asdict(doubt) for doubt in answer.doubts]),
            }  # fmt: skip
            connection.execute(self._sql["ask"], values)

    def _unask(self, connection: Connection, agent: str, found: Sequence[tuple[Mapping[str, Any], Admitted]]) -> None:
        """No detector is unsure any more: nobody needs to look, and the words go."""
        keys = sorted({answer.text_key for _row, answer in found if not answer.doubts and answer.text_key})
        if keys:
            connection.execute(self._sql["unask"], {"agent": agent, "keys": keys})

    def _refuse(self, connection: Connection, row: Mapping[str, Any], answer: Refused) -> None:
        connection.execute(self._sql["quarantined"], {"example_id": row["example_id"], "reason": answer.reason[:200]})
        if row["correction"] and answer.reason != GUARD_AWAY:
            connection.execute(self._sql["restore_corrected"], row)


def kinds_of(doubts: Sequence[Doubt]) -> dict[str, int]:
    """How many different words of each kind a person is asked about."""
    return dict(Counter(doubt.kind for doubt in doubts))


def guarded(examine: Examine) -> Look:
    """The examiner with its failures as answers; once it cannot look, it is not asked again."""
    away = False

    def look(example_id: UUID, task: str, text: str, expected: JSON, feedback: str | None) -> Admitted | Refused:
        nonlocal away
        if away:
            return Refused(reason=GUARD_AWAY)
        try:
            return examine(task, text, expected, feedback)
        except GuardUnavailable:
            away = True
            return Refused(reason=GUARD_AWAY)
        except Exception as error:  # noqa: BLE001 - one strange text must not keep all others out; it stands aside, visibly
            logger.error("the examiner failed on example %s with %s", example_id, type(error).__name__)
            return Refused(reason=f"examiner_failed:{type(error).__name__}")

    return look
