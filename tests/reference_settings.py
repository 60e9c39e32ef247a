"""The page docs/reference-settings.md: what ``Settings`` declares, and the variables that are read outside it."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo

from perennial.ingest.door import NAMES
from perennial.settings import Settings
from perennial.stack.ports import BASE_SETTING, SETTINGS, Ports

_BEGIN = """\
# Settings of a deployment

{made}

Read by each process when it needs them. What code passes in wins, then the environment, then `settings.json` and `connections.json` in
PERENNIAL_HOME, then the default. `perennial up` writes `connections.json`. `settings.json` is yours: names of the next table and of the
stack's ports, without prefix in small letters, such as `{{"freeze": "Fri 16:00/Mon 08:00", "port_base": 9000}}`.

Databases may also be Airflow connections: `perennial_db` (role perennial_app) and `perennial_admit_db` (role perennial_admit). In tasks
they win over the variables. `perennial_alerts` says where [alerts](operations.md) go. The parts that `perennial up` starts use the embedded
database: `DATABASE_URL`, `POSTGRES_*` and `PERENNIAL_..._DATABASE_URL` of the shell are not passed on to them.

## Every process

| variable | type | default | meaning |
|---|---|---|---|
"""
_INBOX = """
## The drop folder

`PERENNIAL_INBOX` names it. With `perennial up` it is `inbox` in PERENNIAL_HOME, unless you name another; elsewhere there is none until you
do. Put files there that end in `.jsonl`, `.ndjson` or `.csv`, with one example per line. The DAG `harvest` reads each within a minute or
so, once, and moves it into the folder's `done/`; its workers need the right to read and move it. Whoever writes for long writes
`name.jsonl.part` and renames it.

Fields, by any of their names: {fields}.

Agent, task and text are needed. A record without a label waits unlabelled; one that cannot be used is kept as rejected, with the reason.

"""
# name, default, meaning
_ANYWHERE = {
    "PERENNIAL_REDACTION_KEY": (
        "", "secret that chooses the stand-ins, the same on every host; without it `redaction.key` in PERENNIAL_HOME, made once"
    ),
    "DATABASE_URL": ("", "URL of role perennial_app where PERENNIAL_DATABASE_URL is not set"),
    "POSTGRES_HOST": (
        "", "the same in parts, with `POSTGRES_PORT` (5432), `POSTGRES_DB` (perennial), `POSTGRES_USER` (postgres), `POSTGRES_PASSWORD`"
    ),
    "DB_POOL_MIN_CONNECTIONS": ("0", "connections that a client keeps open"),
    "DB_POOL_MAX_CONNECTIONS": ("10", "connections that a client has at most"),
    "<AGENT>_MODEL_PATH": (
        "", "link that the rollout target `folder` moves, such as `SCOUT_MODEL_PATH`; without it `models/<agent>/current` in PERENNIAL_HOME"
    ),
    "PERENNIAL_IMAGE": ("", "name of the container image, noted in each release's manifest"),
    "PERENNIAL_DAG_BUNDLE_VERSION": ("", "version of the DAG bundle, noted there too"),
    "PERENNIAL_FAULTS": ("0", "`1`: whoever may ask the gateway may spoil its answers; for drills alone"),
}  # fmt: skip
_PARTS = {"postgres": "PostgreSQL", "airflow": "Airflow", "mlflow": "MLflow", "data_plane": "ingest API and gateway"}
_STACK = {
    BASE_SETTING: ("", "first of four ports in a row, for the four below; one that is set by itself wins"),
    **{SETTINGS[part]: (str(port), f"port of {_PARTS[part]} on 127.0.0.1") for part, port in Ports().record().items()},
    "PERENNIAL_PROJECT": (
        "", "folder of `dags/`, `include/` and `airflow_settings.yaml`; without it the checkout of the package, else the working directory"
    ),
    "PERENNIAL_WITHOUT": ("", "parts that run elsewhere, with commas between them: `mlflow`, `data-plane`"),
    "PERENNIAL_POOL_<NAME>": ("", "slots of a pool of `airflow_settings.yaml` at each start, such as `PERENNIAL_POOL_GPU=4`"),
    "PERENNIAL_WARM_WORKERS": ("1", "`0`: each task imports PyTorch anew, which takes 6 to 10 s and saves about 0.8 GB"),
}  # fmt: skip
_SET_UP = {
    "PERENNIAL_SUPERUSER_URL": ("", "account that may make roles and databases, for [`provision databases`](deploy.md) alone"),
    "PERENNIAL_PASSWORD_<ROLE>": ("", "password that it gives a role, such as `PERENNIAL_PASSWORD_PERENNIAL_APP`"),
    "PERENNIAL_RESTORE_DATABASE_URL": ("", "owner's URL of an empty database for `perennial restore`; without it the embedded one"),
    "PERENNIAL_RESTORE_MLFLOW_URL": ("", "the same for MLflow's"),
    "PERENNIAL_RESTORE_AIRFLOW_URL": ("", "the same for Airflow's"),
}  # fmt: skip
# defaults that a function makes
_MADE_DEFAULTS = {"home": "`.perennial`", "fleet_folder": "`include/fleet`", "pages_grants": "`{}`"}
_WORDS = {
    SecretStr: "text, secret", Path: "path", str: "text", int: "number", float: "number", bool: "`true` or `false`", dict: "JSON",
}  # fmt: skip


def settings_page(made: str, told: dict[str, str]) -> str:
    """The whole page; ``told`` are the meanings by field of ``Settings``."""
    fields = "; ".join(" or ".join(f"`{name}`" for name in names) for names in NAMES.values())
    rows = [
        f"| `{variable(name, field)}` | {_type(field)} | {_default(name, field)} | {told.get(name, '')} |".replace(
            "  |", " |"
        )
        for name, field in Settings.model_fields.items()
    ]
    lists = [
        ("Read elsewhere", _ANYWHERE),
        ("The embedded stack (`perennial up`)", _STACK),
        ("Set-up and restore", _SET_UP),
    ]
    tables = "\n".join(line for title, known in lists for line in _table(title, known))
    return _BEGIN.format(made=made) + "\n".join(rows) + "\n" + _INBOX.format(fields=fields) + tables.rstrip("\n") + "\n"


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable of a setting."""
    alias = field.validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return str(alias) if alias else f"PERENNIAL_{name.upper()}"


def _type(field: FieldInfo) -> str:
    kinds: list[Any] = [one for one in get_args(field.annotation) if isinstance(one, type) and one is not type(None)]
    kind = dict if "dict" in str(field.annotation) else (kinds or [field.annotation])[0]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{one.value}`" for one in kind)
    return _WORDS[kind]  # type: ignore[index]


def _default(name: str, field: FieldInfo) -> str:
    value = getattr(field.default, "value", field.default)
    if name in _MADE_DEFAULTS or value in (None, ""):
        return _MADE_DEFAULTS.get(name, "")
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _table(title: str, known: dict[str, tuple[str, str]]) -> Iterator[str]:
    yield from (f"## {title}", "", "| variable | default | meaning |", "|---|---|---|")
    for name, (default, meaning) in known.items():
        yield f"| `{name}` | {f'`{default}` ' if default else ''}| {meaning} |"
    yield ""
