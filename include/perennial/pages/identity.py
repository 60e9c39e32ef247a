"""The one seam to whoever signs people in: a token goes in, a user comes out, or a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from perennial.errors import AccessRefused
from perennial.pages.roles import Role


@dataclass(frozen=True, kw_only=True, slots=True)
class User:
    """A person that Airflow knows. ``standing`` is the role that their rights in Airflow stand for (``roles.role_of``)."""

    id: str
    name: str
    standing: Role = Role.NOBODY


Identify: TypeAlias = Callable[[str | None], Awaitable[User]]  # raises AccessRefused; None: no token was shown


class MemoryIdentity:
    """The twin in memory of Airflow's sign-in, for tests and for looking at the pages without an Airflow."""

    def __init__(self, users: Mapping[str, User], *, closed: str = "") -> None:
        self._users, self._closed = dict(users), closed

    async def __call__(self, token: str | None) -> User:
        """The user of a token; ``closed`` says why nobody is let in at all."""
        if self._closed:
            raise AccessRefused(503, self._closed)
        if not token:
            raise AccessRefused(401, "sign in to Airflow first")
        user = self._users.get(token)
        if user is None:
            raise AccessRefused(403, "this token is not valid")
        return user
