"""Admission: from raw to ready. The only code that reads originals, with a database role of its own.

For each waiting row it hands the original to the caller's examiner and stores what comes back: the redacted record, or
the reason for which the row stands in quarantine. Nothing of a text is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

from perennial.domain.words import JSON
from perennial.errors import GuardUnavailable
from perennial.storage.database import Database
from perennial.storage.queries import load

if TYPE_CHECKING:
    from perennial.storage.database import Connection

logger = logging.getLogger(__name__)

GUARD_AWAY = "guard_unavailable"
_ASKED = ("example_id", "task", "input_text", "expected_output", "user_feedback")


@dataclass(frozen=True, kw_only=True, slots=True)
class Admitted:
    """The redacted record, with the number of replacements by type and the redactor's version."""

    text: str
    expected_output: JSON
    feedback: str | None
    counts: Mapping[str, int] = field(default_factory=dict)
    version: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """Why a record must not be trained on; a short code, never a value."""

    reason: str


Examine: TypeAlias = Callable[[str, str, JSON, "str | None"], Admitted | Refused]
"""``examine(task, text, expected_output, user_feedback)``; raises GuardUnavailable when it cannot look."""

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

    def as_dict(self) -> dict[str, int]:
        """Plain JSON."""
        return asdict(self)


def never(text: str) -> bool:
    """Nothing is personal: for twins and trials that know their texts."""
    return False


class Admission:
    """Admits rows with the ``admit`` role. Two at once share the work; a kill loses and repeats nothing."""

    _sql = load("perennial.ingest", "admit.sql")

    def __init__(self, database: Database, *, batch: int = 100) -> None:
        self._database, self._batch = database, batch

    def run(self, agent: str, examine: Examine, personal: Personal = never) -> AdmitOutcome:
        """Admit every waiting row of the agent, a batch per transaction, also those that waited for an absent guard.

        A model's answer that ``personal`` objects to is taken off its row.

        An examiner that raises GuardUnavailable sends the rest of the waiting rows to quarantine without asking again;
        the next run looks at them anew. Any other exception quarantines its row alone: one text cannot stop the rest.
        """
        self.release(agent)
        totals = {"admitted": 0, "unlabelled": 0, "quarantined": 0, "unavailable": 0}
        look = guarded(examine)
        for statement in ("take_urgent", "take_raw", "take_unlabelled"):
            while self._one_batch(agent, statement, look, totals, personal):
                pass
        if totals["unavailable"]:
            logger.error("the guard of %s was away: %s rows wait in quarantine", agent, totals["unavailable"])
        return AdmitOutcome(**totals)

    def release(self, agent: str) -> int:
        """Let rows wait again that stood aside for an absent guard or for a task that the fleet knows by now."""
        with self._database.connection() as connection:
            return sum(
                connection.execute(self._sql[statement], {"agent": agent}).rowcount
                for statement in ("release_guard", "release_tasks")
            )

    def _one_batch(
        self, agent: str, statement: str, look: Look, totals: dict[str, int], personal: Personal
    ) -> int:  # fmt: skip
        with self._database.connection() as connection:
            rows = connection.execute(self._sql[statement], {"agent": agent, "limit": self._batch}).fetchall()
            found: list[tuple[dict[str, Any], Admitted | Refused]] = [
                (row, look(*(row[name] for name in _ASKED))) for row in rows
            ]
            refused = [(row, answer) for row, answer in found if isinstance(answer, Refused)]
            accepted = [self._stored(row, answer, personal) for row, answer in found if isinstance(answer, Admitted)]
            with connection.cursor() as cursor:
                cursor.executemany(self._sql["admitted"], accepted)
            for row, answer in refused:
                self._refuse(connection, row, answer)
            connection.execute(self._sql["count"], {"agent": agent, "amount": len(refused)})
        totals["admitted"] += sum(values["label"] is not None for values in accepted)
        totals["unlabelled"] += sum(values["label"] is None for values in accepted)
        totals["quarantined"] += len(refused)
        totals["unavailable"] += sum(answer.reason == GUARD_AWAY for _row, answer in refused)
        return len(rows)

    def _stored(self, row: Mapping[str, Any], answer: Admitted, personal: Personal) -> dict[str, Any]:
        from psycopg.types.json import Jsonb

        predicted = row["predicted_output"]
        return {
            "hide_predicted": isinstance(predicted, str) and personal(predicted),
            "example_id": row["example_id"], "text": answer.text, "feedback": answer.feedback,
            "label": None if answer.expected_output is None else Jsonb(answer.expected_output),
            "redaction": Jsonb({"counts": dict(answer.counts), "version": answer.version}),
        }  # fmt: skip

    def _refuse(self, connection: Connection, row: Mapping[str, Any], answer: Refused) -> None:
        connection.execute(self._sql["quarantined"], {"example_id": row["example_id"], "reason": answer.reason[:200]})
        if row["correction"] and answer.reason != GUARD_AWAY:
            connection.execute(self._sql["restore_corrected"], row)


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
