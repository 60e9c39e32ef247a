"""Finds the gates: every module of this folder that defines ``GATE``."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

import perennial.gates
from perennial.gates.gate import Gate


@cache
def gates() -> tuple[Gate, ...]:
    """All gates in order of their names; a name claimed twice is a ValueError.

    >>> [gate.name for gate in gates()][:3]
    ['absolute', 'bootstrap', 'corrections']
    """
    found: dict[str, Gate] = {}
    for info in pkgutil.iter_modules(perennial.gates.__path__):
        gate = getattr(importlib.import_module(f"{perennial.gates.__name__}.{info.name}"), "GATE", None)
        if isinstance(gate, Gate):
            if gate.name in found:
                raise ValueError(f"two gates are named {gate.name!r}; rename the one in {info.name}.py")
            found[gate.name] = gate
    return tuple(found[name] for name in sorted(found))
