"""Personal data: what is found and missed by type, beside Presidio's full set, the speed of both parts, and what labels lose.

    PYTHONPATH=include:. python benchmarks/bench_pii.py --data pii.jsonl [--clean news.jsonl] [--news news.jsonl]

``--data`` lines have ``text``, ``entities`` ([start, end, type]) and ``template``; ``--clean`` lines have ``text``; ``--news`` lines
``text`` and ``label``. A name counts as met when a find of its type overlaps it. Half of the templates were never looked at while
the recognisers were made ("held out", by the hash of the template's name).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.machine import spread, table

from perennial.demo.stream import NewsStream
from perennial.guard.redactor import Redactor
from perennial.guard.spans import Kind, Span

KEY = b"a key of the benchmark"
ROUNDS = 3
SAME = {"ADDRESS": "STREET_ADDRESS"}
STRUCTURED = ("EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "PHONE_NUMBER", "IP_ADDRESS", "US_SSN")
LEAST = 0.3  # Presidio's score from which a find counts, as in our own recognisers


def main() -> None:
    """Run and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--clean", type=Path)
    parser.add_argument("--news", type=Path)
    parser.add_argument("--part", choices=("all", "recall", "speed", "names", "labels"), default="all")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    if given.data and given.part in ("all", "recall"):
        recall(given.data)
    if given.data and given.part in ("all", "speed"):
        speed(given.data)
    if given.part in ("all", "names"):
        names(given.data, given.clean)
    if given.news and given.part in ("all", "labels"):
        labels(given.news, given.seeds)


def held_out(row: dict[str, Any]) -> bool:
    """Whether a row's template was kept away from development."""
    return hashlib.sha256(row["template"].encode()).digest()[0] % 2 == 1


def recall(path: Path) -> None:
    """Recall and precision by type, over all rows and over the held-out templates."""
    rows = _lines(path)
    redactor = Redactor(names=True, key=KEY)
    found = [redactor.find(row["text"]) for row in rows]
    for name, keep in (("all templates", [True] * len(rows)), ("held-out templates", [held_out(row) for row in rows])):
        counts = [_of_type(kind, rows, found, keep) for kind in (*STRUCTURED, "PERSON", "STREET_ADDRESS")]
        table(
            f"{path.name}, {name}: {sum(keep)} texts",
            ("type", "gold", "recall (met)", "wholly covered", "finds", "precision", "unsure finds"),
            counts,
        )


def _of_type(
    kind: str, rows: list[dict[str, Any]], found: list[list[Span]], keep: list[bool]
) -> tuple[str, int, str, str, int, str, int]:
    gold = met = whole = finds = right = unsure = 0
    for row, spans, kept in zip(rows, found, keep, strict=True):
        if not kept:
            continue
        entities = [(start, end) for start, end, name in row["entities"] if SAME.get(name, name) == kind]
        mine = [span for span in spans if span.kind.value == kind]
        gold += len(entities)
        met += sum(any(span.start < end and span.end > start for span in mine) for start, end in entities)
        covered = {place for span in spans for place in range(span.start, span.end)}
        whole += sum(covered >= set(range(start, end)) for start, end in entities)
        finds += len(mine)
        right += sum(any(start < span.end and end > span.start for start, end in entities) for span in mine)
        unsure += sum(not span.sure for span in mine)
    return kind, gold, _share(met, gold), _share(whole, gold), finds, _share(right, finds), unsure


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else "-"


def speed(path: Path) -> None:
    """The pattern part beside Presidio's full set, one text after the other; and what Presidio finds that we do not."""
    theirs = _presidio()
    mine = Redactor(names=False, key=KEY)
    dirty = [row["text"] for row in _lines(path)][::4]
    clean = [article.text for article in NewsStream(1).articles(len(dirty), period=0.5, pii_rate=0.0)]
    rows = []
    for name, texts in ((path.name, dirty), ("clean news", clean)):
        rates: dict[str, list[float]] = {"theirs": [], "ours": []}
        for _ in range(ROUNDS):
            rates["theirs"].append(_rate(partial(_presidio_finds, theirs), texts))
            rates["ours"].append(_rate(mine.find, texts))
        ratio = statistics.median(rates["ours"]) / statistics.median(rates["theirs"])
        rows.append((name, len(texts), spread(rates["theirs"], 0), spread(rates["ours"], 0), f"{ratio:.1f}x"))
    table(
        f"The pattern part beside Presidio's {len(theirs)} English recognisers, texts per CPU second",
        ("texts", "count", "Presidio, full set", "ours", "ours of Presidio's"),
        rows,
    )
    missed(path, theirs)


def missed(path: Path, theirs: list[Any]) -> None:
    """Presidio's finds of which our finds leave a character, by type."""
    redactor = Redactor(names=True, key=KEY)
    finds, gone, gold_missed = Counter[str](), Counter[str](), Counter[str]()
    samples: dict[str, str] = {}
    for row in _lines(path):
        text = row["text"]
        covered = {place for span in redactor.find(text) for place in range(span.start, span.end)}
        truth = {(start, end): kind for start, end, kind in row["entities"]}
        for found in _presidio_finds(theirs, text):
            finds[found.entity_type] += 1
            if not set(range(found.start, found.end)) <= covered:
                gone[found.entity_type] += 1
                under = [kind for (start, end), kind in truth.items() if start < found.end and end > found.start]
                gold_missed.update(f"{found.entity_type}|{kind}" for kind in under or ["no label"])
                samples.setdefault(found.entity_type, f"{found.score:.2f}")
    table(
        "What Presidio's full set finds and we leave",
        ("Presidio's type", "its finds", "left by us", "what the data's labels call it"),
        [
            (
                kind, finds[kind], gone[kind],
                _called(kind, gold_missed),
            )
            for kind in sorted(finds)
        ],
    )  # fmt: skip


