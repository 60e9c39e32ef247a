"""The end of the demo: a table, a picture, links, and the same facts as data."""

from __future__ import annotations

import json
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from perennial.demo.plot import draw
from perennial.demo.story import Facts
from perennial.settings import Settings, without_login

if TYPE_CHECKING:
    from rich.console import Console


def print_table(console: Console, facts: Facts) -> None:
    """One row per thing that happened."""
    from rich.table import Table

    table = Table(title=f"What happened ({facts.material})", show_lines=False)
    for name, justify in (
        ("version", "left"), ("trigger", "left"), ("examples", "right"), ("before", "right"), ("after", "right"),
        ("verdict", "left"), ("seconds", "right"), ("note", "left"),
    ):  # fmt: skip
        table.add_column(name, justify="right" if justify == "right" else "left")
    for chapter in facts.chapters:
        table.add_row(
            chapter.version, chapter.trigger, str(chapter.examples or ""), _share(chapter.before), _share(chapter.after),
            chapter.verdict, f"{chapter.seconds:.1f}", chapter.note,
        )  # fmt: skip
    console.print(table)
    console.print(f"requests that failed during all of this: {facts.failed_requests}")


def write_picture(facts: Facts, folder: Path) -> Path:
    """Accuracy over time as ``accuracy.png``."""
    return draw(folder / "accuracy.png", facts.answers, facts.marks, title=f"Accuracy in production ({facts.material})")


def write_json(facts: Facts, path: Path) -> None:
    """The table's facts with the machine and the moment, for scripts."""
    document = {
        "material": facts.material,
        "chapters": [asdict(chapter) for chapter in facts.chapters],
        "correction_seconds": facts.correction_seconds,
        "failed_requests": facts.failed_requests,
        "restored_digest_equal": facts.restored_digest_equal,
        "poison_held": facts.poison_held,
        "broken_promises": facts.broken_promises(),
        "requests": len(facts.answers),
        "machine": {"processor": platform.machine(), "python": platform.python_version(), "system": platform.system()},
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def print_links(console: Console, settings: Settings, picture: Path) -> None:
    """Where to look next."""
    console.print(f"\nAirflow   {without_login(settings.airflow_url)}   (logins: perennial status)")
    console.print(f"MLflow    {without_login(settings.mlflow_url)}")
    console.print(f"Gateway   {without_login(settings.data_plane_url)}/v1/agents")
    console.print(f"Picture   {picture}")
    console.print("The stack stays up; `perennial down` stops it.")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
