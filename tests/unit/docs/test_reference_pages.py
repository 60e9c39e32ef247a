"""The committed pages say what the code says."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

import pytest

from perennial.fleet.agent import Agent
from perennial.trainers.catalogue import catalogue
from tests.reference_pages import comments, pages, trainers_page


@pytest.mark.parametrize("name", ["reference-agent.md", "reference-trainers.md"])
def test_the_committed_page_is_what_the_code_says(name: str) -> None:
    (path, text) = next((path, text) for path, text in pages().items() if path.name == name)
    assert path.read_text(encoding="utf-8") == text, "run `python -m tests.reference_pages`"


def test_every_setting_of_every_trainer_is_there_with_its_meaning() -> None:
    page = trainers_page()
    for kind in catalogue().values():
        assert is_dataclass(kind)
        for item in fields(kind):
            assert f"| `{item.name}` |" in page
    assert comments(Agent)["update_threshold"] == "rows that make it due; None: the deployment's setting (50)"
