"""One recogniser per file; ``recognisers()`` walks the folder, so a new file needs no entry anywhere."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Protocol

from perennial.guard.spans import Kind, Span


class Recogniser(Protocol):
    """Finds one kind of personal data. A trained tagger fits here as well as a pattern does.

    ``find`` is called from any thread, never touches the network, and takes time linear in the text.
    """

    @property
    def kind(self) -> Kind:
        """What it finds."""
        ...

    def find(self, text: str) -> list[Span]:
        """Spans in any order; they may overlap."""
        ...


def recognisers() -> tuple[Recogniser, ...]:
    """Every recogniser of this folder: each module that does not start with an underscore has a ``build()``.

    Imports Presidio (and with it spaCy: seconds in a cold process), but no model. Errors of a build reach the caller.
    """
    names = sorted(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))
    return tuple(importlib.import_module(f"{__name__}.{name}").build() for name in names)
