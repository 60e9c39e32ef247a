"""Which task a file's labels are for, when nobody says so on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from perennial.client import add_examples, import_file
from perennial.errors import SourceError, UnknownAgent
from perennial.ingest.memory import MemoryBuffer


def agent(name: str, **tasks: Any) -> dict[str, Any]:
    return {
        "agent": name, "record": {"name": name}, "file_digest": "0" * 64, "update_threshold": 50, "max_buffer_size": 1000,
        "holdout_share": 0.0,
        "tasks": [
            {"task": task, "kind": kind, "labels": labels, "max_length": 20_000, "aliases": [f"{task}_alias"]}
            for task, (kind, labels) in tasks.items()
        ],
    }  # fmt: skip


@pytest.fixture
def buffer() -> MemoryBuffer:
    made = MemoryBuffer()
    made.sync_agents([
        agent("desk", urgency=("classification", ["1", "2", "high"])),
        agent("scout", topic=("classification", None), worth=("score", None)),
    ])  # fmt: skip
    return made


def stored(buffer: MemoryBuffer) -> list[tuple[str, str, Any]]:
    return sorted((row.example.task, row.example.input_text, row.example.expected_output) for row in buffer.state.rows)


def file(folder: Path, content: str, name: str = "rows.csv") -> Path:
    path = folder / name
    path.write_text(content, encoding="utf-8")
    return path


def test_an_agent_with_one_task_needs_no_task(buffer: MemoryBuffer, tmp_path: Path) -> None:
    path = file(tmp_path, "text,label\nwait,high\nrun,2\n")
    assert import_file(path, "desk", buffer=buffer).added == 2
    assert stored(buffer) == [("urgency", "run", "2"), ("urgency", "wait", "high")]
    assert import_file(path, "desk", buffer=buffer).added == 0


def test_numbers_that_name_a_class_become_its_text(buffer: MemoryBuffer, tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": "b", "label": 2.0}, {"text": "c", "label": 7}]
    import_file(file(tmp_path, "\n".join(map(json.dumps, rows)), "rows.jsonl"), "desk", buffer=buffer)
    assert stored(buffer) == [("urgency", "a", "1"), ("urgency", "b", "2"), ("urgency", "c", 7)]


def test_with_more_tasks_the_error_lists_them_and_nothing_is_added(buffer: MemoryBuffer, tmp_path: Path) -> None:
    with pytest.raises(
        SourceError, match="scout has 2 tasks; say which one the labels are for: --task topic or --task worth"
    ):
        import_file(file(tmp_path, "text,label\na,b\n"), "scout", buffer=buffer)
    assert stored(buffer) == []
    assert import_file(tmp_path / "rows.csv", "scout", "topic", buffer=buffer).added == 1


def test_columns_called_like_tasks_give_an_example_each(buffer: MemoryBuffer, tmp_path: Path) -> None:
    path = file(tmp_path, "text,Topic,worth,importance\nrates fell,money,0.5,0.9\nrain,,0.25,\n")
    assert import_file(path, "scout", buffer=buffer).added == 3
    assert stored(buffer) == [("topic", "rates fell", "money"), ("worth", "rain", 0.25), ("worth", "rates fell", 0.5)]
    assert {row.example.importance for row in buffer.state.rows} == {0.9, 0.5}
    assert import_file(path, "scout", buffer=buffer).added == 0


def test_columns_of_other_names_are_named(buffer: MemoryBuffer, tmp_path: Path) -> None:
    path = file(tmp_path, "Body,Grade\nwait,high\n")
    assert import_file(path, "desk", text_column="Body", label_columns=("Grade",), buffer=buffer).added == 1
    assert stored(buffer) == [("urgency", "wait", "high")]
    with pytest.raises(SourceError, match="no task of scout is called like the column 'Grade'; scout has 2 tasks"):
        import_file(path, "scout", text_column="Body", label_columns=("Grade",), buffer=buffer)
    with pytest.raises(SourceError, match="--text-column must be one of: 'Body', 'Grade'"):
        import_file(path, "desk", text_column="Text", buffer=buffer)


def test_records_that_name_agent_or_task_go_there(buffer: MemoryBuffer, tmp_path: Path) -> None:
    rows = [{"text": "a", "label": "x", "task": "topic"}, {"text": "b", "label": "high", "agent": "desk", "task": "urgency"},
            {"text": "c", "label": "x", "task": ["topic"]}]  # fmt: skip
    result = import_file(file(tmp_path, "\n".join(map(json.dumps, rows)), "rows.jsonl"), "scout", buffer=buffer)
    assert (result.added, result.rejected) == (2, 1)
    assert result.problems[0].startswith("line 3: task_type")
    assert stored(buffer) == [("topic", "a", "x"), ("urgency", "b", "high")]


def test_what_is_no_example_is_refused_alone(buffer: MemoryBuffer) -> None:
    row = {"agent": "desk", "task": "urgency", "text": "wait", "label": "high"}
    given: Any = [row, 5, None, {**row, "text": "run"}]
    told = add_examples(given, buffer=buffer)
    assert (told.added, told.rejected) == (2, 2)
    assert told.problems[0].startswith("record 2: ")


def test_broken_lines_keep_their_numbers(buffer: MemoryBuffer, tmp_path: Path) -> None:
    result = import_file(file(tmp_path, 'text,label\nwait,high\n"a,b\n'), "desk", buffer=buffer)
    assert (result.added, result.rejected) == (1, 1)
    assert result.problems[0].startswith("line 3")
    with pytest.raises(UnknownAgent, match="nobody"):
        import_file(tmp_path / "rows.csv", "nobody", buffer=buffer)


def test_ids_of_the_file_hold_for_each_of_a_records_labels(buffer: MemoryBuffer, tmp_path: Path) -> None:
    """One id for two examples would keep the first alone."""
    both, one = UUID(int=1), UUID(int=2)
    rows = [{"example_id": str(both), "text": "rates fell", "topic": "money", "worth": 0.5},
            {"example_id": str(one), "text": "rain", "topic": "weather"},
            {"example_id": None, "text": "snow", "topic": "weather", "worth": 0.1},
            {"example_id": "x", "text": "hail", "topic": "weather", "worth": 0.1}]  # fmt: skip
    path = file(tmp_path, "\n".join(map(json.dumps, rows)), "rows.jsonl")
    result = import_file(path, "scout", buffer=buffer)
    assert (result.added, result.rejected) == (5, 2)
    assert all(problem.startswith("line 4: example_id") for problem in result.problems)
    ids = {(row.example.task, row.example.input_text): row.example.example_id for row in buffer.state.rows}
    assert ids["topic", "rain"] == one
    assert both not in ids.values()
    assert import_file(path, "scout", buffer=buffer).added == 0
    # the ids follow from the file's own, not from its bytes
    again = file(tmp_path, json.dumps(rows[0] | {"url": "https://a.example"}), "again.jsonl")
    assert import_file(again, "scout", buffer=buffer).added == 0


@pytest.mark.parametrize("bare", [0, 1, 2])
def test_a_record_without_a_label_is_refused_alone(buffer: MemoryBuffer, tmp_path: Path, bare: int) -> None:
    lines = [f"text {n},{'' if n == bare else 'money'},{'' if n == bare else 0.5}\n" for n in range(3)]
    result = import_file(file(tmp_path, "text,topic,worth\n" + "".join(lines)), "scout", buffer=buffer)
    assert (result.added, result.rejected) == (4, 1)
    assert result.problems[0].startswith(f"line {bare + 2}: task_type is missing")


def test_a_named_column_may_be_empty_in_the_first_record(buffer: MemoryBuffer, tmp_path: Path) -> None:
    path = file(tmp_path, "Body,Grade\nwait,\nrun,high\n")
    assert import_file(path, "desk", text_column="Body", label_columns=("Grade",), buffer=buffer).added == 2
    assert stored(buffer) == [("urgency", "run", "high"), ("urgency", "wait", None)]
