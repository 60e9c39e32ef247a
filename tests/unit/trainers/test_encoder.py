"""Embedding: the cache, independence of neighbours, sharing, refusals, threads and forks."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from perennial.domain.model import Workbench
from perennial.errors import TrainingError
from perennial.guard.redactor import Redactor
from perennial.trainers import LocalBaseStore, MemoryEmbeddings
from perennial.trainers._encoder import BUNDLED, Encoder, embed, encoder_of, put_base

TEXTS = [
    "goal match",
    "the bank and the market",
    "vote",
    "chip robot software orbit probe laser good bad",
    "",
    "goal match",
]


@pytest.fixture
def encoder(tiny_encoder: Path, bench: Workbench) -> Encoder:
    return encoder_of(put_base(str(tiny_encoder), bench), bench)


class Spy(MemoryEmbeddings):
    """Counts what is asked and told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []
        self.names: set[str] = set()

    def put(self, encoder: str, values: Mapping[str, bytes]) -> None:
        self.told += list(values)
        self.names.add(encoder)
        super().put(encoder, values)


def test_vectors_have_length_one_and_the_order_of_the_texts(encoder: Encoder) -> None:
    vectors = embed(TEXTS, encoder, None, max_tokens=32)
    assert vectors.shape == (6, 32)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert (vectors[0] == vectors[5]).all()
    for number, text in enumerate(TEXTS):
        assert (embed([text], encoder, None, max_tokens=32)[0] == vectors[number]).all(), (
            "a vector depends on its neighbours"
        )
    assert embed([], encoder, None, max_tokens=32).shape == (0, 32)


def test_pooling_is_the_mean_over_real_tokens(encoder: Encoder) -> None:
    import torch

    ids = encoder.tokens(["the bank and the market"], 32)[0]
    with torch.inference_mode():
        hidden = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(0)
    assert embed(["the bank and the market"], encoder, None, max_tokens=32)[0] == pytest.approx(
        (hidden / hidden.norm()).numpy(), abs=1e-5
    )


def test_the_cache_is_asked_first_and_told_what_was_missing(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    spy = Spy()
    first = embed(TEXTS, encoder, spy, max_tokens=32)
    assert sorted(spy.told) == sorted({hashlib.sha256(text.encode()).hexdigest() for text in TEXTS})
    assert spy.names == {f"{encoder.digest}-32-2"}

    def never(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Encoder, "vectors", never)
    assert (embed(TEXTS, encoder, spy, max_tokens=32) == first).all()
    monkeypatch.undo()
    embed(TEXTS, encoder, spy, max_tokens=16)
    assert spy.names == {f"{encoder.digest}-32-2", f"{encoder.digest}-16-2"}


@pytest.mark.parametrize("rubbish", [b"", b"abc", b"\0" * 127, np.full(32, np.nan, dtype="<f4").tobytes()])
def test_rubbish_in_the_cache_is_computed_anew(encoder: Encoder, rubbish: bytes) -> None:
    spy = Spy()
    spy.put(f"{encoder.digest}-32-2", {hashlib.sha256(b"vote").hexdigest(): rubbish})
    assert (embed(["vote"], encoder, spy, max_tokens=32) == embed(["vote"], encoder, None, max_tokens=32)).all()


def test_one_encoder_per_digest_and_a_limit_on_idle_ones(tiny_encoder: Path, bench: Workbench, tmp_path: Path) -> None:
    digest = put_base(str(tiny_encoder), bench)
    first = encoder_of(digest, bench)
    assert encoder_of(digest, bench) is first
    others = []
    for number in range(6):
        copy = shutil.copytree(tiny_encoder, tmp_path / f"copy-{number}")
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "variant": number}))
        others.append(encoder_of(put_base(str(copy), bench), bench).digest)
    assert len(set(others)) == 6
    assert encoder_of(digest, bench) is first, "an encoder that is in use must not be loaded twice"


def test_threads_may_share_an_encoder(encoder: Encoder) -> None:
    wanted = {text: embed([text], encoder, None, max_tokens=32)[0] for text in TEXTS}

    def ask(number: int) -> bool:
        chosen: Sequence[str] = [TEXTS[(number + step) % len(TEXTS)] for step in range(3)]
        got = embed(chosen, encoder, None, max_tokens=32 if number % 2 else 31)
        return all(np.allclose(vector, wanted[text], atol=1e-5) for vector, text in zip(got, chosen, strict=True))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(64)))


