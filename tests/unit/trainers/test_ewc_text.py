"""What ``ewc_text`` promises, on a tiny encoder; the laws of all trainers are in tests/contract."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from perennial.domain.example import TrainingRow
from perennial.domain.model import Artefact, TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.errors import TrainingError, UnknownLabel, UntrustedBundle
from perennial.trainers.ewc_text import EwcText
from tests.unit.trainers.conftest import rows_of, sentences

New = Callable[[], Path]
LABELS = ("sport", "money", "state")


def batch_of(
    new: tuple[TrainingRow, ...], replay: tuple[TrainingRow, ...] = (), labels: tuple[str, ...] = LABELS, **more: object
) -> TaskBatch:
    given = {"kind": TaskKind.CLASSIFICATION, "mode": Mode.ONLINE, **more}
    return TaskBatch(agent="scout", task="topic", labels=labels, new=new, replay=replay, **given)  # type: ignore[arg-type]


def accuracy(trainer: EwcText, artefact: Artefact, rows: tuple[TrainingRow, ...], bench: Workbench) -> float:
    answers = trainer.load(artefact.path, bench).predict([row.text for row in rows])
    return sum(answer.output == row.label for answer, row in zip(answers, rows, strict=True)) / len(rows)


@pytest.fixture
def trainer(tiny_encoder: Path) -> EwcText:
    return EwcText(encoder=str(tiny_encoder), max_tokens=32, fisher_rows=16, batch_size=8)


@pytest.fixture
def past() -> tuple[TrainingRow, ...]:
    return rows_of([pair for label in LABELS for pair in sentences(label, 40)])


@pytest.fixture
def held() -> tuple[TrainingRow, ...]:
    return rows_of([pair for label in LABELS for pair in sentences(label, 40, seed=1)], first=1000)


@pytest.fixture
def champion(trainer: EwcText, past: tuple[TrainingRow, ...], bench: Workbench, new_folder: New) -> Artefact:
    return trainer.fit(batch_of(past), None, new_folder(), seed=1, bench=bench)


def urgent(row: TrainingRow, label: object) -> TrainingRow:
    return replace(row, label=label, priority=2, correction=True)


@pytest.mark.req("J41", "J52", "J54")
def test_a_first_training_learns(
    trainer: EwcText, champion: Artefact, held: tuple[TrainingRow, ...], bench: Workbench
) -> None:
    assert accuracy(trainer, champion, held, bench) > 0.9
    assert champion.metrics["ewc_penalty"] == 0.0, "there is nothing to hold on to yet"
    assert champion.metrics["fold_accuracy"] > 0.8
    answer = trainer.load(champion.path, bench).predict(["goal match team"])[0]
    assert answer.output == "sport"
    assert answer.confidence == max(answer.scores.values())
    assert sum(answer.scores.values()) == pytest.approx(1.0)


@pytest.mark.req("J33")
def test_corrections_are_learned_and_little_else_changes(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
) -> None:
    before = accuracy(trainer, champion, held, bench)
    for number, row in enumerate(held[:12]):
        wrong_way = urgent(row, LABELS[(LABELS.index(row.label) + 1) % 3])
        made = trainer.fit(batch_of((wrong_way,), past), champion.path, new_folder(), seed=number, bench=bench)
        answer = trainer.load(made.path, bench).predict([row.text])[0]
        assert answer.output == wrong_way.label
        assert made.metrics["corrections_learned"] == made.metrics["corrections"] == 1.0
        assert made.details["insisting"]["not_learned"] == []
        rest = tuple(other for other in held if other.text != row.text)
        assert accuracy(trainer, made, rest, bench) >= before - 0.05


def test_a_correction_against_the_budget_is_given_up_and_reported(
    trainer: EwcText, champion: Artefact, past: tuple[TrainingRow, ...], bench: Workbench, new_folder: New
) -> None:
    same = past[0]
    replay = tuple(replace(row, text=same.text, label=same.label) for row in past[:60])
    contrary = urgent(same, "state")
    made = trainer.fit(batch_of((contrary,), replay), champion.path, new_folder(), seed=1, bench=bench)
    assert made.details["insisting"] == {
        "rounds": made.details["insisting"]["rounds"], "heaviest_weight": made.details["insisting"]["heaviest_weight"],
        "budget_spent": True, "not_learned": [str(contrary.example_id)],
    }  # fmt: skip
    assert made.metrics["corrections_learned"] == 0.0
    assert trainer.load(made.path, bench).predict([same.text])[0].output == same.label


def test_replayed_corrections_are_not_unlearned(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
) -> None:
    done: list[TrainingRow] = []
    current = champion
    for number, row in enumerate(held[:8]):
        wrong_way = urgent(row, LABELS[(LABELS.index(row.label) + 1) % 3])
        current = trainer.fit(
            batch_of((wrong_way,), (*done, *past)), current.path, new_folder(), seed=number, bench=bench
        )
        done.append(wrong_way)
    assert accuracy(trainer, current, tuple(done), bench) == 1.0


@pytest.mark.req("J33", "J48")
def test_an_urgent_correction_that_the_champion_never_learned_is_brought_back(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
) -> None:
    """It was in a candidate that gave way; an ordinary one that the champion does not know is not insisted on."""
    gave_way, new = urgent(held[0], "money"), urgent(held[-1], "sport")
    assert (held[0].label, held[-1].label) == ("sport", "state")
    for replayed, learned in ((gave_way, True), (replace(gave_way, priority=1), False)):
        made = trainer.fit(batch_of((new,), (replayed, *past[:60])), champion.path, new_folder(), seed=1, bench=bench)
        first, second = trainer.load(made.path, bench).predict([gave_way.text, new.text])
        assert (first.output == "money", second.output) == (learned, "sport")


@pytest.mark.req("J42", "J43")
def test_ewc_forgets_less_than_plain_training(
    trainer: EwcText, champion: Artefact, held: tuple[TrainingRow, ...], bench: Workbench, new_folder: New
) -> None:
    """No replay, and new rows of one label alone: what is left of the old task is what the penalty holds."""
    before = accuracy(trainer, champion, held, bench)
    new = rows_of([(text, "money") for text, _ in sentences("science", 30)], first=5000)
    plain = replace(trainer, head_penalty=0.0, pull=0.0)
    weak, strong = (replace(trainer, head_penalty=value, pull=0.0) for value in (0.3, 3.0))
    drops, penalties = [], []
    for kind in (plain, weak, strong):
        made = kind.fit(batch_of(new), champion.path, new_folder(), seed=1, bench=bench)
        drops.append(before - accuracy(kind, made, held, bench))
        penalties.append(made.metrics["ewc_penalty"])
        assert accuracy(kind, made, new, bench) > 0.8, "the new task must be learned all the same"
    assert drops[2] < drops[1] < drops[0] - 0.1
    assert penalties[0] == 0.0
    assert penalties[2] > 0.0


@pytest.mark.req("J42", "J43")
def test_penalty_and_fisher_are_logged_and_really_there(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
) -> None:
    made = trainer.fit(batch_of(held[:20], past), champion.path, new_folder(), seed=1, bench=bench)
    old, new = load_file(champion.path / "head.safetensors"), load_file(made.path / "head.safetensors")
    fisher = load_file(champion.path / "fisher.safetensors")
    expected = sum(
        0.5
        * trainer.head_penalty
        * len(past)
        * float((fisher[name].astype(np.float64) * (new[name] - old[name]) ** 2).sum())
        for name in ("weight", "bias")
    )
    assert made.metrics["ewc_penalty"] == pytest.approx(expected, rel=1e-3)
    assert made.metrics["ewc_penalty"] > 0
    assert made.metrics["ewc_penalty_mean"] > 0
    assert made.metrics["fisher_mean"] > 0
    assert len(made.details["losses"]) == len(made.details["ewc_penalties"]) > 1
    assert made.details["losses"][-1] < made.details["losses"][0]


@pytest.mark.req("J43", "J44", "J45")
def test_a_batch_update_moves_the_encoder_and_logs_its_penalty(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
) -> None:
    made = trainer.fit(
        batch_of(held[:24], past[:40], mode=Mode.BATCH), champion.path, new_folder(), seed=1, bench=bench
    )
    record = json.loads((made.path / "component.json").read_text())
    base = json.loads((champion.path / "component.json").read_text())
    assert record["encoder"]["tuned"] is True
    assert record["encoder"]["digest"] != base["encoder"]["digest"]
    assert made.metrics["encoder_ewc_penalty"] > 0
    assert made.metrics["encoder_ewc_penalty_mean"] > 0
    assert made.metrics["encoder_fisher_mean"] > 0
    assert len(made.details["encoder_pass"]["losses"]) == 8, "64 rows in batches of 8, once"
    old = load_file(bench.bases.path(base["encoder"]["digest"]) / "model.safetensors")
    new = load_file(bench.bases.path(record["encoder"]["digest"]) / "model.safetensors")
    moved = {name: float(np.abs(old[name] - new[name]).max()) for name in old}
    assert moved["embeddings.word_embeddings.weight"] == 0.0
    assert 0 < max(moved.values()) <= 1.5 * 8 * trainer.encoder_lr, "AdamW moves by about the rate at each step"
    assert accuracy(trainer, made, held, bench) > 0.9
    again = trainer.fit(batch_of(held[24:30], past[:40]), made.path, new_folder(), seed=1, bench=bench)
    assert json.loads((again.path / "component.json").read_text())["encoder"] == record["encoder"], (
        "an online update keeps it"
    )


def test_the_encoder_is_moved_in_the_folder_of_the_training(
    monkeypatch: pytest.MonkeyPatch, trainer: EwcText, champion: Artefact, past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...], bench: Workbench, new_folder: New,
) -> None:  # fmt: skip
    """What a killed batch training leaves goes with its job, so none of it may lie elsewhere."""
    made: list[Path] = []

    def tune(*given: Any) -> None:
        made.append(given[-1])
        raise KeyboardInterrupt

    monkeypatch.setattr("perennial.trainers._ewc_run.tune", tune)
    out = new_folder()
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(batch_of(held[:24], past[:40], mode=Mode.BATCH), champion.path, out, seed=1, bench=bench)
    assert [path.is_relative_to(out) for path in made] == [True]


@pytest.mark.req("J43")
def test_ewc_holds_the_encoder(
    trainer: EwcText, champion: Artefact, tiny_encoder: Path, bench: Workbench, tmp_path: Path
) -> None:
    """The encoder alone, under the champion's head: the old task's loss rises less with the penalty than without."""
    from perennial.trainers._component import read
    from perennial.trainers._encoder import Encoder, embed, encoder_of
    from perennial.trainers._head import squash, with_ones
    from perennial.trainers._tune import Plan, tune

    saved = read(champion.path)
    old = encoder_of(str(saved.record.encoder["digest"]), bench)
    past_pairs = [pair for label in LABELS for pair in sentences(label, 40)]
    texts = [text for text, _ in past_pairs]
    place = [LABELS.index(str(label)) for _, label in past_pairs]
    new = [text for text, _ in sentences("science", 48)]
    targets = np.tile([0.0, 1.0, 0.0], (48, 1))

    def loss_under(encoder: Encoder) -> float:
        p = squash(with_ones(embed(texts, encoder, None, max_tokens=32)) @ saved.theta)
        return float(-np.log(p[np.arange(len(texts)), place] + 1e-12).mean())

    rise = {}
    for penalty in (0.0, 1e4, 1e6):
        out = tmp_path / f"tuned-{penalty}"
        out.mkdir()
        plan = Plan(
            encoder_lr=1e-3, head_lr=0.0, epochs=2, batch_size=8, penalty=penalty, fisher_rows=64, max_tokens=32, bf16=False, seed=3,
        )  # fmt: skip
        tune(old, new, targets, texts, saved.theta, plan, out)
        rise[penalty] = loss_under(Encoder("x" * 64, out)) - loss_under(old)
    assert 0 < rise[1e6] < rise[1e4] < rise[0.0]
    assert rise[1e6] < 0.5 * rise[0.0]


@pytest.mark.parametrize("mode", [Mode.ONLINE, Mode.BATCH])
def test_same_seed_same_bytes_and_another_seed_another_order(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
    mode: Mode,
) -> None:
    def files(seed: int) -> tuple[bytes, ...]:
        made = trainer.fit(
            batch_of(held[:24], past[:40], mode=mode), champion.path, new_folder(), seed=seed, bench=bench
        )
        digest = str(json.loads((made.path / "component.json").read_text())["encoder"]["digest"])
        folder = bench.bases.path(digest)
        return (
            digest.encode(),
            (folder / "model.safetensors").read_bytes(),
            *(path.read_bytes() for path in sorted(made.path.iterdir())),
        )

    assert files(1) == files(1)
    if mode is Mode.BATCH:
        assert files(1)[1] != files(2)[1]


def test_a_partly_filled_cache_changes_nothing(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
) -> None:
    cold = trainer.fit(
        batch_of(held[:20], past), champion.path, new_folder(), seed=1, bench=replace(bench, embeddings=None)
    )
    warm = trainer.fit(batch_of(held[:20], past), champion.path, new_folder(), seed=1, bench=bench)
    assert (cold.path / "head.safetensors").read_bytes() == (warm.path / "head.safetensors").read_bytes()


def test_a_new_label_grows_behind_the_old_ones(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
) -> None:
    before = accuracy(trainer, champion, held, bench)
    new = rows_of(sentences("science", 12), first=3000)
    made = trainer.fit(batch_of(new, past, (*LABELS, "science")), champion.path, new_folder(), seed=1, bench=bench)
    assert made.labels == (*LABELS, "science")
    unseen = rows_of(sentences("science", 30, seed=9), first=4000)
    assert accuracy(trainer, made, unseen, bench) > 0.8
    assert accuracy(trainer, made, held, bench) >= before - 0.03


def test_a_declared_label_without_rows_can_be_learned_later(
    trainer: EwcText, past: tuple[TrainingRow, ...], held: tuple[TrainingRow, ...], bench: Workbench, new_folder: New
) -> None:
    known = tuple(row for row in past if row.label != "state")
    first = trainer.fit(batch_of(known), None, new_folder(), seed=1, bench=bench)
    assert first.labels == LABELS
    assert json.loads((first.path / "component.json").read_text())["label_rows"] == [40, 40, 0]
    others = tuple(row for row in held if row.label != "state")
    before = accuracy(trainer, first, others, bench)
    answers = trainer.load(first.path, bench).predict([row.text for row in others])
    assert all(answer.scores["state"] < 0.1 for answer in answers)
    new = tuple(row for row in past if row.label == "state")[:12]
    made = trainer.fit(batch_of(new, known), first.path, new_folder(), seed=1, bench=bench)
    assert json.loads((made.path / "component.json").read_text())["label_rows"] == [40, 40, 12]
    assert accuracy(trainer, made, tuple(row for row in held if row.label == "state"), bench) > 0.8
    assert accuracy(trainer, made, others, bench) >= before - 0.03


@pytest.mark.parametrize("labels", [("money", "sport", "state"), ("sport", "money")])
def test_labels_must_begin_with_the_champions(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
    labels: tuple[str, ...],
) -> None:
    rows = tuple(row for row in past if row.label in labels)
    with pytest.raises(TrainingError, match="must begin with the champion's 3"):
        trainer.fit(batch_of(rows, labels=labels), champion.path, new_folder(), seed=1, bench=bench)


@pytest.mark.req("J53")
def test_scores(trainer: EwcText, bench: Workbench, new_folder: New) -> None:
    def scored(seed: int, first: int) -> tuple[TrainingRow, ...]:
        draw = np.random.default_rng(seed)
        texts = []
        for _ in range(90):
            good = int(draw.integers(0, 5))
            words = [*draw.choice(["good", "great", "fine"], good), *draw.choice(["bad", "awful", "poor"], 4 - good)]
            texts.append((" ".join(draw.permutation(words)), good / 4))
        return rows_of(texts, first=first)

    def batch(new: tuple[TrainingRow, ...], replay: tuple[TrainingRow, ...] = ()) -> TaskBatch:
        return batch_of(new, replay, labels=(), kind=TaskKind.SCORE)

    first, later, held = scored(1, 0), scored(2, 1000), scored(3, 2000)
    made = trainer.fit(batch(first), None, new_folder(), seed=1, bench=bench)
    answers = trainer.load(made.path, bench).predict([row.text for row in held])
    mae = float(np.mean([abs(answer.output - row.label) for answer, row in zip(answers, held, strict=True)]))
    assert mae < 0.12
    assert made.metrics["fold_mae"] == pytest.approx(mae, abs=0.05)
    assert all(
        0.0 <= answer.output <= 1.0 and 0.0 <= answer.confidence <= 1.0 and not answer.scores for answer in answers
    )
    spread = float(
        np.sqrt(np.mean([(answer.output - row.label) ** 2 for answer, row in zip(answers, held, strict=True)]))
    )
    assert np.mean([answer.confidence for answer in answers]) == pytest.approx(1 - 2 * spread, abs=0.1)

    onwards = trainer.fit(batch(later, first), made.path, new_folder(), seed=1, bench=bench)
    assert onwards.metrics["ewc_penalty"] > 0
    assert onwards.metrics["mae_replay_after"] < 0.12
    (odd,) = rows_of([("match of the good and bad", 0.9)], first=9000, priority=2, correction=True)
    assert abs(trainer.load(made.path, bench).predict([odd.text])[0].output - 0.9) > 0.1
    corrected = trainer.fit(batch((odd,), first), made.path, new_folder(), seed=1, bench=bench)
    assert abs(trainer.load(corrected.path, bench).predict([odd.text])[0].output - 0.9) <= 0.1
    assert corrected.metrics["corrections_learned"] == 1.0


def test_ignorance_of_scores_is_no_confidence(trainer: EwcText, bench: Workbench, new_folder: New) -> None:
    rows = rows_of([("good", 1.0), ("bad", 0.0), ("fine", 0.7)])
    made = trainer.fit(batch_of(rows, labels=(), kind=TaskKind.SCORE), None, new_folder(), seed=1, bench=bench)
    assert trainer.load(made.path, bench).predict(["good"])[0].confidence == 0.0


@pytest.mark.parametrize("label", [True, "0.5", None, -0.1, 1.1, float("nan"), [0.5]])
def test_what_is_no_score_is_refused(trainer: EwcText, bench: Workbench, new_folder: New, label: object) -> None:
    with pytest.raises(UnknownLabel, match="no score between 0 and 1"):
        trainer.fit(
            batch_of(rows_of([("good", label)]), labels=(), kind=TaskKind.SCORE),
            None,
            new_folder(),
            seed=1,
            bench=bench,
        )


def test_another_encoder_is_a_new_start(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
    tmp_path: Path,
    tiny_encoder: Path,
) -> None:
    import shutil

    copy = shutil.copytree(tiny_encoder, tmp_path / "other-encoder")
    other = replace(trainer, encoder=str(copy))
    made = other.fit(batch_of(past), champion.path, new_folder(), seed=1, bench=bench)
    assert made.metrics["base_changed"] == 1.0
    assert json.loads((made.path / "component.json").read_text())["started_from"] == ""


def test_another_kind_or_trainer_is_no_start(
    trainer: EwcText, champion: Artefact, past: tuple[TrainingRow, ...], bench: Workbench, new_folder: New
) -> None:
    scores = tuple(replace(row, label=0.5) for row in past)
    with pytest.raises(TrainingError, match="train without a start"):
        trainer.fit(batch_of(scores, labels=(), kind=TaskKind.SCORE), champion.path, new_folder(), seed=1, bench=bench)


def test_an_output_folder_in_use_is_refused(
    trainer: EwcText, past: tuple[TrainingRow, ...], bench: Workbench, new_folder: New
) -> None:
    out = new_folder()
    (out / "left.over").touch()
    with pytest.raises(TrainingError, match="not empty"):
        trainer.fit(batch_of(past), None, out, seed=1, bench=bench)


@pytest.mark.parametrize(
    "damage", ["no json", "other format", "bias gone", "other shape", "not finite", "missing head"]
)
def test_a_component_that_does_not_hold_together_is_refused(
    trainer: EwcText, champion: Artefact, bench: Workbench, damage: str
) -> None:
    record, head = champion.path / "component.json", champion.path / "head.safetensors"
    tensors = load_file(head)
    if damage == "no json":
        record.write_text("{")
    elif damage == "other format":
        record.write_text(json.dumps({**json.loads(record.read_text()), "format": 99}))
    elif damage == "bias gone":
        save_file({"weight": tensors["weight"]}, head)
    elif damage == "other shape":
        save_file({"weight": tensors["weight"][:, :2].copy(), "bias": tensors["bias"][:2].copy()}, head)
    elif damage == "not finite":
        save_file({"weight": tensors["weight"], "bias": np.full(3, np.inf, dtype=np.float32)}, head)
    else:
        head.unlink()
    with pytest.raises(UntrustedBundle, match="roll back"):
        trainer.load(champion.path, bench)


def test_few_rows_and_one_label_still_train(trainer: EwcText, bench: Workbench, new_folder: New) -> None:
    made = trainer.fit(
        batch_of(rows_of([("goal", "sport")]), labels=("sport",)), None, new_folder(), seed=1, bench=bench
    )
    answer = trainer.load(made.path, bench).predict(["bank"])[0]
    assert answer.output == "sport"
    assert answer.confidence == pytest.approx(1.0, abs=1e-3)
    grown = rows_of(sentences("money", 12), first=10)
    more = trainer.fit(
        batch_of(grown, rows_of([("goal", "sport")]), labels=("sport", "money")),
        made.path,
        new_folder(),
        seed=1,
        bench=bench,
    )
    assert accuracy(trainer, more, (*grown, *rows_of([("goal", "sport")])), bench) == 1.0


def test_auto_trains_as_online(
    trainer: EwcText,
    champion: Artefact,
    past: tuple[TrainingRow, ...],
    held: tuple[TrainingRow, ...],
    bench: Workbench,
    new_folder: New,
) -> None:
    auto = trainer.fit(batch_of(held[:9], past, mode=Mode.AUTO), champion.path, new_folder(), seed=1, bench=bench)
    online = trainer.fit(batch_of(held[:9], past), champion.path, new_folder(), seed=1, bench=bench)
    assert (auto.path / "head.safetensors").read_bytes() == (online.path / "head.safetensors").read_bytes()
