"""What a person may set of an agent for a while without a new file, and an agent with such settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, get_type_hints

from perennial.domain.words import JSON
from perennial.errors import FleetError
from perennial.fleet.agent import Agent

LONGEST_SECONDS = 30 * 86_400.0  # what shall hold for longer belongs into the file


class Bound(StrEnum):
    """In which direction an override may go from what the file says."""

    FREE = "free"
    LOWER = "lower"  # a gate: only stricter
    HIGHER = "higher"


# A gate may be made stricter here and never laxer, nor may who approves, what is redacted, or which program runs: these
# need a new file, which is reviewed, and whose digest is in the manifest. ADR 19.
ALLOWED: Mapping[str, Bound] = {
    "update_threshold": Bound.FREE,
    "max_buffer_size": Bound.FREE,
    "selection.batch": Bound.FREE,
    "selection.replay": Bound.FREE,
    "selection.source_share": Bound.LOWER,
    "selection.young_share": Bound.LOWER,
    "selection.young_days": Bound.HIGHER,
    "selection.self_labelled_share": Bound.LOWER,
    "gates.rollback_threshold": Bound.LOWER,
    "gates.min_holdout": Bound.HIGHER,
    "gates.max_slice_drop": Bound.LOWER,
    "gates.stress_rows": Bound.HIGHER,
    "gates.k_folds_always": Bound.HIGHER,
    "gates.window_versions": Bound.HIGHER,
    "gates.corrections_learned": Bound.HIGHER,
    "rollout.min_samples": Bound.HIGHER,
    "rollout.step_seconds": Bound.HIGHER,
    "rollout.max_hold_seconds": Bound.FREE,
    "rollout.max_error_rate": Bound.LOWER,
    "rollout.max_latency_ratio": Bound.LOWER,
    "rollout.max_agreement_drop": Bound.LOWER,
    "rollout.max_slice_drop": Bound.LOWER,
    "rollout.label_delay_seconds": Bound.HIGHER,
    "rollout.bake_seconds": Bound.HIGHER,
    "rollout.shadow_requests": Bound.HIGHER,
    "breaker.window_seconds": Bound.HIGHER,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """One setting of one agent that holds until a time on the database's clock. ``value`` is plain JSON."""

    id: int
    agent: str
    key: str
    value: JSON
    actor: str
    reason: str
    set_at: datetime
    until: datetime

    def as_record(self, declared: Agent | None = None) -> dict[str, Any]:
        """Plain JSON for a job's record, a manifest and pages; with ``declared`` also what the file says."""
        record = {
            "id": self.id, "key": self.key, "value": self.value, "actor": self.actor, "reason": self.reason,
            "set_at": self.set_at.isoformat(timespec="seconds"), "until": self.until.isoformat(timespec="seconds"),
        }  # fmt: skip
        return record if declared is None else {**record, "declared": value_of(declared, self.key)}

    def __str__(self) -> str:
        return (
            f"{self.key}={json.dumps(self.value)} until {self.until:%Y-%m-%d %H:%M} UTC, by {self.actor}: {self.reason}"
        )


def value_of(agent: Agent, key: str) -> Any:
    """What an agent says for a dotted name such as ``gates.min_holdout``.

    KeyError when it has no such setting.
    """
    found: Any = agent
    for name in key.split("."):
        if not is_dataclass(found) or name not in {item.name for item in fields(found)}:
            raise KeyError(key)
        found = getattr(found, name)
    return found


def parse(key: str, text: str) -> JSON:
    """The value that a person typed, in the setting's own type; FleetError when the setting or the value is none.

    >>> parse("update_threshold", "20"), parse("gates.max_slice_drop", "0.02"), parse("gates.k_folds_always", "true")
    (20, 0.02, True)
    """
    if key not in ALLOWED:
        raise FleetError(
            f"{key[:60]!r} cannot be set for a while; change the agent's file, or set one of: {', '.join(ALLOWED)}"
        )
    kind = _kind(key)
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.strip().lower()]
        return int(text) if kind is int else float(text)
    except (ValueError, KeyError) as error:
        wanted = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise FleetError(f"{key} takes {wanted}, not {text[:40]!r}") from error


