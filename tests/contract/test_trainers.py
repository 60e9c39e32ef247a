"""Laws that every trainer found by the catalogue meets, with its default settings and the real encoder."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.domain.model import Artefact, Prediction, TaskBatch, Trainer, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.errors import EmptyBatch, UnknownLabel
from perennial.trainers import LocalBaseStore, MemoryEmbeddings, catalogue, trainer_for
from perennial.trainers.bases import folder_digest

TEXTS = {
    "sport": (
        "The striker scored twice as the home side won the cup final.", "The sprinter broke the national record over 100 metres.",
        "Their coach praised the defence after a goalless draw.", "She won the tennis title in straight sets.",
        "The cyclist took the yellow jersey in the mountains.", "Rain stopped play on the third day of the test match.",
    ),
    "money": (
        "The central bank raised interest rates by half a point.", "Shares fell after the retailer cut its profit forecast.",
        "The merger creates the second largest insurer in Europe.", "Oil prices rose as producers agreed to cut output.",
        "The start-up raised forty million in a new funding round.", "Inflation slowed to its lowest level in two years.",
    ),
    "science": (
        "The probe sent back the first pictures of the moon's far side.", "Researchers found a gene that slows ageing in mice.",
        "A telescope has measured the oldest galaxy seen so far.", "The vaccine protected nine in ten volunteers in the trial.",
        "Physicists cooled a cloud of atoms to near absolute zero.", "A fossil skull changes the family tree of whales.",
    ),
}  # fmt: skip
OTHERS = (
    "The goalkeeper saved a penalty in the last minute.",
    "The bank reported a loss for the second quarter.",
    "",
    "?!",
    "猫は眠る",
)

TRAINERS = sorted(catalogue().items())
every_trainer = pytest.mark.parametrize(
    "trainer", [trainer_for(key, {}) for key, _ in TRAINERS], ids=[key for key, _ in TRAINERS]
)
both_modes = pytest.mark.parametrize("mode", [Mode.ONLINE, Mode.BATCH])


def rows(*labels: str, kind: TaskKind = TaskKind.CLASSIFICATION, first: int = 0) -> tuple[TrainingRow, ...]:
    """Six rows per label; for scores the label is a number that depends on the topic."""
    level = {"sport": 0.9, "money": 0.1, "science": 0.5}
    pairs = [
        (text, label if kind is TaskKind.CLASSIFICATION else level[label]) for label in labels for text in TEXTS[label]
    ]
    return tuple(
        TrainingRow(example_id=UUID(int=first + number), task="topic", text=text, label=label)
        for number, (text, label) in enumerate(pairs)
    )


def batch_of(
    new: tuple[TrainingRow, ...], labels: tuple[str, ...], replay: tuple[TrainingRow, ...] = (), mode: Mode = Mode.ONLINE,
    kind: TaskKind = TaskKind.CLASSIFICATION,
) -> TaskBatch:  # fmt: skip
    return TaskBatch(agent="scout", task="topic", kind=kind, labels=labels, new=new, replay=replay, mode=mode)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return Workbench(
        bases=LocalBaseStore(folder=tmp_path_factory.mktemp("bases")), embeddings=MemoryEmbeddings(), run_scripts=True
    )


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[], Path]:
    count = iter(range(1000))

    def make() -> Path:
        folder = tmp_path / f"out-{next(count)}"
        folder.mkdir()
        return folder

    return make


@pytest.fixture
def champion(trainer: Trainer, bench: Workbench, new_folder: Callable[[], Path]) -> Artefact:
    return trainer.fit(batch_of(rows("sport", "money"), ("sport", "money")), None, new_folder(), seed=1, bench=bench)


def asked(trainer: Trainer, path: Path, bench: Workbench) -> list[Prediction]:
    """Answers to the training texts and to some that nobody expects."""
    return trainer.load(path, bench).predict([text for texts in TEXTS.values() for text in texts] + list(OTHERS))


@every_trainer
def test_settings_are_the_fields_of_a_frozen_keyword_only_dataclass(trainer: Trainer) -> None:
    assert is_dataclass(trainer)
    assert type(trainer).__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert all(field.kw_only for field in fields(trainer))
    record = json.loads(json.dumps(asdict(trainer)))
    assert trainer_for(trainer.key, record) == trainer
    name, _, revision = trainer.key.partition(".v")
    assert name.isidentifier()
    assert revision.isdigit()


@pytest.mark.req("J86")
@both_modes
@every_trainer
def test_same_seed_same_bytes_and_answers(
    trainer: Trainer, champion: Artefact, bench: Workbench, new_folder: Callable[[], Path], mode: Mode
) -> None:
    batch = batch_of(rows("money", first=100), ("sport", "money"), rows("sport"), mode)
    one, two = (trainer.fit(batch, champion.path, new_folder(), seed=7, bench=bench) for _ in range(2))
    assert folder_digest(one.path) == folder_digest(two.path)
    assert asked(trainer, one.path, bench) == asked(trainer, two.path, bench)


@pytest.mark.req("J58")
@every_trainer
def test_moving_and_loading_again_changes_nothing(
    trainer: Trainer, champion: Artefact, bench: Workbench, tmp_path: Path
) -> None:
    before = asked(trainer, champion.path, bench)
    moved = shutil.copytree(champion.path, tmp_path / "elsewhere")
    assert asked(trainer, moved, bench) == before
    # a trainer with other settings must read old models as they were written: the component's own record decides
    assert asked(trainer_for(trainer.key, {}), moved, replace(bench, embeddings=None)) == before


@both_modes
@every_trainer
def test_inputs_stay_as_they_are(
    trainer: Trainer, champion: Artefact, bench: Workbench, new_folder: Callable[[], Path], mode: Mode
) -> None:
    batch = batch_of(rows("money", first=100), ("sport", "money"), rows("sport"), mode)
    copy, start, settings = deepcopy(batch), folder_digest(champion.path), asdict(trainer)  # type: ignore[call-overload]
    trainer.fit(batch, champion.path, new_folder(), seed=1, bench=bench)
    assert batch == copy
    assert folder_digest(champion.path) == start
    assert asdict(trainer) == settings  # type: ignore[call-overload]


@every_trainer
def test_an_empty_batch_is_an_error_that_says_so(
    trainer: Trainer, champion: Artefact, bench: Workbench, new_folder: Callable[[], Path]
) -> None:
    for start in (None, champion.path):
        out = new_folder()
        with pytest.raises(EmptyBatch, match="no new row"):
            trainer.fit(batch_of((), ("sport", "money"), rows("sport")), start, out, seed=1, bench=bench)
        assert list(out.iterdir()) == []


@every_trainer
def test_an_unseen_label_is_said_aloud(
    trainer: Trainer, champion: Artefact, bench: Workbench, new_folder: Callable[[], Path]
) -> None:
    stranger = rows("science", first=200)
    for batch in (
        batch_of((*rows("sport"), *stranger), ("sport", "money")),
        batch_of(rows("sport"), ("sport", "money"), stranger),
        batch_of(tuple(replace(row, label={"label": "sport"}) for row in rows("sport")), ("sport", "money")),
        batch_of(tuple(replace(row, label=None) for row in rows("sport")), ("sport", "money")),
    ):
        out = new_folder()
        with pytest.raises(UnknownLabel, match=r"row [0-9a-f-]{36} of scout\.topic") as caught:
            trainer.fit(batch, champion.path, out, seed=1, bench=bench)
        assert not any(text in str(caught.value) for texts in TEXTS.values() for text in texts), (
            "a message must not hold an example's text"
        )
        assert list(out.iterdir()) == []


@both_modes
@every_trainer
def test_a_new_label_grows_and_the_old_ones_keep_answering(
    trainer: Trainer, champion: Artefact, bench: Workbench, new_folder: Callable[[], Path], mode: Mode
) -> None:
    batch = batch_of(rows("science", first=200), ("sport", "money", "science"), rows("sport", "money"), mode)
    made = trainer.fit(batch, champion.path, new_folder(), seed=1, bench=bench)
    assert made.labels == ("sport", "money", "science")
    answers = trainer.load(made.path, bench).predict([text for texts in TEXTS.values() for text in texts])
    wanted = [label for label, texts in TEXTS.items() for _ in texts]
    assert [answer.output for answer in answers] == wanted


@both_modes
@every_trainer
def test_files_run_no_code(
    trainer: Trainer, champion: Artefact, bench: Workbench, new_folder: Callable[[], Path], mode: Mode
) -> None:
    made = trainer.fit(
        batch_of(rows("money", first=100), ("sport", "money"), rows("sport"), mode),
        champion.path,
        new_folder(),
        seed=1,
        bench=bench,
    )
    for artefact in (champion, made):
        assert {path.suffix for path in artefact.path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
        record = json.loads((artefact.path / "component.json").read_text(encoding="utf-8"))
        assert record["trainer"]["key"] == trainer.key
        assert record["task"] == "topic"
        assert tuple(record["labels"]) == artefact.labels
        base = bench.bases.path(record["encoder"]["digest"])
        assert {path.suffix for path in base.iterdir()} <= {".json", ".safetensors", ".txt", ".model"}
    assert all(isinstance(value, float) for value in made.metrics.values())
    json.dumps(made.details, allow_nan=False)


@every_trainer
def test_what_was_urgent_is_answered_right(
    trainer: Trainer, champion: Artefact, bench: Workbench, new_folder: Callable[[], Path]
) -> None:
    correction = replace(rows("sport")[2], example_id=UUID(int=900), label="money", priority=2, correction=True)
    others = tuple(row for row in rows("sport", "money") if row.text != correction.text)
    made = trainer.fit(
        batch_of((correction,), ("sport", "money"), others), champion.path, new_folder(), seed=1, bench=bench
    )
    answers = trainer.load(made.path, bench).predict([correction.text, *(row.text for row in others)])
    assert [answer.output for answer in answers] == ["money", *(row.label for row in others)]


@every_trainer
def test_scores_too(trainer: Trainer, bench: Workbench, new_folder: Callable[[], Path]) -> None:
    data = rows("sport", "money", "science", kind=TaskKind.SCORE)
    first = trainer.fit(batch_of(data, (), kind=TaskKind.SCORE), None, new_folder(), seed=1, bench=bench)
    later = trainer.fit(
        batch_of(data[:4], (), data[4:], kind=TaskKind.SCORE), first.path, new_folder(), seed=1, bench=bench
    )
    for artefact in (first, later):
        answers = trainer.load(artefact.path, bench).predict([row.text for row in data])
        assert all(isinstance(answer.output, float) and 0.0 <= answer.output <= 1.0 for answer in answers)
        assert all(0.0 <= answer.confidence <= 1.0 for answer in answers)
        errors = [abs(answer.output - row.label) for answer, row in zip(answers, data, strict=True)]
        assert sum(errors) / len(errors) < 0.15


@every_trainer
def test_a_loaded_model_may_be_asked_by_many_threads(trainer: Trainer, champion: Artefact, bench: Workbench) -> None:
    predictor = trainer.load(champion.path, replace(bench, embeddings=None))
    texts = [*TEXTS["sport"], *OTHERS]
    wanted = {text: predictor.predict([text])[0] for text in texts}

    def ask(number: int) -> None:
        chosen = [texts[(number + step) % len(texts)] for step in range(1 + number % 4)]
        for text, answer in zip(chosen, predictor.predict(chosen), strict=True):
            assert answer.output == wanted[text].output
            assert answer.confidence == pytest.approx(wanted[text].confidence, abs=1e-4)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(48)))
    assert predictor.predict([]) == []


OFFLINE = """
import socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("the network was used")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
from pathlib import Path
from uuid import UUID
from perennial.domain.example import TrainingRow
from perennial.domain.model import TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.trainers import LocalBaseStore, trainer_for
folder = Path(sys.argv[2])
bench = Workbench(bases=LocalBaseStore(folder=folder / "bases"), run_scripts=True)
trainer = trainer_for(sys.argv[1], {})
new = tuple(
    TrainingRow(example_id=UUID(int=n), task="t", text=text, label=label)
    for n, (text, label) in enumerate([("a goal", "x"), ("a loan", "y"), ("a match", "x"), ("a bank", "y")])
)
start = None
for number, mode in enumerate((Mode.ONLINE, Mode.ONLINE, Mode.BATCH)):
    out = folder / str(number)
    out.mkdir()
    batch = TaskBatch(agent="a", task="t", kind=TaskKind.CLASSIFICATION, labels=("x", "y"), new=new, replay=new if start else (), mode=mode)
    start = trainer.fit(batch, start, out, seed=1, bench=bench).path
