"""A tiny encoder with random weights, so that most tests of the trainer take milliseconds; the contract suite uses the real one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

import pytest

from perennial.domain.example import TrainingRow
from perennial.domain.model import Workbench
from perennial.trainers import LocalBaseStore, MemoryEmbeddings

# waiting OpenMP threads spin by default; beside other busy processes that makes everything several times slower
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SUBJECTS = {
    "sport": ("goal", "match", "team", "coach", "league", "striker"),
    "money": ("bank", "share", "profit", "market", "trade", "loan"),
    "state": ("vote", "party", "law", "minister", "treaty", "senate"),
    "science": ("chip", "robot", "software", "orbit", "probe", "laser"),
}
COMMON = ("the", "a", "of", "in", "and", "today", "again")
VALUES = ("good", "bad", "great", "awful", "fine", "poor")
WORDS = (*(word for words in SUBJECTS.values() for word in words), *COMMON, *VALUES)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a one-layer BERT over a few words: loadable like any Hugging Face encoder."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoder") / "tiny"
    vocabulary = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=64,
    ).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = BertConfig(
            vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=64, initializer_range=0.02,
        )  # fmt: skip
        model = BertModel(config)
        # words must outweigh places and layers, as in a trained encoder
        torch.nn.init.normal_(model.get_input_embeddings().weight)
        model.save_pretrained(folder)
    return folder


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    """A fresh base store and embedding memory."""
    return Workbench(bases=LocalBaseStore(folder=tmp_path / "bases"), embeddings=MemoryEmbeddings())


@pytest.fixture
def new_folder(tmp_path: Path) -> Callable[[], Path]:
    """Makes one more empty folder at each call."""
    count = iter(range(1000))

    def make() -> Path:
        folder = tmp_path / f"out-{next(count)}"
        folder.mkdir()
        return folder

    return make


def rows_of(texts: Sequence[tuple[str, object]], first: int = 0, **flags: object) -> tuple[TrainingRow, ...]:
    """Rows from (text, label) pairs, numbered from ``first``."""
    return tuple(
        TrainingRow(example_id=UUID(int=first + number), task="topic", text=text, label=label, **flags)  # type: ignore[arg-type]
        for number, (text, label) in enumerate(texts)
    )


def sentences(label: str, count: int, seed: int = 0) -> list[tuple[str, object]]:
    """Bags of three words of one subject and two common ones, the same for the same seed."""
    import random

    draw = random.Random(f"{label}:{seed}")
    return [(" ".join([*draw.sample(SUBJECTS[label], 3), *draw.sample(COMMON, 2)]), label) for _ in range(count)]
