"""Nothing waits for ever: every call that reaches a process, a socket or a database names how long it may take."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# call -> the keywords of which one must be there
LIMITED = {
    "subprocess.run": {"timeout"}, "subprocess.check_output": {"timeout"}, "subprocess.check_call": {"timeout"},
    "urlopen": {"timeout"}, "urllib.request.urlopen": {"timeout"}, "psycopg.connect": {"connect_timeout"},
    "psycopg.AsyncConnection.connect": {"connect_timeout"}, "http.client.HTTPConnection": {"timeout"}, "httpx.Client": {"timeout"},
    "httpx.AsyncClient": {"timeout"}, "httpx.get": {"timeout"}, "httpx.post": {"timeout"}, "requests.get": {"timeout"},
    "requests.post": {"timeout"}, "smtplib.SMTP": {"timeout"}, "smtplib.SMTP_SSL": {"timeout"}, "socket.create_connection": {"timeout"},
}  # fmt: skip


def _unlimited(source: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in LIMITED and not LIMITED[name] & {word.arg for word in node.keywords}:
                yield node.lineno, name


def test_the_check_sees_a_call_without_a_limit() -> None:
    assert list(_unlimited("import subprocess\nsubprocess.run(['x'])\nsubprocess.run(['x'], timeout=3)")) == [
        (2, "subprocess.run")
    ]


@pytest.mark.req("J109")
@pytest.mark.parametrize("folder", ["include", "dags", "plugins"])
def test_every_call_that_may_hang_has_a_limit(folder: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, name in _unlimited(path.read_text(encoding="utf-8"))
    ]
    assert found == []
