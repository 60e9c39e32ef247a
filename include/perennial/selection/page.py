"""The screening of a batch as lines of plain text, for the page that a person reads beside the gates' answers."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

_WHY = {
    "source_cap": "beyond the share of their source, or of all young ones; a later batch takes them",
    "label_conflict": "a near duplicate from another source has another label; a person decides",
    "near_duplicate_flood": "too many near duplicates of one text with one label",
    "self_labelled_cap": "too many labels that only repeat a model's own answer",
}


def screening_page(report: Mapping[str, Mapping[str, Any]]) -> str:
    r"""What each task's batch lost before training, and who was exempt; empty when nothing was screened.

    >>> print(screening_page({"topic": {"rows": 100, "kept": 72, "exempt": [], "held": {"source_cap": 28}, "trusted": 70,
    ...     "released": 0, "self_labelled": 0, "source_rows": 2, "young_rows": 5, "sources": [{}, {}], "more_sources": 0}}))
    <BLANKLINE>
    SCREENING (before training)
      topic: 72 of 100 rows of 2 sources were trained on
          28 held (source_cap): beyond the share of their source, or of all young ones; a later batch takes them
          an untrusted source has at most 2 rows here, all young ones together 5; 70 rows are of trusted sources
    <BLANKLINE>
    """
    if not report:
        return ""
    lines = ["", "SCREENING (before training)"]
    for task, found in sorted(report.items()):
        count = len(found["sources"]) + found["more_sources"]
        lines.append(f"  {task}: {found['kept']} of {found['rows']} rows of {count} sources were trained on")
        told = [f"{rows} held ({reason}): {_WHY.get(reason, '')}" for reason, rows in sorted(found["held"].items())]
        told += [f"exempt from the caps: {reason}" for reason in found["exempt"]]
        if found["source_rows"] is not None:
            told.append(
                f"an untrusted source has at most {found['source_rows']} rows here, all young ones together {found['young_rows']}; "
                f"{found['trusted']} rows are of trusted sources"
            )
        if found["released"]:
            told.append(f"{found['released']} rows were let through by a person")
        if found.get("holdout_left_out"):
            told.append(f"{found['holdout_left_out']} holdout rows beyond their source's share were not measured on")
        for sentence in told:
            lines += textwrap.wrap(sentence, 118, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"
