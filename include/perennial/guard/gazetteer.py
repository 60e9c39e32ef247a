"""The lists of names and of words that are none, read once per process."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Gazetteer:
    """Small letters. ``ambiguous`` are given names that are words as often, ``other`` is no part of a name."""

    first: frozenset[str]
    ambiguous: frozenset[str]
    last: frozenset[str]
    other: frozenset[str]


@lru_cache(maxsize=1)
def gazetteer() -> Gazetteer:
    """The lists in ``guard/names``."""
    return Gazetteer(*(_read(name) for name in ("first", "ambiguous", "last", "other")))


def bare(word: str) -> str:
    """Without the genitive.

    >>> bare("Jane's")
    'Jane'
    """
    return word[:-2] if word.endswith(("'s", "’s")) else word


def plain(word: str) -> str:
    """A word as the lists have it.

    >>> plain("Doe's")
    'doe'
    """
    return bare(word).casefold()


def _read(name: str) -> frozenset[str]:
    lines = files("perennial.guard").joinpath("names", f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(word for line in lines if not line.startswith("#") for word in line.split())
