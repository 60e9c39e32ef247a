"""`perennial agent check`: every mistake with its line and what it means."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.fleet.check import check_file

GOOD = """from perennial.domain.words import TaskKind
from perennial.fleet import Agent, Breaker, Gates, Rollout, Selection, Task
from perennial.trainers.command import Command
from perennial.trainers.ewc_text import EwcText
AGENT = Agent(
    name="desk",
    owner="me",
    tasks=(Task(name="tone", labels=("good", "bad")),),
    trainer=EwcText(),
    {more}
)
"""


@pytest.mark.parametrize(
    ("more", "line", "words"),
    [
        ("update_threshold='50',", 10, "update_threshold: is str, and must be a whole number or None"),
        ("update_threshold=0,", 10, "update_threshold: must be 1 or more"),
        ("update_threshold=900, max_buffer_size=100,", 10, "never wait in a buffer of 100"),
        ("gates=Gates(\n        min_accuracy={'ton': 0.5},\n    ),", 11, "names the task 'ton', which the agent has not"),
        ("gates=Gates(min_metrics={'tone': {'precision:god': 0.5}}),", 10, "did you mean 'good'?"),
        ("gates=Gates(min_metrics={'tone': {'f1': 0.5}}),", 10, "names the metric 'f1'"),
        ("gates=Gates(min_holdout=2000),", 10, "2000 rows are never measured"),
        ("gates=Gates(min_acuracy={}),", 10, "Gates has no setting min_acuracy; did you mean min_accuracy?"),
        ("gates=Gates(max_slice_drop=3),", 10, "must lie between 0 and 1"),
        ("gates=Gates(approvers=('',)),", 10, "approvers are a tuple"),
        ("selection=Selection(holdout_share=1.0),", 10, "no candidate ever passes"),
        ("selection=Selection(holdout_max=0),", 10, "no candidate ever passes"),
        ("selection=Selection(batch=0),", 10, "a training without rows"),
        ("rollout=Rollout(steps=(0.5, 0.2)),", 10, "rollout steps must grow"),
        ("rollout=Rollout(targets=('s3',)),", 10, "names 's3'; there are: gateway, folder"),
        ("breaker=Breaker(refused=-1),", 10, "refused must be 0 or more"),
        ("tags='news',", 10, 'tags: is str, and must be a tuple of a text in quotes, such as ("a", "b")'),
        ("pool=Pool(),", 10, "import it at the top"),
        ("trainer=1,", 9, "SyntaxError"),
    ],
    ids=lambda value: str(value)[:40].replace("\n", "|"),
)  # fmt: skip
def test_a_mistake_has_its_line_and_its_meaning(tmp_path: Path, more: str, line: int, words: str) -> None:
    path = tmp_path / "desk.py"
    path.write_text(GOOD.format(more=more))
    errors = check_file(path)
    assert any(words in error.message for error in errors), [str(error) for error in errors]
    assert errors[0].file == str(path)
    if "SyntaxError" not in words:
        assert {error.line for error in errors} & {line, 5}  # what only the whole agent shows stands at its own line


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('labels=("good", "bad")', 'labels=("good",)', "has one label"),
        ('labels=("good", "bad")', 'labels=["good", "bad"]', "labels: is list"),
        ('labels=("good", "bad")', 'labels=("good", "a@b")', "1 of the task tone can name no class"),
        ('labels=("good", "bad")', 'kind=TaskKind.SCORE, labels=("a", "b")', "answers with a number from 0 to 1"),
        ("EwcText(),", 'Command(script="nowhere.py"),', "the script 'nowhere.py' is not there"),
    ],
    ids=["one label", "a list", "no label", "a score", "no script"],
)
def test_mistakes_of_tasks_and_trainers(tmp_path: Path, old: str, new: str, words: str) -> None:
    path = tmp_path / "desk.py"
    path.write_text(GOOD.format(more="").replace(old, new))
    (error,) = check_file(path)
    assert words in error.message
    assert error.line in (8, 9)


def test_a_good_file_and_the_shipped_ones_have_none(tmp_path: Path) -> None:
    path = tmp_path / "desk.py"
    path.write_text(GOOD.format(more="gates=Gates(min_metrics={'tone': {'macro_f1': 0.5, 'recall:bad': 0.1}}),"))
    assert check_file(path) == ()
    assert check_file(Path(__file__).parents[3] / "include" / "fleet" / "scout.py") == ()
