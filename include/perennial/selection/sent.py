"""A claimed row with what is known of its sender, and whom the caps leave alone."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from uuid import UUID

from perennial.domain.example import TrainingRow
from perennial.domain.origin import Origin
from perennial.domain.words import Source

TRUSTED = (
    "gateway/*",  # what was served, with the truth that a caller of the data plane told
    "sample/*",
    "import/*",  # `perennial import`: a person at the deployment's own command line
    "inbox/inbox:*",  # a dropped file whose records name no sender of their own
    "*/",  # no sender named: the agent's own program, not one of its users
)
UNNAMED = "unnamed"
_ALIAS = 10  # hex digits: enough to tell a deployment's sources apart in a report


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """One claimed row and its sender. ``alias`` stands for the sender in reports, since its name may be a person's."""

    row: TrainingRow
    kind: Source
    alias: str
    trusted: bool
    young: bool
    self_labelled: bool = False
    released: bool = False

    @property
    def example_id(self) -> UUID:
        """The row's id."""
        return self.row.example_id

    @property
    def urgent(self) -> bool:
        """Whether a person corrected the model and waits."""
        return self.row.correction and self.row.priority >= 2


def is_trusted(kind: Source, source_id: str, patterns: Iterable[str]) -> bool:
    """Whether a pattern ``kind/source_id`` fits, with ``*`` and ``?`` on either side of the first slash.

    ``kind`` is the way in, which a sender cannot choose; so ``gateway/*`` cannot be had by calling oneself "gateway".

    >>> is_trusted(Source.GATEWAY, "gateway", TRUSTED), is_trusted(Source.EXAMPLE, "gateway", TRUSTED)
    (True, False)
    >>> is_trusted(Source.EXAMPLE, "", TRUSTED), is_trusted(Source.CORRECTION, "desk-4", ["*/desk-?"])
    (True, True)
    """
    for pattern in patterns:
        of_kind, _, of_id = pattern.partition("/")
        if fnmatchcase(kind.value, of_kind) and fnmatchcase(source_id, of_id):
            return True
    return False


def alias_of(agent: str, source_id: str) -> str:
    """What stands for a source in records and reports: part of a sha256, so that no name of a person gets there.

    >>> alias_of("scout", "jane"), alias_of("scout", "")
    ('0442f206da', 'unnamed')
    """
    return hashlib.sha256(f"{agent}\x1f{source_id}".encode()).hexdigest()[:_ALIAS] if source_id else UNNAMED


def senders(
    agent: str, rows: Iterable[TrainingRow], origins: dict[UUID, Origin], *, patterns: Collection[str],
    own: Collection[str], young_days: float, now: datetime, founded: datetime | None,
) -> tuple[Sent, ...]:  # fmt: skip
    """Each row with its sender, in order.

    Trusted are the kinds and names of ``patterns``, and the aliases in ``own``. Young is a sender first seen less than
    ``young_days`` before ``now`` and after ``founded``, when the agent's first version was made: who was there then is not new.
    """
    line = now - timedelta(days=young_days)
    found = []
    for row in rows:
        origin = origins[row.example_id]
        alias = alias_of(agent, origin.source_id)
        trusted = alias in own or is_trusted(origin.kind, origin.source_id, patterns)
        young = origin.first_seen > line and (founded is None or origin.first_seen > founded)
        found.append(
            Sent(
                row=row, kind=origin.kind, alias=alias, trusted=trusted, young=young and not trusted,
                self_labelled=origin.self_labelled, released=origin.released,
            )
        )  # fmt: skip
    return tuple(found)