def applied(agent: Agent, values: Mapping[str, JSON]) -> Agent:
    """The agent with some settings of its own replaced; its own checks run. Raises FleetError when one does not fit.

    >>> from perennial.fleet import Task
    >>> from perennial.trainers.ewc_text import EwcText
    >>> agent = Agent(name="desk", owner="me", tasks=(Task(name="tone"),), trainer=EwcText())
    >>> applied(agent, {"gates.min_holdout": 200}).gates.min_holdout
    200
    """
    for key, value in values.items():
        if key not in ALLOWED:
            raise FleetError(f"{key[:60]!r} of {agent.name} cannot be set for a while; change the agent's file")
        _check_type(key, value)
        try:
            agent = _with(agent, key.split("."), value)
        except (ValueError, TypeError) as error:
            raise FleetError(f"{key} of {agent.name} cannot be {json.dumps(value)}: {error}") from error
    return agent


def holding(agent: Agent, overrides: Iterable[Override]) -> tuple[Agent, tuple[Override, ...], tuple[str, ...]]:
    """The agent with those overrides that fit its file, those, and in a sentence each what does not fit (any more)."""
    kept: list[Override] = []
    problems: list[str] = []
    result = agent
    for one in overrides:
        try:
            result = applied(result, {one.key: one.value})
        except FleetError as error:
            problems.append(
                f"its override does not fit: {error}; `perennial agent unset {agent.name} {one.key}` ends it"
            )
        else:
            kept.append(one)
    return result, tuple(kept), tuple(problems)


def loosens(key: str, value: JSON, declared: JSON) -> str:
    """Why an override would make a check laxer than the file does; empty when it does not.

    >>> loosens("gates.min_holdout", 50, 100)
    'gates.min_holdout may only be raised for a while (the file says 100); to lower it, change the file'
    >>> loosens("update_threshold", 5, 50)
    ''
    """
    bound = ALLOWED[key]
    if bound is Bound.LOWER and value > declared:
        return f"{key} may only be lowered for a while (the file says {declared}); to raise it, change the file"
    if bound is Bound.HIGHER and value < declared:
        return f"{key} may only be raised for a while (the file says {declared}); to lower it, change the file"
    return ""


def _with(value: Any, path: list[str], new: Any) -> Any:
    name, *rest = path
    return replace(value, **{name: _with(getattr(value, name), rest, new) if rest else new})


def _kind(key: str) -> type:
    owner: Any = Agent
    *rooms, name = key.split(".")
    for room in rooms:
        owner = get_type_hints(owner)[room]
    hint = get_type_hints(owner)[name]
    kinds = [one for one in getattr(hint, "__args__", (hint,)) if one is not type(None)]
    return kinds[0] if kinds[0] in (bool, int, float) else str


def _check_type(key: str, value: JSON) -> None:
    kind = _kind(key)
    fits = isinstance(value, bool) if kind is bool else isinstance(value, int) and not isinstance(value, bool)
    if kind is float:
        fits = isinstance(value, int | float) and not isinstance(value, bool)
    if not fits:
        raise FleetError(f"{key} takes a value of type {kind.__name__}")


def settings_of(agent: Agent) -> dict[str, Any]:
    """Every setting of an agent by its dotted name, as plain values, for people to read."""
    found: dict[str, Any] = {}
    for item in fields(agent):
        value = getattr(agent, item.name)
        if is_dataclass(value) and item.name not in {"trainer"}:
            found |= {f"{item.name}.{name}": one for name, one in asdict(value).items()}  # type: ignore[arg-type]
        elif item.name == "tasks":
            found["tasks"] = ", ".join(task.name for task in agent.tasks)
        elif item.name == "trainer":
            found["trainer"] = agent.trainer.key
        else:
            found[item.name] = value
    return found
