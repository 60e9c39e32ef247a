"""What a step of a foreign library says when it fails may quote a row, so only its kind and its place go on."""

from __future__ import annotations

import functools
import traceback
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from perennial.errors import PerennialError, StepFailed

P = ParamSpec("P")
R = TypeVar("R")


def quiet(step: Callable[P, R]) -> Callable[P, R]:
    """The step, with errors that are not ours as StepFailed: the kind of error and the line that raised it, never its text.

    Airflow writes the whole chain of a task's error into its log, so the chain ends here. For steps that touch texts: a
    tokenizer, a trainer or a parser may put the text that it failed on into its message.
    """

    @functools.wraps(step)
    def without_text(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return step(*args, **kwargs)
        except PerennialError:
            raise
        except Exception as error:  # noqa: BLE001 - every other error speaks in words that are not ours
            raise StepFailed(getattr(step, "__name__", "a step"), place_of(error)) from None

    return without_text


def place_of(error: BaseException) -> str:
    """Kind and place of an error, without its text.

    >>> try:
    ...     int("jane@example.com")
    ... except ValueError as error:
    ...     place_of(error).partition(" at ")[0]
    'ValueError'
    """
    frames = traceback.extract_tb(error.__traceback__)
    if not frames:
        return type(error).__name__
    last = frames[-1]
    return f"{type(error).__name__} at {last.filename.rpartition('/')[2]}:{last.lineno} in {last.name}"
