"""The long runs behind docs/trust.md, one after the other, and one table of what was asked and what came out.

    make acceptance AGNEWS=news_agnews.jsonl HUFFPOST=news_huffpost.jsonl        (about three hours on two cores)
    PYTHONPATH=include:. python benchmarks/acceptance.py --agnews FILE --huffpost FILE [--only audit,rollouts] [--out FOLDER] [--go-on]

Files are JSON Lines with ``text`` and ``label``; rows of the second carry a label of the first as ``ag4`` where one fits. Each run is a
script of this folder, in a process of its own; what it prints and its figures stay in ``--out``. ``--go-on`` reads the runs that ended
there before, of whatever code that was, and makes only the others; the table says when each ended and at which commit. Exits 1 when
a figure is missed or a run breaks. PostgreSQL, MLflow and for the faults a whole stack are made for the runs; nothing of a deployment
is touched.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.machine import table

HERE = Path(__file__).parent
Figure = tuple[str, str, str, bool]  # what, asked, found, met


@dataclass(frozen=True, kw_only=True)
class Run:
    """One script with its arguments; ``figures`` reads its JSON. Without figures its exit code says whether all was met."""

    script: str
    arguments: Sequence[str]
    asked: str = ""
    figures: Callable[[Any], list[Figure]] | None = None


def sticking(found: dict[str, Any]) -> list[Figure]:
    """Corrections one at a time."""
    steps = found["steps"]
    right, unlearned = sum(step["right"] for step in steps), sum(step["unlearned"] for step in steps)
    change = (found["after"] - found["before"]) * 100
    wanted = -(-len(steps) * 48 // 50)
    return [
        ("corrections answered right by the promoted candidate", f"{wanted} of {len(steps)}", str(right), right >= wanted),
        ("holdout change over all of them, points", ">= -0.5", f"{change:+.1f}", change >= -0.5),
        ("earlier corrections unlearned", "0", str(unlearned), unlearned == 0),
    ]  # fmt: skip


def sixty(found: list[dict[str, Any]]) -> list[Figure]:
    """Honest and damaged candidates before the gates."""
    honest = sum(one["kind"] == "honest" and one["action"] == "pass" for one in found)
    slipped = sum(one["kind"] != "honest" and one["action"] == "pass" and one["worst"] > 3.0 for one in found)
    return [
        ("honest candidates that pass", ">= 24 of 30", str(honest), honest >= 24),
        ("damaged ones that pass with a slice down over 3 points", "0", str(slipped), slipped == 0),
    ]


def poisoning(found: list[dict[str, Any]]) -> list[Figure]:
    """Targeted flips, 10 % of a batch from one source and from twenty."""
    figures = []
    for one in found:
        if one["defended"] and one["attack"].startswith("10%") and "known" not in one["attack"]:
            stopped = one["slice"] >= -3.0 or one["action"] != "pass"
            said = f"{one['slice']:+.1f}, {one['action']}"
            figures.append((f"slice after flips: {one['attack']}, points", ">= -3 or held", said, stopped))
    return figures


def rollouts(found: dict[str, Any]) -> list[Figure]:
    """Simulated rollouts and swaps."""
    kinds = {name: facts for name, facts in found.items() if isinstance(facts, dict) and "in time" in facts}
    bad = [facts for name, facts in kinds.items() if not name.startswith("identical")]
    same = [facts for name, facts in kinds.items() if name.startswith("identical")]
    late = sum(facts["rollouts"] - facts["in time"] for facts in bad)
    false, runs = sum(facts["reverted"] for facts in same), sum(facts["rollouts"] for facts in same)
    swaps = found["requests over swaps"]
    failed = sum(value for name, value in swaps.items() if "fail" in name or "unapproved" in name)
    total = sum(facts["rollouts"] for facts in bad)
    return [
        ("bad rollouts not reverted within two check intervals", "0", f"{late} of {total}", late == 0),
        ("identical models reverted", "<= 1 %", f"{false} of {runs}", false <= runs / 100),
        ("requests over swaps that failed or met an unapproved version", "0", str(failed), failed == 0),
    ]


def forgetting(found: dict[str, list[dict[str, dict[str, float]]]]) -> list[Figure]:
    """EWC and replay beside plain fine-tuning."""
    figures = []
    for title, runs in found.items():
        lost = {name: mean(run[name]["forgetting"] for run in runs) for name in runs[0]}
        new = {name: mean(run[name]["new"] for run in runs) for name in runs[0]}
        plain = next(name for name in lost if name.startswith("plain"))
        both = next(name for name in lost if "EWC" in name and "replay" in name)
        said = f"{lost[both]:.1f}, plain {lost[plain]:.1f}"
        figures.append((f"forgotten, points: {title}", "<= 1.5 where plain >= 5", said, lost[both] <= 1.5))
        behind = new[plain] - new[both]
        figures.append((f"new data behind plain, points: {title}", "<= 1", f"{behind:+.1f}", behind <= 1.0))
    return figures


def ewc_time(found: dict[str, Any]) -> list[Figure]:
    """What the penalty costs."""
    ratios = [
        part["EWC beside plain fine-tuning"]["EWC over plain"] for part in found.values() if isinstance(part, dict)
    ]
    return [("EWC over plain fine-tuning, time", "<= 1.1", f"{ratio:.2f}", ratio <= 1.1) for ratio in ratios]


def faults(found: list[dict[str, Any]]) -> list[Figure]:
    """kill -9 at every point of the loop."""
    counted = [one for one in found if one["inside"]]
    points = sorted({one["point"] for one in found})
    fewest = min((sum(one["point"] == point for one in counted) for point in points), default=0)
    broken = sum(len(one["broken"]) for one in found)
    slowest = max((one["resumed"] or 0.0 for one in counted), default=0.0)
    return [
        ("kills at each point of the loop that hit its process", ">= 10", str(fewest), fewest >= 10),
        ("lost, trained twice or half visible afterwards", "0", f"{broken} in {len(found)} kills", broken == 0),
        ("slowest to be done again without a hand, s", "<= 120", f"{slowest:.0f}", slowest <= 120.0),
    ]


def plan(agnews: Path, huffpost: Path) -> dict[str, Run]:
    """Every run by name."""
    first, then = str(agnews), str(huffpost)
    return {
        "sticking": Run(script="bench_sticking", arguments=("--data", first, "--test", "600"), figures=sticking),
        "gates": Run(script="bench_gates", arguments=("--data", first), figures=sixty),
        "poisoning": Run(script="bench_poisoning", arguments=("--data", first), figures=poisoning),
        "rollouts": Run(script="bench_rollouts", arguments=(), figures=rollouts),
        "forgetting": Run(
            script="bench_forgetting",
            arguments=("--first", first, "--then", then, "--then-label", "ag4", "--past", "800", "--tests", "1000"),
            figures=forgetting,
        ),
        "forgetting-in-time": Run(
            script="bench_forgetting",
            arguments=("--stream", then, "--past", "260", "--new", "200", "--tests", "130", "--rare", "12"),
            figures=forgetting,
        ),
        "ewc": Run(script="bench_trainer", arguments=(first, "--past", "1000"), figures=ewc_time),
        "reproduce": Run(script="bench_reproduce", arguments=(), asked="20 versions, 20 equal digests"),
        "audit": Run(script="bench_audit", arguments=(), asked="every tampering at the right row"),
        "faults": Run(script="bench_faults", arguments=(), figures=faults),
        "growth": Run(script="bench_growth", arguments=("--count", "100"), asked="200 corrections, growth stated"),
    }


def main() -> int:
    """Run what was asked for; 0 when every figure was met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agnews", type=Path, required=True)
    parser.add_argument("--huffpost", type=Path, required=True)
    parser.add_argument("--only", default="", help="names, with commas between them; all when left out")
    parser.add_argument("--out", type=Path, default=Path("out/acceptance"))
    parser.add_argument("--go-on", action="store_true", help="do not repeat what ended before and lies in --out")
    chosen = parser.parse_args()
    runs = plan(chosen.agnews.resolve(), chosen.huffpost.resolve())
    names = [name for name in chosen.only.split(",") if name] or list(runs)
    unknown = [name for name in names if name not in runs]
    if unknown:
        parser.error(f"no run is named {', '.join(unknown)}; there are {', '.join(runs)}")
    chosen.out.mkdir(parents=True, exist_ok=True)
    rows: list[tuple[str, ...]] = []
    for name in names:
        ended = chosen.out / f"{name}.ended.json"
        if not (chosen.go_on and ended.is_file()):
            carry_out(name, runs[name], chosen.out, ended)
        when = json.loads(ended.read_text(encoding="utf-8"))
        figures = figures_of(name, runs[name], chosen.out, when["code"])
        how = (f"{when['minutes']:.1f}", f"{when['at'][:16]} {when['commit']}")
        rows += [(what, asked, found, "yes" if met else "NO", *how) for what, asked, found, met in figures]
    table("Acceptance", ("what", "asked", "found", "met", "minutes", "ended (UTC), commit"), rows)
    return 0 if all(row[3] == "yes" for row in rows) else 1


