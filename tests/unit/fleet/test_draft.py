"""An agent's file from a file of examples: what is found, what is refused, and that the file is good."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from perennial.cli import build
from perennial.domain.names import name_problem
from perennial.domain.words import TaskKind
from perennial.errors import FleetError, PerennialError, SourceError
from perennial.events.files import read_records
from perennial.fleet.check import check_file
from perennial.fleet.draft import Draft, draft_of
from perennial.fleet.loader import load
from perennial.fleet.writing import fleet_file, quoted, write_fleet_file

ROOT = Path(__file__).parents[3]
MOODS = ("angry", "calm", "glad")


def lines(count: int = 60, *, labels: tuple[str, ...] = MOODS) -> list[dict[str, object]]:
    return [
        {"text": f"Sentence number {n} about tram {n % 7}.", "label": labels[n % len(labels)]} for n in range(count)
    ]


def jsonl(folder: Path, rows: list[dict[str, object]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def csv(folder: Path, text: str) -> Path:
    path = folder / "rows.csv"
    path.write_bytes(text.encode("utf-8"))
    return path


def drafted(path: Path, **how: object) -> Draft:
    return draft_of("desk", read_records(path), **how)  # type: ignore[arg-type]


def test_labels_counts_and_rare_ones(tmp_path: Path) -> None:
    rows = [*lines(60), {"text": "One of a kind.", "label": "odd"}, {"text": "Not known yet."}]
    draft = drafted(jsonl(tmp_path, rows))
    (task,) = draft.tasks
    assert (draft.rows, task.name, task.kind) == (62, "label", TaskKind.CLASSIFICATION)
    assert task.labels == {"angry": 20, "calm": 20, "glad": 20, "odd": 1}
    assert task.rare == {"odd": 1}
    assert (task.rows, task.unlabelled) == (61, 1)


def test_several_label_columns_are_several_tasks_and_numbers_a_score(tmp_path: Path) -> None:
    rows = "\n".join(f'"Note {n}, with a comma",{"up" if n % 2 else "down"},{n / 100}' for n in range(50))
    draft = drafted(
        csv(tmp_path, f"Body,Trend (main),Worth\n{rows}\n"), text_column="Body", label_columns=("Trend (main)", "Worth")
    )
    trend, worth = draft.tasks
    assert (trend.name, trend.labels) == ("trend_main", {"down": 25, "up": 25})
    assert (worth.name, worth.kind, worth.lowest, worth.highest) == ("worth", TaskKind.SCORE, 0.0, 0.49)
    named = drafted(tmp_path / "rows.csv", text_column="Body", label_columns=("Trend (main)",), tasks=("direction",))
    assert [task.name for task in named.tasks] == ["direction"]


def test_records_may_name_their_tasks_and_whole_numbers_are_classes(tmp_path: Path) -> None:
    rows = [
        {"text": f"Text {n}.", "task": ("stars", "mood")[n % 2], "label": n % 5 + 1 if n % 2 == 0 else MOODS[n % 3]}
        for n in range(60)
    ]
    draft = drafted(jsonl(tmp_path, rows))
    assert {task.name: list(task.labels) for task in draft.tasks} == {
        "stars": ["1", "2", "3", "4", "5"],
        "mood": list(MOODS),
    }


def test_repeated_and_contradictory_texts_are_counted(tmp_path: Path) -> None:
    rows = [*lines(30), *lines(2), {"text": "Sentence number 0 about tram 0.", "label": "glad"}]
    draft = drafted(jsonl(tmp_path, rows))
    assert (draft.repeated, draft.contradictory) == (2, 1)


def test_broken_rows_are_named_by_their_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path, lines(30))
    with path.open("ab") as file:
        file.write(
            b'{"text": \n{"text": "", "label": "calm"}\n{"label": "calm"}\n{"text": "x", "label": ["calm"]}\n{"text": "\xff"}\n'
        )
    draft = drafted(path)
    assert (draft.rows, draft.unusable) == (30, 5)
    assert [one.split(" ")[1].rstrip(":") for one in draft.broken] == ["31", "32", "33", "34", "35"]
    assert "UTF-8" in draft.broken[4]


@pytest.mark.parametrize(
    ("content", "how", "words"),
    [
        ("a,b\n1,2\n", {}, "--text-column (there are: 'a', 'b')"),
        ("text,b\nx,2\n", {}, "--label-column (there are: 'text', 'b')"),
        ("text,b\nx,2\n", {"label_columns": ("c",)}, "no column is called 'c'"),
        ("text,b\nx,2\n", {"label_columns": ("text",)}, "both the texts and the labels"),
        ("text,label\n", {}, "no row of the file has a text and a label"),
        ("text,label\nx,\ny,\n", {}, "--label-column"),
        ("text,label\n" + "".join(f"x{n},{n}.5\n" for n in range(9)), {}, "a score task needs 0 to 1"),
        ("text,label\n" + "".join(f"x{n},name{n}\n" for n in range(30)), {}, "30 different values in 30 rows"),
        ("text,label\nhello,hello\nx,y\n", {}, "1 value(s) that are no labels"),
        ("text,label\nx,jane@corp.com\n", {}, "1 value(s) that are no labels"),
        ("text,?!\nx,a\n", {"label_columns": ("?!",)}, "makes no name of a task"),
        ("text,class\nx,a\n", {"label_columns": ("class",)}, "--task"),
        ("text,a b,a-b\nx,1,1\n", {"label_columns": ("a b", "a-b")}, "one name of a task"),
        ("text,label\nx,a\n", {"tasks": ("../up",)}, "must begin with a small letter"),
        ("text,label\nx,a\n", {"tasks": ("a", "b")}, "one --task for each"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:24].replace("\n", "|"),
)  # fmt: skip
def test_what_makes_no_agent_is_said(tmp_path: Path, content: str, how: dict[str, object], words: str) -> None:
    with pytest.raises(SourceError) as caught:
        drafted(csv(tmp_path, content), **how)
    assert words in str(caught.value)
    assert "jane" not in str(caught.value)


def test_another_encoding_is_said(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text,label\nGrün,a\nBlau,b\n".encode("utf-16"))
    with pytest.raises(SourceError, match="UTF-8"):
        drafted(path)
    path.write_bytes("text,label\nGrün,a\nBlau,b\n".encode("latin-1"))
    draft = drafted(path)
    assert (draft.rows, draft.broken[0][:7]) == (1, "line 2:")
    assert "UTF-8" in draft.broken[0]


def test_the_file_is_clean_loads_and_holds_no_text(tmp_path: Path) -> None:
    labels = ('say "yes"', "it's", "naïve ß", "sci/tech", "back\\slash")
    rows = [{"text": f"The confidential sentence {n}.", "mood": labels[n % 5], "worth": n / 250} for n in range(250)]
    draft = drafted(jsonl(tmp_path, rows), label_columns=("mood", "worth"))
    fleet = tmp_path / "fleet"
    path = write_fleet_file(fleet, "desk", fleet_file(draft, owner='o"hara', source='we"ird\n.jsonl'))
    assert "confidential" not in path.read_text()
    agent = load(fleet).agent("desk")
    assert load(fleet).errors == check_file(path) == ()
    assert agent.task("mood").labels == tuple(sorted(labels))
    assert agent.task("worth").kind is TaskKind.SCORE
    assert (agent.owner, agent.update_threshold, agent.max_buffer_size) == ('o"hara', 25, 1000)
    config = ["--config", str(ROOT / "pyproject.toml")]
    for command in (["check", *config], ["format", "--check", *config], ["check", "--isolated"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, str(path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + path.read_text()
    assert [file.name for file in fleet.iterdir()] == ["desk.py"]


def test_nothing_is_overwritten_and_names_stay_in_the_folder(tmp_path: Path) -> None:
    text = fleet_file(drafted(jsonl(tmp_path, lines())), owner="me", source="rows.jsonl")
    path = write_fleet_file(tmp_path / "fleet", "desk", text)
    path.write_text(text + "# mine\n")
    with pytest.raises(FleetError, match="is there already"):
        write_fleet_file(tmp_path / "fleet", "desk", text)
    path.rename(tmp_path / "fleet" / "other.py")
    with pytest.raises(FleetError, match="declares an agent desk already"):
        write_fleet_file(tmp_path / "fleet", "desk", text)
    for name in ("../desk", "class", "match", "Desk", "", "a/b", "desk\n", "_desk", "ä", "d" * 49, ".desk"):
        assert name_problem(name)
        with pytest.raises(FleetError):
            write_fleet_file(tmp_path / "fleet", name, text)
    assert [file.name for file in (tmp_path / "fleet").iterdir()] == ["other.py"]
    assert not (tmp_path / "desk.py").exists()


def test_the_commands_write_check_and_say_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERENNIAL_FLEET_FOLDER", str(tmp_path / "fleet"))
    run = CliRunner()
    data = csv(tmp_path, "Body,mood\n" + "".join(f"note {n},{MOODS[n % 3]}\n" for n in range(40)))
    made = run.invoke(
        build(), ["agent", "new", "desk", "--data", str(data), "--text-column", "Body", "--label-column", "mood"]
    )
    assert made.exit_code == 0, made.output
    assert "mood: 3 labels in 40 rows: angry 14" in made.output
    assert f"perennial import {data} --agent desk --text-column Body" in made.output
    assert "a person decides" in made.output
    assert "note 1" not in made.output
    again = run.invoke(build(), ["agent", "new", "desk", "--data", str(data)])
    assert isinstance(again.exception, FleetError)
    well = run.invoke(build(), ["agent", "check"])
    assert (well.exit_code, "nothing is wrong" in well.output) == (0, True)
    path = tmp_path / "fleet" / "desk.py"
    path.write_text(path.read_text().replace("holdout_share=0.3", "holdout_share=0.0"))
    bad = run.invoke(build(), ["agent", "check", "desk"])
    assert bad.exit_code == 1
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if "holdout_share" in text)
    assert f"{path}:{line}: holdout_share: must lie between 0 and 1: without holdout rows" in bad.output
    assert isinstance(run.invoke(build(), ["agent", "check", "nobody"]).exception, PerennialError)


def test_quotes_are_as_ruff_writes_them() -> None:
    for text in ('"', "'", "both ' and \"", "\\", "\u202e", "é", "\t"):
        assert eval(quoted(text)) == text
