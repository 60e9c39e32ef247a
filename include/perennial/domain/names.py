"""Names of agents and tasks, which become files, DAG ids and table values, and labels as text."""

from __future__ import annotations

import keyword
import re

from perennial.domain.words import JSON

NAME = re.compile(r"^[a-z][a-z0-9_]{0,47}$")
_SHIPPED = frozenset({"rollout_watch"})  # DAGs of the whole fleet whose ids look like those of one agent's


def name_problem(name: str) -> str | None:
    """What is wrong with a name and what to take instead; None when it is good.

    >>> name_problem("desk") is None, name_problem("import")
    (True, 'is a word of Python; choose another')
    >>> name_problem("../desk")
    'must begin with a small letter, go on with small letters, digits and _, and have at most 48 of them'
    """
    if not NAME.match(name) or name.endswith("\n"):
        return "must begin with a small letter, go on with small letters, digits and _, and have at most 48 of them"
    return "is a word of Python; choose another" if keyword.iskeyword(name) or keyword.issoftkeyword(name) else None


def dag_problem(agent: str) -> str | None:
    """What is wrong with an agent's name because of its DAGs ``train_<agent>`` and ``rollout_<agent>``; None when it is good.

    >>> dag_problem("desk") is None, dag_problem("watch")
    (True, 'takes the place of the DAG rollout_watch; choose another name')
    """
    taken = _SHIPPED & {f"train_{agent}", f"rollout_{agent}"}  # Airflow keeps one DAG per id
    return f"takes the place of the DAG {min(taken)}; choose another name" if taken else None


def as_name(text: str) -> str:
    """The name that is nearest to a column's title; empty when nothing of it can be used.

    >>> as_name("Topic (main)"), as_name("2nd label"), as_name("?")
    ('topic_main', 'c_2nd_label', '')
    """
    plain = re.sub(r"[^a-z0-9]+", "_", text.strip().lower()).strip("_")
    if plain and not plain[0].isalpha():
        plain = f"c_{plain}"
    return plain[:48].rstrip("_")


def label_text(value: JSON) -> str:
    """A label as the file of an agent names it: whole numbers and truth values as texts.

    >>> label_text(3), label_text(3.0), label_text("3"), label_text(True)
    ('3', '3', '3', 'true')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
