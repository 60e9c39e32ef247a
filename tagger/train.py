"""Trains the head of the name tagger and writes ``tagger.safetensors`` with its manifest: ``make tagger``.

The encoder stays frozen. On one thread and a fixed seed the same templates give the same file on the same machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from fill import Filler, digest
from safetensors.numpy import save_file

from perennial.guard import tagger as inference
from perennial.guard.gazetteer import gazetteer
from perennial.guard.tagger_encoder import LowerLayers, digest_of, folder
from perennial.guard.tagger_marks import COUNT, marks

LAYERS = (0, 2, 3, 4)
HIDDEN = 64
HALF = 2
SEED = 20261122
STEPS = 7  # on each side of nought; more of them take space in the package and find no more
BLANK = 0.35  # share of the sentences in which the lists tell nothing


def dataset(each: int, seed: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each sentence: states [words, layers, width] float16, marks, and 1.0 where a word is part of a name."""
    lists = gazetteer()
    names = {kind: sorted(getattr(lists, kind)) for kind in ("first", "ambiguous", "last")}
    sentences = list(Filler(seed, names).sentences(each))
    encoder = LowerLayers(folder(), LAYERS)
    rows = []
    for start in range(0, len(sentences), 256):
        part = sentences[start : start + 256]
        for sentence, words in zip(part, encoder.words([each.text for each in part]), strict=True):
            if words is None or not words.places:
                continue
            told = [float(any(a < end and b > begin for a, b in sentence.names)) for begin, end in words.places]
            rows.append((
                words.states.numpy().astype(np.float16),
                np.array(marks(sentence.text, words.places, words.pieces, lists), dtype=np.float32), np.array(told, dtype=np.float32),
            ))  # fmt: skip
    return rows


def train(rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]], epochs: int, seed: int) -> dict[str, np.ndarray]:
    """The head's weights."""
    torch.manual_seed(seed)
    draw = random.Random(seed)
    width = rows[0][0].shape[2]
    mix = torch.nn.Parameter(torch.zeros(len(LAYERS)))
    convolution = torch.nn.Conv1d(width + COUNT, HIDDEN, 2 * HALF + 1, padding=HALF)
    out = torch.nn.Linear(HIDDEN, 1)
    parts = [mix, *convolution.parameters(), *out.parameters()]
    best = torch.optim.AdamW(parts, lr=2e-3, weight_decay=0.02)
    size, order = 64, list(range(len(rows)))
    steps = epochs * (len(rows) // size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(best, 3e-3, total_steps=steps)
    lists_at = slice(8, 12)
    for epoch in range(epochs):
        draw.shuffle(order)
        total = 0.0
        for start in range(0, len(order) - size + 1, size):
            batch = [rows[number] for number in order[start : start + size]]
            longest = max(len(row[2]) for row in batch)
            states = torch.zeros((size, longest, len(LAYERS), width))
            told = torch.zeros((size, longest, COUNT))
            gold, seen = torch.zeros((size, longest)), torch.zeros((size, longest))
            for place, (one, two, three) in enumerate(batch):
                states[place, : len(three)] = torch.from_numpy(one.astype(np.float32))
                told[place, : len(three)] = torch.from_numpy(two)
                if draw.random() < BLANK:
                    told[place, :, lists_at] = 0
                gold[place, : len(three)] = torch.from_numpy(three)
                seen[place, : len(three)] = 1
            mixed = torch.einsum("rwls,l->rws", states, torch.softmax(mix, 0))
            mixed = torch.nn.functional.dropout(torch.cat([mixed, told], dim=2), 0.15)
            hidden = torch.relu(convolution((mixed * seen[..., None]).transpose(1, 2))).transpose(1, 2)
            score = out(torch.nn.functional.dropout(hidden, 0.2)).squeeze(2)
            loss = (
                torch.nn.functional.binary_cross_entropy_with_logits(score, gold, reduction="none") * seen
            ).sum() / seen.sum()
            best.zero_grad()
            loss.backward()
            best.step()
            schedule.step()
            total += float(loss.detach())
        print(f"epoch {epoch + 1}: loss {total / (len(order) // size):.4f}", flush=True)
    return {
        "mix": torch.softmax(mix, 0).detach().numpy().astype(np.float16),
        **coarse(convolution.weight.detach().numpy().astype(np.float16).astype(np.float32)),
        "convolution.bias": convolution.bias.detach().numpy().astype(np.float16),
        "out.weight": out.weight.detach().numpy()[0].astype(np.float16),
        "out.bias": out.bias.detach().numpy().astype(np.float16),
    }


def coarse(weight: np.ndarray) -> dict[str, np.ndarray]:
    """The convolution in 15 steps for each of its channels: the package packs it to a quarter of 16-bit numbers."""
    scale = (np.abs(weight).max(axis=(1, 2)) / STEPS).astype(np.float32)
    steps = np.clip(np.rint(weight / scale[:, None, None]), -STEPS, STEPS).astype(np.int8)
    return {"convolution.weight": steps, "convolution.scale": scale}


def main() -> None:
    """Train and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--each", type=int, default=12, help="sentences per template")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--out", type=Path, default=inference.FILE.parent)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    began = time.monotonic()
    rows = dataset(arguments.each, SEED)
    print(
        f"{len(rows)} sentences, {sum(len(row[2]) for row in rows)} words, {time.monotonic() - began:.0f} s", flush=True
    )
    weights = train(rows, arguments.epochs, SEED)
    target = arguments.out / inference.FILE.name
    save_file(weights, target)
    manifest = {
        "layers": list(LAYERS), "seed": SEED, "sentences": len(rows), "epochs": arguments.epochs, "templates": digest(),
        "encoder": digest_of(folder()), "weights": hashlib.sha256(target.read_bytes()).hexdigest(),
    }  # fmt: skip
    target.with_suffix(".json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    print(
        f"{target.name}: {target.stat().st_size} bytes, sha256 {manifest['weights'][:16]}, {time.monotonic() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
