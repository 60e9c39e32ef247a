"""How much of a batch may be the model's own answers, coming back as labels."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from perennial.domain.origin import allowance
from perennial.selection.sent import Sent


def cap_self_labelled(sent: Sequence[Sent], *, total: int, share: float) -> tuple[UUID, ...]:
    """Ids of the self-labelled rows beyond ``share`` of ``total`` claimed rows; the first of ``sent`` stay.

    A model that learns its own answers grows surer of its mistakes (confirmation bias: Arazo et al., Pseudo-Labeling and
    Confirmation Bias in Deep Semi-Supervised Learning, 2020). A batch in which the share is less than one row is left alone.

    >>> from perennial.domain.example import TrainingRow
    >>> from perennial.domain.words import Source
    >>> own = [Sent(row=TrainingRow(example_id=UUID(int=i), task="t", text="", label="a"), kind=Source.EXAMPLE, alias="x",
    ...             trusted=True, young=False, self_labelled=i < 5) for i in range(20)]
    >>> [identity.int for identity in cap_self_labelled(own, total=20, share=0.1)]
    [2, 3, 4]
    """
    allowed = allowance(total, share)
    if total and share > 0 and allowed < 1:
        return ()
    own = [one.example_id for one in sent if one.self_labelled and not one.released]
    return tuple(own[allowed:])
