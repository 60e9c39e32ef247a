"""Corrections act on texts like them, and on no others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from perennial.domain.model import TaskBatch, Workbench
from perennial.domain.words import Mode, TaskKind
from perennial.errors import UntrustedBundle
from perennial.trainers._component import read
from perennial.trainers._neighbourhood import Neighbourhood, reach_of
from perennial.trainers.ewc_text import EwcText
from tests.unit.trainers.conftest import rows_of, sentences

LABELS = ("sport", "money", "state")


def test_keys_are_made_once_keep_their_values_and_the_oldest_go() -> None:
    x = np.hstack([np.eye(4), np.ones((4, 1))])
    local = Neighbourhood.empty(4, 2).widened(x[:2], 2, (0.5, 0.6))
    local = replace(local, values=np.array([[1.0, -1.0], [2.0, 0.0]]))
    wider = local.widened(x[[1, 2, 2]], 3, (0.5, 0.6))
    assert wider.values.tolist() == [[1.0, -1.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    assert wider.scores(x).tolist() == [[1.0, -1.0, 0.0], [2.0, 0.0, 0.0], [0.0] * 3, [0.0] * 3]
    assert wider.widened(x[3:], 3, (0.5, 0.6), most=2).keys.tolist() == np.eye(4)[2:].tolist()


def test_the_reach_follows_how_alike_unrelated_texts_are() -> None:
    draw = np.random.default_rng(1)
    loose = draw.normal(size=(80, 384))
    narrow = loose + 8.0
    ends = []
    for vectors in (loose, narrow):
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        ends.append(reach_of(np.hstack([unit, np.ones((80, 1))])))
    assert ends[0] == (0.55, 0.65)
    assert 0.9 < ends[1][0] < ends[1][1] < 1.0


@pytest.mark.req("J33", "J51")
def test_values_are_saved_carried_on_and_checked(
    tiny_encoder: Path, bench: Workbench, new_folder: Callable[[], Path]
) -> None:
    trainer = EwcText(encoder=str(tiny_encoder), max_tokens=32)

    def fit(new, replay, start):  # type: ignore[no-untyped-def]
        batch = TaskBatch(
            agent="scout",
            task="topic",
            kind=TaskKind.CLASSIFICATION,
            labels=LABELS,
            new=new,
            replay=replay,
            mode=Mode.ONLINE,
        )
        return trainer.fit(batch, start, new_folder(), seed=1, bench=bench)

    past = rows_of([pair for label in LABELS for pair in sentences(label, 30)])
    champion = fit(past, (), None)
    assert len(read(champion.path).local.keys) == 0
    fix = replace(past[0], label="state", priority=2, correction=True)
    made = fit((fix,), past[1:], champion.path)
    assert len(read(made.path).local.keys) == 1
    # an ordinary update that does not replay the correction keeps its value
    later = fit(rows_of(sentences("money", 5, seed=3), first=900), past[1:], made.path)
    kept = read(later.path).local
    assert np.allclose(kept.keys, read(made.path).local.keys)
    assert trainer.load(later.path, bench).predict([fix.text])[0].output == "state"
    assert later.metrics["corrections_kept"] == 1.0

    from safetensors.numpy import load_file, save_file

    tensors = load_file(made.path / "head.safetensors")
    tensors["correction_values"] = tensors["correction_values"][:, :2].copy()
    save_file(tensors, made.path / "head.safetensors")
    with pytest.raises(UntrustedBundle):
        read(made.path)
