"""A step tells kind and place of a foreign error, and nothing of its text."""

from __future__ import annotations

import traceback

import pytest

from perennial.errors import EmptyBatch, StepFailed
from perennial.flows.quiet import quiet


@quiet
def _step(error: Exception) -> None:
    raise error


@pytest.mark.req("K68")
def test_a_foreign_error_loses_its_text_and_ours_keeps_it() -> None:
    error = ValueError("jane@corp.com")  # not in the line of the call, which a traceback quotes
    with pytest.raises(StepFailed, match=r"_step failed: ValueError at test_quiet.py:\d+ in _step") as caught:
        _step(error)
    assert "jane" not in "".join(traceback.format_exception(caught.value))
    with pytest.raises(EmptyBatch, match="nothing"):
        _step(EmptyBatch("nothing"))
