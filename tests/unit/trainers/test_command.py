"""The trainer that runs a user's script: what it is given, what is refused, and that nothing of it stays behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.domain.model import Artefact, TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.errors import NotConfigured, ScriptFailed, TrainingError, UntrustedBundle
from perennial.trainers.bases import LocalBaseStore
from perennial.trainers.command import Command

Write = Callable[[str], Command]
INCLUDE = Path(__file__).parents[3] / "include"

PARSE = """
import argparse, json, os, pathlib, subprocess, sys, time
parser = argparse.ArgumentParser()
for name in ("--data", "--base", "--out", "--seed", "--load"):
    parser.add_argument(name)
parser.add_argument("--predict", action="store_true")
given = parser.parse_args()
"""
TRAIN = "if not given.predict:\n    pathlib.Path(given.out, 'm.json').write_text('{}')\n    sys.exit(0)\n"
READY = "print('{\"protocol\": 1}', flush=True)\n"
LOOP = "for line in sys.stdin:\n    texts = json.loads(line)['texts']\n    "
ANSWER = "print(json.dumps({'answers': [{'output': 'x', 'confidence': 0.5}] * len(texts)}), flush=True)\n"


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return Workbench(bases=LocalBaseStore(folder=tmp_path / "bases"), run_scripts=True)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    monkeypatch.setenv("PERENNIAL_FLEET_FOLDER", str(tmp_path))

    def write(text: str) -> Command:
        (tmp_path / "own.py").write_text(PARSE + text)
        return Command(script="own.py", train_seconds=20, start_seconds=20, answer_seconds=20)

    return write


def batch(kind: TaskKind = TaskKind.CLASSIFICATION) -> TaskBatch:
    labels = ("x", "y") if kind is TaskKind.CLASSIFICATION else ()
    rows = tuple(
        TrainingRow(
            example_id=UUID(int=n), task="t", text=f"the secret text {n}", label=labels[n % 2] if labels else 0.5
        )
        for n in range(4)
    )
    return TaskBatch(agent="a", task="t", kind=kind, labels=labels, new=rows[:3], replay=rows[3:], mode=Mode.ONLINE)


def fitted(command: Command, tmp_path: Path, bench: Workbench, start: Path | None = None, **how: Any) -> Artefact:
    out = tmp_path / f"out-{time.monotonic_ns()}"
    out.mkdir()
    return command.fit(batch(**how), start, out, seed=7, bench=bench)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] not in "ZX"
    except FileNotFoundError:
        return False


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not alive(pid)


def test_the_script_gets_rows_task_seed_and_the_champions_files_and_no_secret(
    write: Write, tmp_path: Path, bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERENNIAL_SIGNING_KEY_PASSWORD", "hunter2")
    monkeypatch.setenv("AIRFLOW_CONN_PERENNIAL_DB", "postgres://u:hunter2@h/d")
    monkeypatch.setenv("MODEL_CACHE", "/models")
    command = write(
        "if given.predict:\n    "
        + READY.replace("\n", "\n    ")
        + "\n    "
        + LOOP.replace("\n", "\n    ")
        + ANSWER
        + "    sys.exit(0)\n"
        "rows = [json.loads(line) for line in open(given.data)]\n"
        "base = sorted(os.listdir(given.base)) if given.base else None\n"
        "if given.base:\n    pathlib.Path(given.base, 'm.json').write_text('spoilt')\n"
        "told = {'rows': rows, 'task': json.loads(pathlib.Path(given.data).with_name('task.json').read_text()), 'seed': given.seed,\n"
        "        'base': base, 'environment': dict(os.environ), 'out': os.listdir(given.out)}\n"
        "pathlib.Path(given.out, 'm.json').write_text(json.dumps(told))\n"
    )
    command = replace(command, environment="MODEL_CACHE, ABSENT")
    first = fitted(command, tmp_path, bench)
    told = json.loads((first.path / "model" / "m.json").read_text())
    assert [(row["role"], row["text"]) for row in told["rows"]] == [
        ("replay", "the secret text 3"), ("new", "the secret text 0"), ("new", "the secret text 1"), ("new", "the secret text 2"),
    ]  # fmt: skip
    assert told["task"] == {"agent": "a", "task": "t", "kind": "classification", "labels": ["x", "y"], "mode": "online"}
    assert (told["seed"], told["base"], told["out"]) == ("7", None, [])
    assert told["environment"]["MODEL_CACHE"] == "/models"
    assert "hunter2" not in json.dumps(told["environment"])
    assert not [name for name in told["environment"] if name.startswith(("PERENNIAL", "AIRFLOW"))]
    second = fitted(command, tmp_path, bench, start=first.path)
    assert json.loads((second.path / "model" / "m.json").read_text())["base"] == ["m.json"]
    assert (first.path / "model" / "m.json").read_text() != "spoilt"
    record = json.loads((second.path / "component.json").read_text())
    assert record["started_from"]
    assert bench.bases.path(record["encoder"]["digest"])


@pytest.mark.parametrize("text", ["one\u2028two", "one\u2029two", "one\u0085two", "one\x1ctwo", "grüße 👍"])
def test_a_row_is_one_line_whatever_signs_it_holds(write: Write, tmp_path: Path, bench: Workbench, text: str) -> None:
    """Python's splitlines, and not only that, ends a line at more signs than the end of a line."""
    rows = tuple(replace(row, text=f"{text} {row.text}") for row in batch().new)
    given = replace(batch(), new=rows)
    reads = "[json.loads(line)['text'] for line in pathlib.Path(given.data).read_text(encoding='utf-8').splitlines()]"
    own = write(
        f"if not given.predict:\n    pathlib.Path(given.out, 'm.json').write_text(json.dumps({reads}))\n    sys.exit(0)\n"
        + READY + LOOP + ANSWER
    )  # fmt: skip
    for command, name in ((own, "own"), (Command(), "example")):
        out = tmp_path / name
        out.mkdir()
        made = command.fit(given, None, out, seed=7, bench=bench)
        assert len(command.load(made.path, bench).predict([rows[0].text])) == 1
    assert [row.text for row in rows] == json.loads((tmp_path / "own" / "model" / "m.json").read_text())[1:]


