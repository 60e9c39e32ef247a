"""What the tagger is told about a word beside its vector: its letters, its place and the lists. The encoder knows no capitals."""

from __future__ import annotations

from collections.abc import Sequence

from perennial.guard.gazetteer import Gazetteer

TITLES = frozenset((
    "mr", "mrs", "ms", "miss", "mx", "dr", "prof", "professor", "doctor", "sir", "dame", "madam", "rev", "reverend", "herr", "frau",
    "señor", "señora", "monsieur", "madame", "judge", "senator", "president", "captain", "sgt", "lt", "coach", "detective", "lord",
    "aunt", "uncle",
))  # fmt: skip
COUNT = 18


def marks(text: str, places: Sequence[tuple[int, int]], pieces: Sequence[int], lists: Gazetteer) -> list[list[float]]:
    """``COUNT`` numbers between 0 and 1 for each word of a window of text.

    >>> from perennial.guard.gazetteer import gazetteer
    >>> marks("Jane ran", [(0, 4), (5, 8)], [1, 1], gazetteer())[0][:4]
    [1.0, 1.0, 0.0, 0.0]
    """
    words = [text[start:end] for start, end in places]
    letters = [word for word in words if word[:1].isalpha()]
    share = sum(word[:1].isupper() for word in letters) / len(letters) if letters else 0.0
    shouted = sum(word.isupper() and len(word) > 1 for word in letters) / len(letters) if letters else 0.0
    rows: list[list[float]] = []
    opens = True
    for number, word in enumerate(words):
        start, end = places[number]
        low = word.casefold()
        alone = word.isalpha()
        rows.append([
            float(alone), float(alone and word[0].isupper() and word[1:].islower()), float(len(word) > 1 and word.isupper()),
            float(alone and word.islower()), float(len(word) == 1 and word.isupper()), float(not word[:1].isalnum()),
            float(any(map(str.isdigit, word))), float(opens or "\n" in text[max(0, start - 2) : start]),
            float(low in lists.first and low not in lists.ambiguous and low not in lists.other), float(low in lists.ambiguous),
            float(low in lists.last), float(low in lists.other), float(low in TITLES),
            float(text[start - 1 : start] in ("@", "/", "_", "<") or text[end : end + 1] in ("@", "/", "_")),
            float(alone and not word.isupper() and any(map(str.isupper, word[1:]))), min(pieces[number], 5) / 5, share, shouted,
        ])  # fmt: skip
        opens = word in ".!?:" if not alone else False
    return rows
