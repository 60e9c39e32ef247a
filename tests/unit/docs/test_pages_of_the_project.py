"""README and docs: every relative link leads somewhere, and the architecture names the rooms that there are."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.stack_fixture import REPOSITORY

PACKAGE = REPOSITORY / "include" / "perennial"
PAGES = sorted([REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *(REPOSITORY / "docs").rglob("*.md")])
_CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The fragments that GitHub makes of a page's headings."""
    heads = (re.sub(r"[^\w\- ]", "", head.lower()) for head in _HEADING.findall(page.read_text(encoding="utf-8")))
    return {head.strip().replace(" ", "-") for head in heads}


def broken(page: Path) -> list[str]:
    """Relative links of a page that lead nowhere."""
    found = []
    for link in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        inside = target.exists() and (not name or target.is_relative_to(REPOSITORY))
        known = not fragment or target.suffix != ".md" or (inside and fragment in anchors(target))
        if not (inside and known):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_a_link_that_leads_nowhere_is_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One head\n[a](gone.md) [b](#one-head) [c](#other) [d](https://example.org) `[e](code.md)`\n")
    assert broken(page) == ["gone.md", "#other"]


def rooms() -> set[str]:
    """Folders and files of the package."""
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").is_file()}
    return folders | {path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__"}


def layers() -> list[set[str]]:
    """The layers of the import contract, from the top."""
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers"]
    return [set(line.split(" | ")) for line in contract["layers"]]


def test_the_architecture_describes_the_rooms_that_there_are_from_the_top() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = text.split("\n| room | what it is for |\n", 1)[1].split("\n\n", 1)[0]
    named = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(named) == len(set(named))
    assert set(named) == rooms()
    place = {room: depth for depth, layer in enumerate(layers()) for room in layer}
    assert [place[room] for room in named] == sorted(place[room] for room in named)


def test_the_drawing_of_the_rooms_is_the_import_contract() -> None:
    text = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    (drawing,) = [part for part in re.findall(r"```mermaid\n(.*?)```", text, re.DOTALL) if "cli --> " in part]
    chain: list[set[str]] = []
    for line in drawing.splitlines()[1:]:
        drawn = [{room.strip() for room in group.split("&")} for group in line.split("-->")]
        if chain:
            assert drawn[0] == chain[-1], "each line goes on where the one before ended"
        chain += drawn[1:] if chain else drawn
    assert chain == layers()