@pytest.mark.parametrize("probed", [False, True])
def test_what_a_killed_training_leaves_lies_in_its_own_folder(write: Write, tmp_path: Path, probed: bool) -> None:
    """Killed while the script reads the rows, or answers the first texts: nothing in the machine's folder for temporary files."""
    begun_in = "pathlib.Path(given.load, 'begun')" if probed else "pathlib.Path(given.data).with_name('begun')"
    command = write((TRAIN if probed else "") + f"{begun_in}.touch()\ntime.sleep(60)\n")
    elsewhere, out = tmp_path / "tmp", tmp_path / "work" / "job" / "1" / ".t.0"
    elsewhere.mkdir()
    out.mkdir(parents=True)
    program = (
        "from pathlib import Path\n"
        "from perennial.domain.model import Workbench\n"
        "from perennial.trainers.bases import LocalBaseStore\n"
        "from perennial.trainers.command import Command\n"
        "from tests.unit.trainers.test_command import batch\n"
        f"bench = Workbench(bases=LocalBaseStore(folder=Path({str(tmp_path / 'bases')!r})), run_scripts=True)\n"
        f"Command(script={command.script!r}).fit(batch(), None, Path({str(out)!r}), seed=7, bench=bench)\n"
    )
    paths = os.pathsep.join(str(one) for one in (INCLUDE, INCLUDE / "compat", INCLUDE.parent))
    variables = {**os.environ, "TMPDIR": str(elsewhere), "PYTHONPATH": paths, "PERENNIAL_FLEET_FOLDER": str(tmp_path)}
    training = subprocess.Popen([sys.executable, "-c", program], env=variables)
    try:
        deadline = time.monotonic() + 60
        while not (begun := list(tmp_path.rglob("begun"))) and time.monotonic() < deadline:
            assert training.poll() is None
            time.sleep(0.02)
    finally:
        training.kill()
        training.wait()
    assert [path.is_relative_to(out) for path in begun] == [True]
    if not probed:
        assert "secret text" in begun[0].with_name("data.jsonl").read_text()  # gone with the job's folder
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ValueError('the secret text 1')", r"ended with 1 \(ValueError in own.py, line"),
        ("sys.exit(3)", "ended with 3"),
        ("pass", "left nothing in --out"),
        ("pathlib.Path(given.out, 'm.pkl').write_text('x')", "what no version may hold.*json"),
        ("os.symlink('/etc/passwd', given.out + '/m.json')", "is a link"),
        ("os.makedirs(given.out + '/a/b'); pathlib.Path(given.out, 'a/b/m.json').write_text('x')", "one folder"),
        ("os.makedirs(given.out + '/a/b/c'); pathlib.Path(given.out, 'a/b/c/m.json').write_text('x')", "two deep"),
        ("pathlib.Path(given.out, 'm.json').write_bytes(b' ' * (2 << 20))", "more than most_megabytes"),
    ],
    ids=["error", "code", "nothing", "pickle", "link", "two", "deep", "large"],
)
def test_what_a_training_may_not_do(write: Write, tmp_path: Path, bench: Workbench, text: str, words: str) -> None:
    with pytest.raises(TrainingError, match=words) as caught:
        fitted(replace(write(text), most_megabytes=1), tmp_path, bench)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TRAIN + "print('hello', flush=True)\n", "no JSON"),
        (TRAIN + "print('{\"protocol\": 2}', flush=True)\n", 'did not begin with the line {"protocol": 1}'),
        (TRAIN + READY + "raise KeyError('the secret text 0')\n", r"ended instead of answering \(KeyError in own.py"),
        (TRAIN + READY + LOOP + "print('{\"answers\": []}', flush=True)\n", "must answer 3 texts"),
        (TRAIN + READY + LOOP + ANSWER.replace("'x'", "'z'"), "a label that the task does not have"),
        (TRAIN + READY + LOOP + ANSWER.replace("0.5", "7"), '"confidence" must be a number between 0 and 1'),
        (TRAIN + READY + LOOP + "sys.stdout.write('x' * (17 << 20)); sys.stdout.flush()\n", "more than 16777216 bytes"),
    ],
    ids=["noise", "protocol", "crash", "count", "label", "confidence", "flood"],
)
def test_what_cannot_answer_is_no_model(write: Write, tmp_path: Path, bench: Workbench, text: str, words: str) -> None:
    with pytest.raises(ScriptFailed) as caught:
        fitted(write(text), tmp_path, bench)
    assert re.search(words, str(caught.value)), caught.value
    assert "secret" not in str(caught.value)


