"""What is wrong with a fleet file beyond that it loads: settings that contradict each other or can never be met."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from perennial.domain.words import TaskKind
from perennial.fleet.agent import Agent, Breaker, Gates, Rollout, Selection, Task
from perennial.fleet.loader import FleetFileError, Member, load_file
from perennial.guard.records import is_label
from perennial.rollout.machine import Plan
from perennial.trainers.catalogue import catalogue

_METRICS = ("accuracy", "macro_f1", "macro_auc", "within_tolerance")
_BY_LABEL = ("precision", "recall", "auc")
_TARGETS = ("gateway", "folder")
_PARTS = {"Agent": Agent, "Task": Task, "Selection": Selection, "Gates": Gates, "Rollout": Rollout, "Breaker": Breaker}
_UNEXPECTED = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """One thing that is wrong. ``field`` is the setting's name, which leads to its line; ``says`` what it means."""

    field: str
    says: str


def check_file(file: Path) -> tuple[FleetFileError, ...]:
    """Everything that is wrong with one fleet file, with its lines in order. Runs in the CLI; imports no training library."""
    found = load_file(file)
    if isinstance(found, FleetFileError):
        return (FleetFileError(file=found.file, line=found.line, message=meaning(found.message)),)
    return check_member(found)


def check_member(member: Member) -> tuple[FleetFileError, ...]:
    """The same of an agent that was loaded."""
    tree = ast.parse(member.file.read_text(encoding="utf-8"))
    errors = [
        FleetFileError(
            file=str(member.file), line=_line_of(tree, mistake.field), message=f"{mistake.field}: {mistake.says}"
        )
        for mistake in mistakes(member.as_declared)
    ]
    return tuple(sorted(errors, key=lambda error: error.line))


def mistakes(agent: Agent) -> tuple[Mistake, ...]:
    """What is wrong with an agent that could be made.

    >>> from perennial.trainers.ewc_text import EwcText
    >>> agent = Agent(name="desk", owner="me", tasks=(Task(name="tone", labels=("good",)),), trainer=EwcText())
    >>> [str(one.says) for one in mistakes(agent)]
    ['the task tone has one label, so there is nothing to tell apart; name all labels, or leave labels out']
    """
    wrong_types = tuple(_types(agent))
    if wrong_types:
        return wrong_types  # the rest compares numbers
    return (*_tasks(agent), *_sizes(agent), *_gates(agent), *_rollout(agent), *_trainer(agent))


def meaning(message: str) -> str:
    """What Python's words about a fleet file mean, and what to do.

    >>> meaning("TypeError: Gates.__init__() got an unexpected keyword argument 'min_acuracy'")
    'Gates has no setting min_acuracy; did you mean min_accuracy?'
    """
    found = _UNEXPECTED.search(message)
    if found and found[1] in _PARTS:
        names = [item.name for item in fields(_PARTS[found[1]])]
        near = difflib.get_close_matches(found[2], names, n=1)
        return f"{found[1]} has no setting {found[2]}; " + (
            f"did you mean {near[0]}?" if near else f"it has: {', '.join(names)}"
        )
    if message.startswith("NameError"):
        return f"{message}; import it at the top of the file"
    if message.startswith(("ModuleNotFoundError", "ImportError")):
        return f"{message}; a fleet file may import what is installed where Airflow runs, and perennial itself"
    if "missing" in message and "required keyword-only argument" in message:
        return f"{message}; every agent needs a name, an owner, tasks and a trainer"
    return message


# --- types -----------------------------------------------------------------------------------------------------------------------


def _types(value: Any) -> Iterator[Mistake]:
    hints = get_type_hints(type(value))
    for item in fields(value):
        given, hint = getattr(value, item.name), hints[item.name]
        if is_dataclass(given) and item.name != "trainer":
            yield from _types(given)
        elif item.name == "tasks":
            for task in given:
                yield from (
                    _types(task)
                    if isinstance(task, Task)
                    else [Mistake(field="tasks", says="holds what is no Task(...)")]
                )
        elif item.name != "trainer" and not _fits(given, hint):
            yield Mistake(field=item.name, says=f"is {type(given).__name__}, and must be {_told(hint)}")


def _fits(value: Any, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(one, inner[0]) for one in value)
    if origin is not None:  # mappings
        return isinstance(value, origin)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if hint is type(None) else isinstance(value, hint)


def _told(hint: Any) -> str:
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_told(one) for one in get_args(hint))
    if get_origin(hint) is tuple:
        return (
            f'a tuple of {_told(get_args(hint)[0])}, such as ("a", "b")'
            if get_args(hint)[0] is str
            else "a tuple of numbers"
        )
    if hint is type(None):
        return "None"
    return {int: "a whole number", float: "a number", str: "a text in quotes", bool: "True or False"}.get(
        hint, getattr(hint, "__name__", str(hint))
    )


# --- what contradicts itself -------------------------------------------------------------------------------------------------------


