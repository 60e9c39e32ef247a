"""Who may do what on the pages: roles of our own, keyed by Airflow's user id."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Role(IntEnum):
    """Each role may do what the ones before it may.

    A viewer reads; an editor labels, releases and drops; an operator promotes, aborts and pauses. Nobody reads nothing.
    """

    NOBODY = 0
    VIEWER = 1
    EDITOR = 2
    OPERATOR = 3

    @property
    def word(self) -> str:
        """The name in settings and on pages."""
        return self.name.lower()


def mistaken_grants(grants: Mapping[str, str]) -> tuple[str, ...]:
    """A sentence for each entry of PERENNIAL_PAGES_GRANTS whose word is no role: it locks that user out, and what to write instead.

    >>> mistaken_grants({"ana": "operator", "bo": "admin"})
    ("PERENNIAL_PAGES_GRANTS: 'admin' of 'bo' is no role, so 'bo' may not read the pages; write nobody, viewer, editor or operator",)
    """
    words = [role.word for role in Role]
    told = f"{', '.join(words[:-1])} or {words[-1]}"
    return tuple(
        f"PERENNIAL_PAGES_GRANTS: {word!r} of {user!r} is no role, so {user!r} may not read the pages; write {told}"
        for user, word in sorted(grants.items()) if word.upper() not in Role.__members__
    )  # fmt: skip


def role_of(user_id: str, standing: Role, grants: Mapping[str, str]) -> Role:
    """The role of a user: what ``grants`` says about the id, else what Airflow lets the user do (``standing``).

    A grant may lower as well as raise. A word that is no role grants nothing, to nobody else either: fail closed.

    >>> role_of("ana", Role.VIEWER, {"ana": "operator"}).word, role_of("bo", Role.EDITOR, {}).word
    ('operator', 'editor')
    >>> role_of("ana", Role.OPERATOR, {"ana": "boss"}).word
    'nobody'
    """
    word = grants.get(user_id)
    if word is None:
        return standing
    return Role.__members__.get(word.upper(), Role.NOBODY)