def test_a_hanging_training_dies_with_all_that_it_started(write: Write, tmp_path: Path, bench: Workbench) -> None:
    command = write(
        f"child = subprocess.Popen(['sleep', '300'])\npathlib.Path('{tmp_path}/pids').write_text(f'{{os.getpid()}} {{child.pid}}')\n"
        "print('x' * 1000000, flush=True)\nprint('y' * 1000000, file=sys.stderr, flush=True)\ntime.sleep(300)\n"
    )
    began = time.monotonic()
    with pytest.raises(ScriptFailed, match="took longer than"):
        fitted(replace(command, train_seconds=1.0), tmp_path, bench)
    assert time.monotonic() - began < 10
    assert all(gone(int(pid)) for pid in (tmp_path / "pids").read_text().split())


def test_a_training_dies_with_the_task_that_was_killed(write: Write, tmp_path: Path) -> None:
    write(
        "child = subprocess.Popen(['sleep', '300'])\n"
        f"pathlib.Path('{tmp_path}/pid').write_text(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(300)\n"
    )
    code = (
        "import sys; from pathlib import Path; from perennial.trainers import _child; room = Path(sys.argv[1]);"
        "_child.run([sys.executable, str(room / 'own.py')], room=room, variables=_child.environment(room), seconds=300)"
    )
    task = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(INCLUDE)})
    deadline = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    task.kill()
    task.wait()
    assert all([gone(int(pid)) for pid in (tmp_path / "pid").read_text().split()])


def test_a_script_that_a_signal_ended_is_told_as_a_shell_tells_it(
    write: Write, tmp_path: Path, bench: Workbench
) -> None:
    with pytest.raises(ScriptFailed, match="ended with 137"):
        fitted(write("os.kill(os.getpid(), 9)\n"), tmp_path, bench)


def test_it_is_started_again_after_a_crash_and_left_alone_when_it_keeps_failing(
    write: Write, tmp_path: Path, bench: Workbench
) -> None:
    crash = f"os.path.exists('{tmp_path}/crash') and os._exit(1)\n    "
    command = write(TRAIN + f"open('{tmp_path}/starts', 'a').write('.')\n" + READY + LOOP + crash + ANSWER)
    made = fitted(command, tmp_path, bench)
    (tmp_path / "starts").write_text("")
    predictor = command.load(made.path, bench)
    assert [answer.output for answer in predictor.predict(["a"] * 150)] == ["x"] * 150
    assert (tmp_path / "starts").read_text() == "."
    os.kill(predictor._child.process.pid, 9)  # type: ignore[attr-defined]
    assert predictor.predict(["b"])[0].confidence == 0.5
    assert (tmp_path / "starts").read_text() == ".."
    (tmp_path / "crash").touch()
    with pytest.raises(ScriptFailed, match="ended instead of answering"):
        predictor.predict(["c"])
    starts = (tmp_path / "starts").read_text()
    with pytest.raises(ScriptFailed, match="left alone for a moment"):
        predictor.predict(["d"])
    assert (tmp_path / "starts").read_text() == starts
    (tmp_path / "crash").unlink()
    time.sleep(0.6)
    assert predictor.predict(["e"])[0].output == "x"
    child = predictor._child.process.pid  # type: ignore[attr-defined]
    del predictor
    assert gone(child)


