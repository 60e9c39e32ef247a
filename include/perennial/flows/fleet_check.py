"""Names file and line of every broken fleet file."""

from __future__ import annotations

from typing import Any

from perennial.flows.ports import Ports


def check(ports: Ports) -> list[dict[str, Any]]:
    """The errors of the fleet folder; empty when every file loads."""
    return [{"file": error.file, "line": error.line, "message": error.message} for error in ports.fleet().errors]
