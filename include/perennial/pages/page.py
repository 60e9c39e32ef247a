"""The convention of a page: one file with ``gather`` (numbers), ``render`` (markup) and a ``PAGE`` that joins them.

``gather(ports, ...)`` reads and returns a frozen dataclass of plain values, which a test can look at; ``render(view, asked)``
makes markup of it and reads nothing. An action changes something through a flow, with the user as actor and a reason, and
returns where to go next (303), so that reloading repeats nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlencode

from perennial.errors import InvalidExample
from perennial.flows.ports import Ports
from perennial.flows.training_switch import Dags
from perennial.guard.said import said
from perennial.pages.html import Html
from perennial.pages.identity import User
from perennial.pages.overview import Overview
from perennial.pages.roles import Role

LONGEST_REASON = 500  # characters


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """What every page may reach: the deployment's ports, reads of the whole fleet, and Airflow's DAGs."""

    ports: Ports
    overview: Overview
    dags: Dags


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """One request: who asks, with which role, for what. ``base`` is the prefix of every address (``to`` puts it there)."""

    user: User
    role: Role
    base: str
    now: datetime
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)

    def to(self, path: str, **query: str | None) -> str:
        """The address of a page of ours; values of None and "" are left out.

        >>> from datetime import UTC
        >>> asked = Asked(user=User(id="a", name="a"), role=Role.VIEWER, base="/perennial", now=datetime(2026, 11, 21, tzinfo=UTC))
        >>> asked.to("/version", agent="scout", version=None)
        '/perennial/version?agent=scout'
        """
        given = {key.rstrip("_"): value for key, value in query.items() if value}
        return f"{self.base}{path}" + (f"?{urlencode(given)}" if given else "")

    def airflow(self, path: str) -> str:
        """An address of Airflow's own UI, beside the prefix under which these pages are mounted."""
        return f"{self.base.rpartition('/')[0]}{path}"

    def may(self, role: Role) -> bool:
        """Whether the person may do what needs this role; pages leave out the buttons that would be refused."""
        return self.role >= role

    def needed(self, name: str, *, longest: int = 200) -> str:
        """A field of the form that must be there; InvalidExample, which never shows the value, when it is not."""
        value = self.form.get(name, "").strip()
        if not value:
            raise InvalidExample(name, "is empty", "fill it in")
        if len(value) > longest:
            raise InvalidExample(name, f"is longer than {longest} characters", "make it shorter")
        return value

    def reason(self) -> str:
        """Why the person does this, without personal data; every action needs one, since the audit log keeps it."""
        return said(self.needed("reason", longest=LONGEST_REASON))


@dataclass(frozen=True, kw_only=True, slots=True)
class Action:
    """A POST. ``run`` does it through a flow and returns the address to go to, made with ``asked.to``."""

    path: str
    role: Role
    run: Callable[[Site, Asked], str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A GET with its actions. ``show`` gathers and renders the main part; ``path`` is below the prefix, such as "/fleet".

    ``notices`` are the sentences that a redirect may ask for by key (``?said=paused``), so no text of a request is shown.
    """

    path: str
    title: str
    show: Callable[[Site, Asked], Html]
    actions: tuple[Action, ...] = ()
    notices: Mapping[str, str] = field(default_factory=dict)
    role: Role = Role.VIEWER
    menu: bool = True  # stands in the navigation and in Airflow's menu
