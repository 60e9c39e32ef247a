"""Pages that the shipped example DAGs refresh when a sensor fires: what waits in a buffer, what a promotion changed."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from perennial.bridge.hooks import task_ports

if TYPE_CHECKING:
    from perennial.flows.ports import Ports

logger = logging.getLogger(__name__)


def write_buffer_page(ready: Sequence[Mapping[str, str]]) -> str:
    """One page about the agents that are due: rows by task and state, corrections by tag. Returns its path."""
    ports = task_ports()
    parts = [f"# Buffers that are ready\n\nas of {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n"]
    for one in ready:
        counts = ports.buffer.counts(one["agent"])
        parts.append(f"## {one['agent']} ({one['reason']})\n\n{table(counts)}\n")
        for tag, states in sorted(ports.buffer.corrections_by_tag(one["agent"]).items()):
            parts.append(
                f"- corrections tagged {tag or 'manual'}: " + ", ".join(f"{n} {s}" for s, n in sorted(states.items()))
            )
    return _write(ports, "buffers.md", "\n".join(parts))


def write_promotion_page(promoted: Sequence[Mapping[str, str]]) -> str:
    """One page per agent that serves another version: which, instead of which, and its recent history. Returns the last path."""
    ports, path = task_ports(), ""
    for one in promoted:
        lines = [
            f"# {one['agent']} serves {one['version']}\n",
            f"It took the place of {one['previous'] or 'nothing: it is the first version'}"
            f", seen {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC.\n",
            "| when (UTC) | model | before | after | examples | rolled back |\n|---|---|---|---|---|---|",
        ]
        for update in ports.buffer.performance(one["agent"], last=10):
            before, after = (_share(value) for value in (update.accuracy_before, update.accuracy_after))
            lines.append(
                f"| {update.update_timestamp:%Y-%m-%d %H:%M:%S} | {update.model_name} | {before} | {after} "
                f"| {update.examples_trained} | {'yes' if update.rollback_triggered else 'no'} |"
            )
        path = _write(ports, f"{one['agent']}.md", "\n".join(lines))
    return path


def table(counts: Mapping[tuple[str, str], int]) -> str:
    """Counts by task and state as a Markdown table.

    >>> print(table({("sentiment", "ready"): 51, ("sentiment", "trained"): 200, ("topic", "ready"): 3}))
    | task | ready | trained |
    |---|---|---|
    | sentiment | 51 | 200 |
    | topic | 3 | 0 |
    """
    states = sorted({state for _, state in counts})
    head = f"| task | {' | '.join(states)} |\n|{'---|' * (len(states) + 1)}"
    rows = [
        f"| {task} | {' | '.join(str(counts.get((task, state), 0)) for state in states)} |"
        for task in sorted({task for task, _ in counts})
    ]
    return "\n".join([head, *rows])


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _write(ports: Ports, name: str, text: str) -> str:
    folder: Path = ports.settings.home / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    beside = path.with_suffix(f".{os.getpid()}.tmp")
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(path)  # a reader sees the old page or the new one
    logger.info("wrote %s\n%s", path, text)
    return str(path)
