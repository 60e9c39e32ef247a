"""Which extra of the package brings a module that is not installed.

The package alone is the client. Who asks for more gets one line that says what to install, not a traceback.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires

# modules whose distribution has another name
_DISTRIBUTIONS = {"airflow": "apache-airflow", "sklearn": "scikit-learn", "openssl": "pyopenssl", "yaml": "pyyaml"}
_REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+).*;\s*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"]")
# what starts one of Airflow's parts and what runs a task come first: most commands are typed beside them
_ORDER = ("airflow", "train", "gateway", "stack", "models")
# a module that comes along with one that is named
_WITH = {
    "numpy": "scikit-learn",
    "pandas": "great-expectations",
    "anyio": "starlette",
    "click": "typer",
}


def extra_of(module: str, requirements: Iterable[str]) -> str | None:
    """The extra to install for a module, of the package's requirements as its metadata lists them; None when none brings it.

    >>> extra_of("sklearn.linear_model", ['psycopg==3.3.*', 'scikit-learn; extra == "train"', 'typer; extra == "models"'])
    'train'
    >>> extra_of("nobody", ['scikit-learn; extra == "train"']) is None
    True
    """
    top = module.partition(".")[0].lower()
    wanted = _plain(_DISTRIBUTIONS.get(top) or _WITH.get(top) or top)
    matches = [found for line in requirements if (found := _REQUIREMENT.match(line))]
    extras = {found["extra"] for found in matches if _plain(found["name"]) == wanted}
    known = [name for name in _ORDER if name in extras]
    # `models` is the part that two kinds of process share; whoever types a command trains or looks
    named = known or sorted(extras)
    return {"models": "train"}.get(named[0], named[0]) if named else None


def advice(error: ModuleNotFoundError) -> str | None:
    """One sentence for a missing module, None when it is no library that an extra brings (then it is a mistake of ours)."""
    try:
        requirements = requires("perennial") or ()
    except PackageNotFoundError:
        return None
    extra = extra_of(error.name or "", requirements)
    if extra is None:
        return None
    return f"{error.name} is not installed: this command is not part of the client alone; run pip install 'perennial[{extra}]'"


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