def test_only_what_an_encoder_needs_is_stored(tiny_encoder: Path, bench: Workbench, tmp_path: Path) -> None:
    copy = shutil.copytree(tiny_encoder, tmp_path / "with-code")
    (copy / "modeling_evil.py").write_text("raise SystemExit")
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04pickle")
    names = {path.name for path in bench.bases.path(put_base(str(copy), bench)).iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


def test_code_and_pickles_are_refused(tiny_encoder: Path, bench: Workbench, tmp_path: Path) -> None:
    pickled = shutil.copytree(tiny_encoder, tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(TrainingError, match="no safetensors weights"):
        put_base(str(pickled), bench)
    coded = shutil.copytree(tiny_encoder, tmp_path / "coded")
    config = json.loads((coded / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": {"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.EvilConfig"},
    }
    (coded / "config.json").write_text(json.dumps(config))
    (coded / "modeling_evil.py").write_text("raise SystemExit('code of the folder ran')")
    with pytest.raises(TrainingError, match="cannot be loaded"):
        encoder_of(put_base(str(coded), bench), bench)


@pytest.mark.parametrize("name", ["no/such-encoder", "../nowhere", "what is this?", ""])
def test_an_unknown_encoder_says_what_to_do(bench: Workbench, name: str) -> None:
    with pytest.raises(TrainingError, match="fetch it first"):
        put_base(name, bench)


def test_the_bundled_encoder_is_found(tmp_path: Path) -> None:
    bench = Workbench(bases=LocalBaseStore(folder=tmp_path))
    folder = bench.bases.path(put_base(BUNDLED, bench))
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 384


FORKED = """
import os, signal, sys
from pathlib import Path
import torch
from perennial.domain.model import Workbench
from perennial.trainers import LocalBaseStore
from perennial.trainers._encoder import embed, encoder_of, put_base

torch.set_num_threads(2)
bench = Workbench(bases=LocalBaseStore(folder=Path(sys.argv[2])))
digest = put_base(sys.argv[1], bench)
texts = ["goal match team", "bank share profit"] * 400

def child(name, want):
    number = os.fork()
    if number == 0:
        signal.alarm(150)
        got = embed(texts, encoder_of(digest, bench), None, max_tokens=32)
        torch.randn(600, 600) @ torch.randn(600, 600)
        assert want is None or abs(got - want).max() < 1e-5
        print(name, torch.get_num_threads(), flush=True)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    if code:
        sys.exit(f"{name}: {code}")

child("imported", None)
child("used", embed(texts, encoder_of(digest, bench), None, max_tokens=32))
"""


def test_children_of_a_warm_parent_can_compute(tiny_encoder: Path, tmp_path: Path) -> None:
    """A parent that only imported costs its children nothing; after one that computed, OpenMP hangs unless threads are given up."""
    include = Path(__file__).resolve().parents[3] / "include"
    done = subprocess.run(
        [sys.executable, "-c", FORKED, str(tiny_encoder), str(tmp_path)],
        capture_output=True, text=True, env={"PYTHONPATH": str(include), "OMP_WAIT_POLICY": "passive"}, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["imported", "2", "used", "1"]


def test_names_that_stand_for_persons_are_not_read(encoder: Encoder) -> None:
    bare = embed(["wins the match", "the bank and vote"], encoder, None, max_tokens=32)
    named = embed(["Robin Qebadafara wins the match", "the bank and Qebadafara vote"], encoder, None, max_tokens=32)
    assert (bare == named).all()
    lookalike = embed(["Qebadafare wins the match"], encoder, None, max_tokens=32)  # its check syllable is wrong
    assert not (lookalike == bare[:1]).all()


SENT = (
    "Mary Duckworth beat Olga Petrenko 6-4, 6-2 and Duckworth plays the semifinal on Friday.",
    "President Hamid Rostami told reporters in Geneva that Rostami and Anna Lindqvist agreed on a treaty.",
    "Coach Hubert Marlowe leaves after three seasons; Marlowe, 71, wants to rest, said his assistant Tony Baretti.",
    "Judge Susan Whitfield sentenced Carl Brennan to two years for fraud at the bank that Brennan ran.",
    "Singer Elena Marchetti cancels her tour, her manager Paul Okafor writes, after Marchetti fell ill.",
    "Chief executive John Havisham sold shares worth $2 million before profits fell, and Havisham denies any wrong.",
    "Researcher Ingrid Solberg finds that the comet lost its tail; Solberg and Kofi Mensah publish next week.",
    "Senator Robert Kincaid and his rival Julia Farrow met for a second debate, which Farrow won by most polls.",
)


def test_a_redacted_text_is_nearer_to_what_was_sent_without_its_stand_ins(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundled = encoder_of(put_base(BUNDLED, bench), bench)
    redactor = Redactor(names=True, key=b"tests")
    found = [redactor.redact(text) for text in SENT]
    assert all(one.counts.get("PERSON", 0) >= 2 for one in found)
    sent, kept = (embed(texts, bundled, None, max_tokens=128) for texts in (SENT, [one.text for one in found]))
    monkeypatch.setattr("perennial.trainers._encoder.without_names", str)
    read = embed([one.text for one in found], bundled, None, max_tokens=128)
    near, before = (sent * kept).sum(axis=1), (sent * read).sum(axis=1)
    assert (near > before).all()
    assert near.mean() > 0.65  # from here on a correction counts in full; these texts are unusually full of names