def test_a_line_too_many_is_never_the_answer_to_the_next_question(
    write: Write, tmp_path: Path, bench: Workbench
) -> None:
    answer = "print(json.dumps({'answers': [{'output': text[0], 'confidence': 0.5} for text in texts]}), flush=True)\n"
    twice = "    if 'twice' in texts[0]:\n        " + answer
    command = write(
        TRAIN
        + f"open('{tmp_path}/starts', 'a').write('.')\n"
        + READY
        + LOOP
        + answer.replace("text[0]", "text[0] if text[0] in 'xy' else 'x'")
        + twice
    )
    made = fitted(command, tmp_path, bench)
    (tmp_path / "starts").write_text("")
    predictor = command.load(made.path, bench)
    found = []
    for text in ("x one", "x twice", "y three", "x four", "y five"):
        found.append(predictor.predict([text])[0].output)
        time.sleep(0.1)  # a line too many may come a little later than the one before it
    assert found == ["x", "x", "y", "x", "y"]
    assert (tmp_path / "starts").read_text() == ".."
    child = predictor._child  # type: ignore[attr-defined]
    child._left += b"more"
    with pytest.raises(ScriptFailed, match="more than one line for a question"):
        child.ask(b"{}\n", 1.0)
    predictor.close()  # type: ignore[attr-defined]


def test_a_version_answers_with_its_own_script_whatever_became_of_the_file(
    write: Write, tmp_path: Path, bench: Workbench
) -> None:
    command = write(TRAIN + READY + LOOP + ANSWER)
    made = fitted(command, tmp_path, bench)
    write(TRAIN + READY + LOOP + ANSWER.replace("'x'", "'y'"))
    assert command.load(made.path, bench).predict(["a"])[0].output == "x"
    assert (
        fitted(command, tmp_path, bench).path.joinpath("script.json").read_text()
        != (made.path / "script.json").read_text()
    )
    # as its record says it is made again with the script of then
    record = json.loads((made.path / "component.json").read_text())
    again = fitted(Command(**record["trainer"]["settings"]), tmp_path, bench)
    assert {path.name: path.read_bytes() for path in again.path.rglob("*.json")} == {
        path.name: path.read_bytes() for path in made.path.rglob("*.json")
    }
    (tmp_path / "own.py").unlink()
    assert command.problems()[0].startswith("the script 'own.py' is not there")
    script = made.path / "script.json"
    script.write_text(script.read_text().replace("'x'", "'z'"))
    with pytest.raises(UntrustedBundle, match="not the one that its record names"):
        command.load(made.path, bench)


def test_scripts_run_only_where_they_are_allowed(write: Write, tmp_path: Path, bench: Workbench) -> None:
    command = write(TRAIN + READY + LOOP + ANSWER)
    made = fitted(command, tmp_path, bench)
    closed = replace(bench, run_scripts=False)
    with pytest.raises(NotConfigured, match="PERENNIAL_RUN_SCRIPTS"):
        command.load(made.path, closed)
    with pytest.raises(NotConfigured, match="PERENNIAL_RUN_SCRIPTS"):
        fitted(command, tmp_path, closed)


def test_another_program_may_run_it(write: Write, tmp_path: Path, bench: Workbench) -> None:
    (tmp_path / "own.sh").write_text(
        'if [ "$1" = --load ]; then echo \'{"protocol": 1}\'; while read line; do '
        'echo \'{"answers": [{"output": 0.5, "confidence": 1}, {"output": 0.5, "confidence": 1}, {"output": 0.5, "confidence": 1}]}\'; '
        'done; else while [ "$1" != --out ]; do shift; done; echo {} > "$2/m.json"; fi\n'
    )
    write("")
    command = Command(script="own.sh", interpreter="/bin/sh")
    made = fitted(command, tmp_path, bench, kind=TaskKind.SCORE)
    assert [one.output for one in command.load(made.path, bench).predict(["a", "b", "c"])] == [0.5] * 3
    with pytest.raises(ScriptFailed, match="cannot be started"):
        fitted(Command(script="own.sh", interpreter="/nowhere/sh"), tmp_path, bench, kind=TaskKind.SCORE)


@pytest.mark.parametrize(
    "settings", [{"train_seconds": 0}, {"most_megabytes": -1}, {"answer_seconds": float("nan")}, {"script": " "}]
)
def test_settings_out_of_range(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="command:"):
        Command(**settings)
