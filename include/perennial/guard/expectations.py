"""The Great Expectations suite of a task: which expectations hold a batch to its fleet file, under names of our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from perennial.domain.words import TaskKind

COLUMNS = ("row_id", "text", "label", "label_ok", "label_share", "age_days")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How much a batch may deviate. Shares between 0 and 1.

    A redacted text can be longer than the one that was sent (a stand-in replaces a shorter value), hence ``growth``.
    In a small batch one pair of doubles is a large share, so it bears ``small_doubled``: doubles with one label do not enter the
    buffer, so what is left are two labels for one text.
    """

    batch_rows: int = 50  # from here on the batch as a whole is judged
    dominant: float = 0.98  # largest share of one label
    max_age_days: float = 730.0
    old: float = 0.5  # share of rows that may be older
    doubled: float = 0.10  # share of rows whose text repeats
    small_doubled: float = 0.5
    too_long: float = 0.05
    growth: float = 4.0  # times max_length


@dataclass(frozen=True, slots=True)
class Named:
    """An expectation with the name that reports use; ``batch`` ones give a number, the others row ids."""

    name: str
    expectation: Any
    batch: bool = False


def suite(*, kind: TaskKind, labels: Sequence[str] | None, max_length: int, rows: int, limits: Limits) -> list[Named]:
    """The expectations for a batch of ``rows`` rows. Imports Great Expectations."""
    import great_expectations.expectations as gxe

    doubled = limits.doubled if rows >= limits.batch_rows else limits.small_doubled
    named = [
        Named("columns_present", gxe.ExpectTableColumnsToMatchSet(column_set=list(COLUMNS), exact_match=True), batch=True),
        Named("row_ids_unique", gxe.ExpectColumnValuesToBeUnique(column="row_id")),
        Named("text_present", gxe.ExpectColumnValuesToNotBeNull(column="text")),
        Named("text_type", gxe.ExpectColumnValuesToBeInTypeList(column="text", type_list=["str"])),
        Named("text_not_blank", gxe.ExpectColumnValuesToMatchRegex(column="text", regex=r"(?s)\S")),
        Named("text_length", gxe.ExpectColumnValueLengthsToBeBetween(
            column="text", min_value=1, max_value=int(max_length * limits.growth), mostly=1 - limits.too_long)),
        Named("text_repeats", gxe.ExpectColumnValuesToBeUnique(column="text", mostly=1 - doubled)),
        Named("label_present", gxe.ExpectColumnValuesToNotBeNull(column="label")),
        Named("label_form", gxe.ExpectColumnValuesToBeInSet(column="label_ok", value_set=[True])),
    ]  # fmt: skip
    if kind is TaskKind.SCORE:
        named.append(
            Named("score_range", gxe.ExpectColumnValuesToBeBetween(column="label", min_value=0.0, max_value=1.0))
        )
    elif labels is not None:
        named.append(Named("label_known", gxe.ExpectColumnValuesToBeInSet(column="label", value_set=list(labels))))
    if rows >= limits.batch_rows:
        named += [
            Named("class_balance", gxe.ExpectColumnMaxToBeBetween(column="label_share", max_value=limits.dominant), batch=True),
            Named("freshness", gxe.ExpectColumnValuesToBeBetween(
                column="age_days", min_value=-1.0, max_value=limits.max_age_days, mostly=1 - limits.old)),
        ]  # fmt: skip
    return named
