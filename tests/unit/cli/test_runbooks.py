"""Each alert has its runbook, and each command that a runbook or the operations page names is one that exists, with its options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from perennial.alerts.kinds import Kind
from perennial.cli import build

DOCS = Path(__file__).resolve().parents[3] / "docs"
PAGES = [*sorted((DOCS / "runbooks").glob("*.md")), DOCS / "operations.md"]
_COMMAND = re.compile(r"`(perennial [^`\n]+)`")
_BLOCK = re.compile(r"^(?:\.venv/bin/)?(perennial .+?)(?:\s+#.*)?$", re.MULTILINE)


def _commands(page: Path) -> Iterator[str]:
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        yield from _BLOCK.findall(block)
    yield from _COMMAND.findall(re.sub(r"```.*?```", "", text, flags=re.DOTALL))


@pytest.mark.req("J107", "J108")
def test_each_alert_has_its_runbook_with_every_part() -> None:
    for kind in Kind:
        text = (DOCS / "runbooks" / f"{kind.value}.md").read_text(encoding="utf-8")
        for part in ("**What it means.**", "**Look.**", "**Do.**", "**Cause it.**"):
            assert part in text, (kind, part)
    assert {page.stem for page in (DOCS / "runbooks").glob("*.md")} == {kind.value for kind in Kind}


@pytest.mark.req("J107")
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_command_of_the_page_is_real(page: Path) -> None:
    root = get_command(build())
    commands = list(_commands(page))
    assert commands
    for command in commands:
        _check(root, shlex.split(command)[1:], command)


def _check(command: Any, words: list[str], told: str) -> None:
    """Parse the words as the command line would, without running anything. Typer brings a click of its own: no class is named here."""
    parent = None
    name = "perennial"
    while hasattr(command, "commands"):
        if not words:
            assert command.invoke_without_command, f"{told}: it says no command"
            return
        if words[0].startswith("-"):
            break  # options of a group that stands by itself
        if words[0] not in command.commands and type(command).__name__ == "_ShowsByDefault":
            words = ["show", *words]  # `perennial rollout scout`
        assert words[0] in command.commands, f"{told}: there is no {words[0]}"
        parent = command.context_class(command, info_name=name, parent=parent)
        name, command, words = words[0], command.commands[words[0]], words[1:]
    try:
        command.make_context(name, list(words), parent=parent)
    except Exception as error:  # noqa: BLE001 - a usage error of whichever click
        pytest.fail(f"{told}: {error!r} {getattr(error, 'message', '')}")


@pytest.mark.parametrize(
    "command",
    [
        "perennial nonsense",
        "perennial held scout --nonsense",
        "perennial keys nonsense",
        "perennial verify scout",
        "perennial audit nonsense",
    ],
)
def test_the_check_sees_a_command_that_is_not_there(command: str) -> None:
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        _check(get_command(build()), shlex.split(command)[1:], command)
