"""Each alert has its runbook, and each command that a runbook or the operations page names is one that exists, with its options."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click import Context, Group
from click.exceptions import UsageError
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
    """Parse the words as the command line would, without running anything."""
    name = "perennial"
    parent = None
    while isinstance(command, Group):
        # resilient: a group that may stand by itself asks for nothing
        context = Context(command, info_name=name, parent=parent, resilient_parsing=True)
        rest = list(command.parse_args(context, list(words)))
        words = [*context.protected_args, *context.args] if hasattr(context, "protected_args") else rest
        if not words:
            assert command.invoke_without_command, told
            return
        found = command.get_command(context, words[0])
        assert found is not None, f"{told}: there is no {words[0]}"
        name, command, parent, words = words[0], found, context, words[1:]
    try:
        command.make_context(name, list(words), parent=parent)
    except UsageError as error:
        pytest.fail(f"{told}: {error.format_message()}")
