"""Where a row came from, beside what it says: what the defences against poisoning go by."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import floor

from perennial.domain.words import JSON, Source

RELEASED = "released"  # the reason on rows that a person let train again; the screening leaves them alone
SOURCE_CAP = "source_cap"
LABEL_CONFLICT = "label_conflict"
NEAR_DUPLICATE_FLOOD = "near_duplicate_flood"
SELF_LABELLED_CAP = "self_labelled_cap"
NEW_LABEL = "new_label_waiting"
HELD_WORDS = (SOURCE_CAP, LABEL_CONFLICT, NEAR_DUPLICATE_FLOOD, SELF_LABELLED_CAP, NEW_LABEL)
REFUSED = "refused by the gate"  # how the longer reasons of refused trainings are told

_SENT_WITH_ITS_LABEL = (Source.EXAMPLE, Source.IMPORT, Source.INBOX)


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """The origin of one stored row.

    ``kind`` is the way in, which our own code sets; ``source_id`` is what the caller said. ``first_seen`` is when the agent's
    buffer first took in a row of this ``source_id``, on the database's clock: a sender cannot date itself back.
    """

    kind: Source
    source_id: str
    first_seen: datetime
    self_labelled: bool = False
    released: bool = False


def self_labelled(kind: Source, label: JSON, predicted: JSON) -> bool:
    """Whether a label is a model's own answer and nothing from outside confirms it.

    That is so for examples that carry a prediction equal to their label. An outcome (``gateway``, ``sample``), feedback with
    ``actual_output`` and a correction say what was true, whatever the model had answered, so those are not self-labelled. The
    database's function ``perennial.self_labelled`` says the same.

    >>> self_labelled(Source.EXAMPLE, "sports", "sports"), self_labelled(Source.SAMPLE, "sports", "sports")
    (True, False)
    """
    return kind in _SENT_WITH_ITS_LABEL and predicted is not None and label == predicted


def allowance(rows: int, share: float) -> int:
    """Whole rows within a share of ``rows``; the same in Python and in the database's exact decimals.

    >>> allowance(100, 0.29), allowance(49, 0.02), allowance(50, 0.02)
    (29, 0, 1)
    """
    return floor(rows * share + 1e-9)
