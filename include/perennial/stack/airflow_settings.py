"""``airflow_settings.yaml``: pools, connections and variables in the form of Astronomer's CLI, applied to any Airflow.

The format is documented at astronomer.io ("Configure airflow_settings.yaml"); a project made for ``astro dev start`` is read as it is.
${NAME} in a value is taken from the environment, so that the file holds no secret. What is wrong is named by line.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from perennial.errors import StackError

MASK = "***"  # what Airflow shows of a secret
_VARIABLE = re.compile(r"\$\{(\w+)\}")


class Kind(StrEnum):
    """What an entry is."""

    POOL = "pool"
    CONNECTION = "connection"
    VARIABLE = "variable"


class Outcome(StrEnum):
    """What applying an entry did."""

    MADE = "made"
    CHANGED = "changed"
    WRITTEN = "written again"  # it holds a secret, which Airflow shows to nobody, so nobody can tell whether it changed
    SAME = "as it was"
    KEPT = "exists and was left alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One pool, connection or variable in the words of Airflow's API. Its values may be secrets: ``repr`` leaves them out."""

    kind: Kind
    id: str
    body: Mapping[str, Any] = field(repr=False)
    line: int


class Target(Protocol):
    """An Airflow whose settings can be read and written. Raises StoreUnavailable when it is away or refuses."""

    def find(self, kind: Kind, id: str) -> Mapping[str, Any] | None:
        """The fields that Airflow shows; None when there is no such entry."""
        ...

    def make(self, entry: Entry) -> None:
        """Make what is missing."""
        ...

    def change(self, entry: Entry) -> None:
        """Bring what exists to the entry's body; fields that the body does not name stay."""
        ...


def apply(entries: Sequence[Entry], target: Target, *, keep: bool = False) -> Iterator[tuple[Entry, Outcome]]:
    """Make Airflow as the entries say, one after the other; a repeat ends in the same state. ``keep`` only makes what is missing."""
    for entry in entries:
        present = target.find(entry.kind, entry.id)
        if present is None:
            target.make(entry)
            yield entry, Outcome.MADE
            continue
        if keep:
            yield entry, Outcome.KEPT
            continue
        different = [name for name, value in entry.body.items() if (present.get(name) or None) != (value or None)]
        if not different:
            yield entry, Outcome.SAME
            continue
        target.change(entry)
        masked = all(MASK in str(present.get(name)) for name in different)
        yield entry, Outcome.WRITTEN if masked else Outcome.CHANGED


def read(file: Path, environment: Mapping[str, str] | None = None) -> list[Entry]:
    """The entries of a file, pools first. StackError names file and line of whatever is not understood, and never a value."""
    import yaml  # type: ignore[import-untyped]

    given = os.environ if environment is None else environment
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise _not_understood(file, line, error.problem or "it is no YAML") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StackError(f"{file} cannot be read ({type(error).__name__})") from error
    if root is None:
        raise _not_understood(file, 1, "it is empty; it needs airflow.pools, connections or variables")
    return _Reader(file, given).entries(root)


def _not_understood(file: Path, line: int, why: str) -> StackError:
    return StackError(f"{file}:{line} is not understood: {why}")