def carry_out(name: str, run: Run, out: Path, ended: Path) -> None:
    """One script to its end; its output goes to a file, and how it ended to another."""
    facts, log = out / f"{name}.json", out / f"{name}.txt"
    for old in (facts, ended):
        old.unlink(missing_ok=True)
    began = time.monotonic()
    command = [sys.executable, str(HERE / f"{run.script}.py"), *run.arguments]
    command += ["--json", str(facts)] if run.figures is not None else []
    print(f"{name}: {run.script}.py, output in {log}", flush=True)
    with log.open("w", encoding="utf-8") as file:
        code = subprocess.run(
            command, stdout=file, stderr=subprocess.STDOUT, check=False, env=dict(os.environ)
        ).returncode
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    )
    said = {
        "code": code, "minutes": (time.monotonic() - began) / 60, "at": datetime.now(UTC).isoformat(),
        "commit": commit.stdout.strip() or "?",
    }  # fmt: skip
    ended.write_text(json.dumps(said), encoding="utf-8")


def figures_of(name: str, run: Run, out: Path, code: int) -> list[Figure]:
    """What an ended run found; a broken one is a figure that was missed."""
    facts, log = out / f"{name}.json", out / f"{name}.txt"
    if run.figures is None:
        return [(name, run.asked, f"exit code {code}", code == 0)]
    if code != 0 or not facts.is_file():
        return [(name, "a whole run", f"exit code {code}, see {log}", False)]
    return run.figures(json.loads(facts.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
