"""What several commands share: arguments by the same name and help, the ports, and a time that a person typed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from perennial.flows.ports import Ports

Agent = Annotated[str, typer.Argument(help="name of the agent")]
Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Reason = Annotated[str, typer.Option(help="why; kept in the audit log")]
Actor = Annotated[str, typer.Option(help="who decides; your login name when left out")]


def ports() -> Ports:
    """The deployment that the settings name. Imported when a command runs, so that `--help` stays quick."""
    from perennial import wiring

    return wiring.ports()


def moment(text: str) -> datetime:
    """A time in ISO 8601, UTC when it names no zone; BadParameter for anything else.

    >>> moment("2026-11-21T16:10").isoformat()
    '2026-11-21T16:10:00+00:00'
    """
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        found.astimezone(UTC)  # it is shown in UTC
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"{text!r} is not a time like 2026-11-21T16:10") from error
    return found


def who(actor: str) -> str:
    """The name given, or the login name."""
    import getpass

    return actor or getpass.getuser()


def why(reason: str, example: str = "wrong answers about sports") -> str:
    """The reason given, without personal data; BadParameter, with an example of one, without."""
    if not reason.strip():
        raise typer.BadParameter(f"say why: --reason '{example}'")
    from perennial.guard.said import said

    return said(reason)