class _Reader:
    """Walks the nodes of one file, which know their lines."""

    def __init__(self, file: Path, environment: Mapping[str, str]) -> None:
        self._file, self._environment = file, environment

    def entries(self, root: Any) -> list[Entry]:
        top = self._mapping(root, {"airflow"})
        if "airflow" not in top:
            raise self._wrong(root, "it has no `airflow`")
        parts = self._mapping(top["airflow"], {"pools", "connections", "variables"})
        if not parts:
            raise self._wrong(top["airflow"], "`airflow` names no pools, connections or variables")
        found: list[Entry] = []
        makers: tuple[tuple[str, set[str], Callable[[Any, dict[str, Any]], Entry]], ...] = (
            ("pools", _POOL, self._pool), ("connections", _CONNECTION, self._connection),
            ("variables", _VARIABLE_KEYS, self._variable),
        )  # fmt: skip
        for name, keys, make in makers:
            for node in self._items(parts.get(name)):
                values = {
                    key: self._value(value, in_uri=key == "conn_uri")
                    for key, value in self._mapping(node, keys).items()
                }
                if any(
                    value not in (None, "") for value in values.values()
                ):  # Astro's template has one empty entry of each
                    found.append(make(node, values))
        self._no_repetition(found)
        return found

    def _pool(self, node: Any, values: dict[str, Any]) -> Entry:
        name = self._text(node, values, "pool_name")
        slots = self._number(node, values, "pool_slot")
        if slots is None:
            raise self._wrong(node, "a pool needs pool_slot")
        body = {"name": name, "slots": slots, "description": str(values.get("pool_description") or "")}
        return Entry(kind=Kind.POOL, id=name, body=body, line=self._line(node))

    def _connection(self, node: Any, values: dict[str, Any]) -> Entry:
        name = self._text(node, values, "conn_id")
        fields = {
            "conn_type": values.get("conn_type"), "host": values.get("conn_host"), "schema": values.get("conn_schema"),
            "login": values.get("conn_login"), "password": values.get("conn_password"),
            "port": self._number(node, values, "conn_port"), "extra": _extra(values.get("conn_extra")),
        }  # fmt: skip
        named = {
            key: value if key == "port" else str(value) for key, value in fields.items() if value not in (None, "")
        }
        if values.get("conn_uri"):
            if named:
                raise self._wrong(node, "a connection has conn_uri or the single fields, not both")
            try:
                named = parts_of_uri(str(values["conn_uri"]))
            except ValueError:  # its text may hold the secret
                raise self._wrong(node, "conn_uri is no URI such as postgres://user:secret@host:5432/name") from None
        if "conn_type" not in named:
            raise self._wrong(node, "a connection needs conn_type or conn_uri")
        return Entry(kind=Kind.CONNECTION, id=name, body={"connection_id": name, **named}, line=self._line(node))

    def _variable(self, node: Any, values: dict[str, Any]) -> Entry:
        name = self._text(node, values, "variable_name")
        value = values.get("variable_value")
        text = value if isinstance(value, str) else "" if value is None else json.dumps(value)
        return Entry(kind=Kind.VARIABLE, id=name, body={"key": name, "value": text}, line=self._line(node))

    # --- nodes

    def _mapping(self, node: Any, known: set[str]) -> dict[str, Any]:
        if _is_null(node):
            return {}
        if node.id != "mapping":
            raise self._wrong(node, f"a mapping of {', '.join(sorted(known))} belongs here")
        found: dict[str, Any] = {}
        for key, value in node.value:
            if key.value not in known:
                raise self._wrong(key, f"unknown key {str(key.value)[:60]!r}; known here: {', '.join(sorted(known))}")
            if key.value in found:
                raise self._wrong(key, f"{key.value} stands here twice")
            found[key.value] = value
        return found

    def _items(self, node: Any) -> list[Any]:
        if node is None or _is_null(node):
            return []
        if node.id != "sequence":
            raise self._wrong(node, "a list belongs here")
        return list(node.value)

    def _value(self, node: Any, *, in_uri: bool = False) -> Any:
        """The value of a node with the environment in it, which is quoted in a URI. A text that only names a variable stays a text."""
        import yaml

        if node.id == "sequence":
            return [self._value(item) for item in node.value]
        if node.id == "mapping":
            return {str(key.value): self._value(value) for key, value in node.value}
        if _VARIABLE.search(node.value):
            change = partial(quote, safe="") if in_uri else str
            return _VARIABLE.sub(lambda match: change(self._given(node, match[1])), node.value)
        return yaml.SafeLoader("").construct_object(node)

    def _given(self, node: Any, name: str) -> str:
        if name not in self._environment:
            raise self._wrong(node, f"${{{name}}} is not in the environment; set it")
        return self._environment[name]

    def _text(self, node: Any, values: Mapping[str, Any], key: str) -> str:
        text = str(values.get(key) or "").strip()
        if not text:
            raise self._wrong(node, f"{key} is missing or empty")
        return text

    def _number(self, node: Any, values: Mapping[str, Any], key: str) -> int | None:
        value = values.get(key)
        if value in (None, ""):
            return None
        try:
            return int(str(value))
        except ValueError:
            raise self._wrong(node, f"{key} is no whole number") from None

    def _no_repetition(self, entries: Sequence[Entry]) -> None:
        seen: dict[tuple[Kind, str], Entry] = {}
        for entry in entries:
            first = seen.setdefault((entry.kind, entry.id), entry)
            if first is not entry:
                raise _not_understood(
                    self._file, entry.line, f"{entry.kind.value} {entry.id} stands in line {first.line} too"
                )

    def _line(self, node: Any) -> int:
        return int(node.start_mark.line) + 1

    def _wrong(self, node: Any, why: str) -> StackError:
        return _not_understood(self._file, self._line(node), why)


_POOL = {"pool_name", "pool_slot", "pool_description"}
_CONNECTION = {
    "conn_id", "conn_type", "conn_host", "conn_schema", "conn_login", "conn_password", "conn_port", "conn_extra", "conn_uri",
}  # fmt: skip
_VARIABLE_KEYS = {"variable_name", "variable_value"}


def _is_null(node: Any) -> bool:
    return bool(node.id == "scalar" and node.tag == "tag:yaml.org,2002:null")


def _extra(value: Any) -> str | None:
    if value in (None, "", {}):
        return None
    return value if isinstance(value, str) else json.dumps(value)


def parts_of_uri(uri: str) -> dict[str, Any]:
    """Fields of a connection written as one URI, as Airflow reads it (documentation, "URI format"); ValueError for another text.

    >>> parts_of_uri("postgresql://app:a%2Fb@db:5433/perennial?sslmode=require")["password"]
    'a/b'
    >>> parts_of_uri("my-http://h")
    {'conn_type': 'my_http', 'host': 'h'}
    """
    parts = urlsplit(uri)
    if not parts.scheme or "://" not in uri:
        raise ValueError("a URI begins with a scheme")
    kind = {"postgresql": "postgres"}.get(parts.scheme, parts.scheme.replace("-", "_"))
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    extra = query.pop("__extra__", None) or (json.dumps(query) if query else None)
    found = {
        "conn_type": kind, "host": unquote(parts.hostname or "") or None, "port": parts.port,
        "login": unquote(parts.username or "") or None, "password": unquote(parts.password or "") or None,
        "schema": unquote(parts.path.lstrip("/")) or None, "extra": extra,
    }  # fmt: skip
    return {name: value for name, value in found.items() if value is not None}