def _tasks(agent: Agent) -> Iterator[Mistake]:
    for task in agent.tasks:
        if task.kind is TaskKind.SCORE and task.labels is not None:
            yield Mistake(
                field="labels",
                says=f"the task {task.name} answers with a number from 0 to 1 without labels; take one out",
            )
        elif task.labels is not None and len(task.labels) < 2:
            count = "no label" if not task.labels else "one label"
            yield Mistake(
                field="labels",
                says=f"the task {task.name} has {count}, so there is nothing to tell apart; name all labels, or leave labels out",
            )
        bad = [label for label in task.labels or () if not is_label(label)]
        if bad:
            yield Mistake(
                field="labels",
                says=f"{len(bad)} of the task {task.name} can name no class: one short line, no @, fewer than six digits",
            )
        if task.new_label_rows < 1 or task.max_length < 1:
            yield Mistake(
                field="new_label_rows" if task.new_label_rows < 1 else "max_length",
                says=f"of the task {task.name} must be 1 or more",
            )


def _sizes(agent: Agent) -> Iterator[Mistake]:
    selection = agent.selection
    for name, value in (("update_threshold", agent.update_threshold), ("max_buffer_size", agent.max_buffer_size)):
        if value is not None and value < 1:
            yield Mistake(field=name, says="must be 1 or more, or left out for the deployment's setting")
    if agent.update_threshold and agent.max_buffer_size and agent.update_threshold > agent.max_buffer_size:
        yield Mistake(
            field="update_threshold",
            says=f"{agent.update_threshold} rows never wait in a buffer of {agent.max_buffer_size}, so it is never due",
        )
    if selection.batch < 1:
        yield Mistake(field="batch", says="must be 1 or more: a training without rows teaches nothing")
    if selection.replay < 0:
        yield Mistake(field="replay", says="must be 0 or more")
    if not 0.0 < selection.holdout_share < 1.0:
        yield Mistake(
            field="holdout_share",
            says="must lie between 0 and 1: without holdout rows nothing can be measured, and no candidate ever passes",
        )
    if selection.holdout_max < 1:
        yield Mistake(field="holdout_max", says="must be 1 or more: without holdout rows no candidate ever passes")


def _gates(agent: Agent) -> Iterator[Mistake]:
    gates, tasks = agent.gates, {task.name: task for task in agent.tasks}
    if gates.min_holdout > agent.selection.holdout_max:
        yield Mistake(
            field="min_holdout",
            says=f"{gates.min_holdout} rows are never measured, since holdout_max is {agent.selection.holdout_max}; lower it or raise that",
        )
    for field, names in (("min_accuracy", gates.min_accuracy), ("min_metrics", gates.min_metrics)):
        for name in names:
            if name not in tasks:
                yield Mistake(
                    field=field, says=f"names the task {name!r}, which the agent has not; it has: {', '.join(tasks)}"
                )
    for name, metrics in gates.min_metrics.items():
        task = tasks.get(name)
        for metric in metrics if task is not None else ():
            problem = _metric_problem(metric, task)
            if problem:
                yield Mistake(field="min_metrics", says=problem)


def _metric_problem(metric: str, task: Task | None) -> str:
    assert task is not None
    kind, _, label = metric.partition(":")
    if not label:
        known = metric in _METRICS
        return (
            ""
            if known
            else f"names the metric {metric!r}; there are: {', '.join(_METRICS)}, and {', '.join(_BY_LABEL)} with :LABEL"
        )
    if kind not in _BY_LABEL:
        return f"names the metric {metric!r}; by label there are: {', '.join(_BY_LABEL)}"
    if task.labels is not None and label not in task.labels:
        near = difflib.get_close_matches(label, task.labels, n=1)
        return f"names the label {label!r}, which the task {task.name} has not" + (
            f"; did you mean {near[0]!r}?" if near else ""
        )
    return ""


def _rollout(agent: Agent) -> Iterator[Mistake]:
    rollout = agent.rollout
    try:
        Plan(**{name: getattr(rollout, name) for name in Rollout.__slots__})
    except ValueError as error:
        yield Mistake(field="steps" if "steps" in str(error) else "rollout", says=str(error))
    unknown = [target for target in rollout.targets if target not in _TARGETS]
    if unknown:
        yield Mistake(field="targets", says=f"names {', '.join(map(repr, unknown))}; there are: {', '.join(_TARGETS)}")
    if agent.breaker.refused < 0 or agent.breaker.window_seconds <= 0:
        yield Mistake(field="breaker", says="refused must be 0 or more, and window_seconds above 0")


def _trainer(agent: Agent) -> Iterator[Mistake]:
    known = catalogue()
    if agent.trainer.key not in known:
        yield Mistake(
            field="trainer",
            says=f"no file of perennial/trainers claims the key {agent.trainer.key!r}, so its models could not be loaded again",
        )
    problems = getattr(agent.trainer, "problems", None)
    for says in problems() if callable(problems) else ():
        yield Mistake(field="trainer", says=says)


def _line_of(tree: ast.Module, field: str) -> int:
    """The line of the first keyword of that name, else that of ``AGENT =``."""
    lines = [
        keyword.value.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == field
    ]
    if lines:
        return min(lines)
    declared = [
        node.lineno
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(name, ast.Name) and name.id == "AGENT" for name in node.targets)
    ]
    return declared[0] if declared else 1