def _called(kind: str, counts: Counter[str]) -> str:
    under = [(name.split("|")[1], count) for name, count in counts.most_common() if name.startswith(f"{kind}|")]
    return ", ".join(f"{name} {count}" for name, count in under) or "-"


def names(data: Path | None, clean: Path | None) -> None:
    """The name part: texts per second, the first text of a process, one text of a warm one, unsure finds on news."""
    began = time.perf_counter()
    redactor = Redactor(names=True, key=KEY)
    patterns = time.perf_counter() - began
    began = time.perf_counter()
    redactor.find("Yesterday Oluwaseun Kowalczyk called.")
    first = time.perf_counter() - began
    singles = []
    for number in range(50):
        text = f"Yesterday Oluwaseun Kowalczyk of Blue Harbor Bank, room {number}, called {number % 7} times from Oslo."
        began = time.perf_counter()
        redactor.redact(text)
        singles.append(1000 * (time.perf_counter() - began))
    table(
        "The name part in one process",
        ("what", "value"),
        [
            ("building the pattern part (imports Presidio, and with it torch)", f"{patterns:.2f} s"),
            ("the first text that could hold a name (loads encoder and head)", f"{first:.2f} s"),
            ("redacting one new text of one sentence, warm, ms", spread(singles, 1)),
        ],
    )
    rows = []
    for path in (data, clean):
        if path is None:
            continue
        texts = [row["text"] for row in _lines(path)][::5]
        spans: list[Span] = []
        wall, cpu = time.perf_counter(), time.process_time()
        for text in texts:
            for recogniser in redactor._named:
                spans += recogniser.find(text)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        unsure = sum(not span.sure for span in spans)
        share = f"{unsure} ({100 * unsure / max(1, len(spans)):.1f} %)"
        rows.append((path.name, len(texts), f"{len(texts) / cpu:.0f}", f"{len(texts) / wall:.0f}", len(spans), share))
    table(
        "Names, every text new",
        ("file", "texts", "texts per CPU second", "texts/s by the clock", "finds", "unsure finds"),
        rows,
    )


def labels(path: Path, seeds: int) -> None:
    """A classifier trained on redacted texts, asked about the same holdout raw and redacted."""
    from sklearn.linear_model import LogisticRegression

    from perennial.trainers._encoder import BUNDLED, Encoder, _find

    rows = _lines(path)
    redactor = Redactor(names=True, key=KEY)
    encoder = Encoder("bundled", _find(BUNDLED, allow_hub=False))
    draw = random.Random("labels")
    rows = draw.sample(rows, min(len(rows), 2400))
    raw_texts = [row["text"] for row in rows]
    redacted_texts = [each.text for each in redactor.redact_many(raw_texts)]
    raw = encoder.vectors(raw_texts, 64)
    redacted = encoder.vectors(redacted_texts, 64)
    changed = sum(one != other for one, other in zip(raw_texts, redacted_texts, strict=True))
    truth = [row["label"] for row in rows]
    results: list[tuple[object, ...]] = []
    for seed in range(seeds):
        order = list(range(len(rows)))
        random.Random(seed).shuffle(order)
        cut = len(order) // 2
        head = LogisticRegression(max_iter=1000, C=10.0).fit(redacted[order[:cut]], [truth[row] for row in order[:cut]])
        ask, told = order[cut:], [truth[row] for row in order[cut:]]
        on_raw, on_redacted = (100 * head.score(vectors[ask], told) for vectors in (raw, redacted))
        results.append((seed, f"{on_raw:.2f}", f"{on_redacted:.2f}", f"{on_redacted - on_raw:+.2f}"))
    mean = statistics.mean(float(str(result[3])) for result in results)
    results.append(("mean", "", "", f"{mean:+.2f}"))
    half = len(rows) // 2
    table(
        f"{path.name}: trained on {half} redacted texts, asked about {len(rows) - half}; {changed} of {len(rows)} changed",
        ("seed", "accuracy on raw, %", "on redacted, %", "points"),
        results,
    )


def _presidio() -> list[Any]:
    """Presidio's predefined recognisers for English as they come, but for the model of spaCy and the download of suffixes."""
    import tldextract
    from presidio_analyzer import RecognizerRegistry

    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # type: ignore[assignment]
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    return [each for each in registry.recognizers if "spacy" not in each.name.lower()]


def _presidio_finds(recognisers: list[Any], text: str) -> list[Any]:
    return [
        found
        for each in recognisers
        for found in each.analyze(text, each.supported_entities, None)
        if found.score >= LEAST
    ]


def _rate(act: Callable[[str], Any], texts: list[str]) -> float:
    began = time.process_time()
    for text in texts:
        act(text)
    return len(texts) / (time.process_time() - began)


def _lines(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


assert set(STRUCTURED) <= {kind.value for kind in Kind}

if __name__ == "__main__":
    main()