print([answer.output for answer in trainer.load(start, bench).predict(["a goal", "a loan"])])
"""


@every_trainer
def test_no_network_is_used(trainer: Trainer, tmp_path: Path) -> None:
    include = Path(__file__).resolve().parents[2] / "include"
    environment = {"PYTHONPATH": str(include), "HOME": str(tmp_path), "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, trainer.key, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "['x', 'y']"


@pytest.mark.req("J88", "K32", "K33")
@every_trainer
def test_an_evaluation_asks_everything_of_it(
    trainer: Trainer, champion: Artefact, bench: Workbench, tmp_path: Path
) -> None:
    """k-fold below the minimum, disturbed texts, metrics and the best earlier version, through the trainer's protocol alone."""
    from perennial.flows.train.measure import Exam, examine
    from perennial.gates.gate import GateSettings
    from perennial.gates.report import judge
    from perennial.gates.scores import Evaluation

    held = tuple(replace(row, job_id=UUID(int=9), source_id="wire") for row in rows("sport", "money", first=500)[1::2])
    exam = Exam(
        trainer=trainer, bench=bench, settings=GateSettings(k_folds=3, stress_rows=4), agent="scout", task="topic",
        kind=TaskKind.CLASSIFICATION, labels=("sport", "money"), candidate=champion.path, champion=champion.path, holdout=held,
        batch=rows("sport", "money"), job_id=UUID(int=10), best=champion.path, best_version="1.0.0", versions=2,
    )  # fmt: skip
    record = json.loads(json.dumps(examine(exam), allow_nan=False))
    assert len(record["k_fold"]["folds"]) == 3
    assert record["k_fold"]["rows"] == 18
    assert all(0.0 <= value <= 1.0 for value in record["k_fold"]["folds"])
    assert {name: len(side["candidate"]) for name, side in record["stress"].items()} == dict.fromkeys(
        ("typos", "case", "negation", "length"), 4
    )
    assert record["earlier"] == [True] * 6
    assert set(record["metrics"]) == {"candidate", "champion", "baseline"}
    assert {"macro_f1", "macro_auc", "recall:sport"} <= set(record["metrics"]["candidate"])
    assert record["reference"]["scores"] == record["candidate"]
    assert "wire" not in json.dumps(record)
    assert not any(row.text in json.dumps(record) for row in held)
    enough = examine(replace(exam, settings=GateSettings(min_holdout=6, stress_rows=0)))
    assert (enough["k_fold"], enough["stress"]) == (None, {})
    assert examine(replace(exam, settings=GateSettings(min_holdout=6, k_folds_always=True)))["k_fold"]["folds"]
    few = examine(replace(exam, batch=rows("sport")[:2], holdout=held[:2]))["k_fold"]
    assert few["problem"] == "4 rows are too few for 3 folds"
    whole = {"champion": "1.0.0", "tasks": {"topic": record}, "mode": "online", "reason": "threshold"}
    report = judge(Evaluation.from_record(whole, earlier_versions=True), GateSettings(), major=False)
    assert report.action.value == "approve"
    assert "k-fold estimate" in report.as_text()
