"""The four values that a coordinator may be given, and where each came from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

DEFAULTS: Mapping[str, float] = {
    "update_threshold": 50,
    "max_buffer_size": 1000,
    "performance_window": 100,
    "rollback_threshold": 0.05,
}
_WHOLE = {"update_threshold", "max_buffer_size", "performance_window"}


class DefaultInt(int):
    """A default that can be told from the same number given on purpose."""


class DefaultFloat(float):
    """A default that can be told from the same number given on purpose."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What was given: ``explicit`` by the constructor, ``environment`` by TRAINING_* variables of this process."""

    explicit: Mapping[str, float]
    environment: Mapping[str, float]


def limits_of(given: Mapping[str, Any]) -> Limits:
    """Check the constructor's arguments and read the environment; ValueError names the argument."""
    explicit = {
        name: _checked(name, value) for name, value in given.items() if not isinstance(value, DefaultInt | DefaultFloat)
    }
    environment = {
        name: _checked(f"TRAINING_{name.upper()}", os.environ[f"TRAINING_{name.upper()}"])
        for name in DEFAULTS
        if os.environ.get(f"TRAINING_{name.upper()}") and name not in explicit
    }
    return Limits(explicit=explicit, environment=environment)


def _checked(name: str, value: Any) -> float:
    whole = name.lower().removeprefix("training_") in _WHOLE
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{name} is no number; give {'a whole number' if whole else 'a share'}") from None
    if whole and (number < 1 or number != int(number)):
        raise ValueError(f"{name} must be a whole number of at least 1")
    if not whole and not 0 < number < 1:
        raise ValueError(f"{name} must lie between 0 and 1, such as 0.05")
    return number
