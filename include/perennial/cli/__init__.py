"""``perennial ...``: one file per topic, found by walking this package.

A topic is a module here with ``register(app: typer.Typer) -> None``, which adds its commands. It imports what is heavy
inside them, so that ``perennial --help`` stays fast.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from typing import TYPE_CHECKING

from perennial.cli._extras import advice
from perennial.errors import PerennialError

if TYPE_CHECKING:
    import typer


def build() -> typer.Typer:
    """The application with every topic's commands, topics in alphabetical order."""
    import typer

    app = typer.Typer(
        name="perennial",
        help="Keeps a fleet of models fresh, on Apache Airflow.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for module in pkgutil.iter_modules(__path__):
        if not module.name.startswith("_"):
            register = getattr(importlib.import_module(f"{__name__}.{module.name}"), "register", None)
            if register is not None:
                register(app)
    return app


def main() -> None:
    """Entry point: an error of ours is one line that says what to do next, with exit code 1 and no traceback.

    A library that the installed extras do not bring is such an error too.
    """
    try:
        build()()
    except ModuleNotFoundError as error:
        said = advice(error)
        if said is None:
            raise
        sys.exit(said)
    except PerennialError as error:
        _complain(error)
        sys.exit(1)


def _complain(error: PerennialError) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(f"{type(error).__name__}: {error}", style="red"))
