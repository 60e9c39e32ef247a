"""Holds a redacted batch to the expectations of its task, with Great Expectations, and reports ids and counts alone.

Great Expectations puts the offending values into most of its results. They are asked for in memory, because only that
result format names rows, and are dropped there: what leaves this file holds names of checks, counts and example ids.
Runs in the ``validate`` task of a training; needs no network and starts no thread, so a forked worker can use it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import uuid4

from perennial.domain.example import TrainingRow
from perennial.domain.words import JSON, TaskKind
from perennial.errors import GuardUnavailable
from perennial.guard.expectations import COLUMNS, Limits, Named, suite
from perennial.guard.records import is_label, is_score

MOST_IDS = 50  # of one check in a report
_RESULT = {"result_format": "COMPLETE", "unexpected_index_column_names": ["row_id"], "include_unexpected_rows": False}
_LOCK = (
    threading.Lock()
)  # the context is one for the process, and Great Expectations does not say it is safe for threads


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One expectation's outcome. ``row_ids`` are example ids, at most 50; ``observed`` is a number of the whole batch."""

    name: str
    success: bool
    unexpected_count: int = 0
    row_ids: tuple[str, ...] = ()
    observed: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationReport:
    """What the suite of one task said about one batch; never holds a text or a label."""

    task: str
    success: bool
    rows: int
    checks: tuple[Check, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        record = asdict(self)
        record["checks"] = [{**check, "row_ids": list(check["row_ids"])} for check in record["checks"]]
        return record

    def failed(self) -> tuple[str, ...]:
        """Names of the checks that did not hold."""
        return tuple(check.name for check in self.checks if not check.success)


def validate_batch(
    rows: Sequence[TrainingRow], *, task: str, kind: TaskKind, labels: Sequence[str] | None, max_length: int,
    now: datetime, limits: Limits | None = None,
) -> ValidationReport:  # fmt: skip
    """Check the rows of one task; ``success`` False must stop the training.

    Class balance and freshness are judged from 50 rows on. An empty batch does not succeed. ``now`` has a time zone.
    Raises GuardUnavailable when the suite or one of its expectations could not be computed: no answer is no pass.
    """
    if not rows:
        return ValidationReport(task=task, success=False, rows=0, checks=(Check(name="rows_present", success=False),))
    limits = limits or Limits()
    try:
        named = suite(kind=kind, labels=labels, max_length=max_length, rows=len(rows), limits=limits)
        with _LOCK, _batch(_frame(rows, kind, now)) as batch:
            results = _results(batch, named)
    except Exception as problem:  # noqa: BLE001 - a foreign error's message may hold a value: only its type travels on
        raise GuardUnavailable(
            f"the expectations of {task} could not be computed ({type(problem).__name__}); "
            "see whether great-expectations and pandas of requirements.txt are installed"
        ) from None
    checks = tuple(_check(each, results.get(each.name)) for each in named)
    return ValidationReport(task=task, success=all(check.success for check in checks), rows=len(rows), checks=checks)


def _frame(rows: Sequence[TrainingRow], kind: TaskKind, now: datetime) -> Any:
    """The batch as columns of plain objects: pandas' own string type would hide a value of another type."""
    import pandas as pd

    shares = _label_shares([row.label for row in rows])
    right = is_score if kind is TaskKind.SCORE else is_label
    columns: dict[str, list[Any]] = {
        "row_id": [str(row.example_id) for row in rows],
        "text": [row.text for row in rows],
        "label": [_comparable(row.label, kind) for row in rows],
        "label_ok": [right(row.label) for row in rows],
        "label_share": shares,
        "age_days": [_age(row.created_at, now) for row in rows],
    }
    frame = pd.DataFrame({name: pd.Series(columns[name], dtype=object) for name in COLUMNS})
    for name in ("label_share", "age_days"):
        frame[name] = frame[name].astype(float)
    return frame


def _comparable(label: JSON, kind: TaskKind) -> JSON:
    """What the expectations on ranges can compare; a value of another type fails ``label_form`` by itself."""
    if kind is TaskKind.SCORE:
        return float(label) if is_score(label) else None
    return label if isinstance(label, str) or label is None else repr(label)


def _label_shares(labels: list[JSON]) -> list[float]:
    """For each row the share of the batch that bears its label."""
    keys = [repr(label) for label in labels]
    counts = Counter(keys)
    return [counts[key] / len(keys) for key in keys]


def _age(created: datetime | None, now: datetime) -> float:
    if created is None:
        return 0.0  # rows of tests and imports without a time; the buffer always has one
    stamp = created if created.tzinfo else created.replace(tzinfo=UTC)
    return (now - stamp).total_seconds() / 86_400


@lru_cache(maxsize=1)
def _context() -> Any:
    """The process's ephemeral context, without telemetry, progress bars or their monitor thread."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig
    from tqdm import tqdm  # type: ignore[import-untyped]

    tqdm.monitor_interval = 0  # tqdm starts a thread even for a bar that is off; a process that forks must have none
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL)  # its errors quote values
    context = gx.get_context(mode="ephemeral")
    context.enable_analytics(False)
    context.variables.progress_bars = ProgressBarsConfig(globally=False, metric_calculations=False)
    return context


@contextmanager
def _batch(frame: Any) -> Iterator[Any]:
    """The frame as a batch; the source is deleted afterwards, or the context would keep every batch it saw."""
    sources, name = _context().data_sources, f"batch-{uuid4().hex}"
    source = sources.add_pandas(name)
    try:
        yield (
            source.add_dataframe_asset("rows")
            .add_batch_definition_whole_dataframe("all")
            .get_batch({"dataframe": frame})
        )
    finally:
        sources.delete(name)


def _results(batch: Any, named: Sequence[Named]) -> dict[str, Any]:
    """One run for all expectations (half the time of one each); results come in an order of their own, with our name."""
    import great_expectations as gx

    for each in named:
        each.expectation.meta = {"check": each.name}
    whole = gx.ExpectationSuite(name="batch", expectations=[each.expectation for each in named])
    run = batch.validate(whole, result_format=_RESULT)
    return {result.expectation_config.meta["check"]: result for result in run.results}


def _check(named: Named, result: Any) -> Check:
    if result is None or (result.exception_info and _raised(result.exception_info)):
        raise GuardUnavailable(f"the expectation {named.name} could not be computed; the batch waits")
    found = result.result or {}
    observed = found.get("observed_value") if named.batch else None
    return Check(
        name=named.name,
        success=bool(result.success),
        unexpected_count=int(found.get("unexpected_count") or 0),
        row_ids=_ids(found.get("unexpected_index_list") or ()),
        observed=float(observed) if isinstance(observed, int | float) and not isinstance(observed, bool) else None,
    )


def _raised(info: Any) -> bool:
    """Great Expectations gives one record, or one for each metric that failed."""
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(isinstance(each, dict) and each.get("raised_exception") for each in info.values())


def _ids(places: Sequence[Any]) -> tuple[str, ...]:
    """Each place is a dict with the offending value beside the row id; only the id goes on."""
    return tuple(str(place["row_id"]) for place in places[:MOST_IDS] if "row_id" in place)
