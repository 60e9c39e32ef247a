"""Imports what our tasks need in the scheduler, before it forks its workers; on the scheduler's path alone.

A task then finds torch and its friends already imported: 0.0 s instead of 6 to 10 s each time.
Whatever goes wrong here is logged and never stops the scheduler. An ``airflow_local_settings`` of the user's own,
anywhere else on the path, keeps working: it is loaded from here under its own name.
"""

import importlib.util
import logging
import multiprocessing
import sys
import time
from importlib.machinery import PathFinder
from pathlib import Path

_logger = logging.getLogger("perennial.warm")


def _users_own() -> dict[str, object]:
    """Public names of the next airflow_local_settings on the path; an error in it is the user's to see, as always."""
    here = str(Path(__file__).parent)
    elsewhere = [entry for entry in sys.path if str(Path(entry or ".").absolute()) != here]
    spec = PathFinder.find_spec("airflow_local_settings", elsewhere)
    if spec is None or spec.loader is None:
        return {}
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
    return {name: getattr(module, name) for name in names}


def _preload() -> None:
    if multiprocessing.get_start_method() != "fork":
        _logger.warning("workers are not forked here, so they cannot be warm")
        return
    began = time.monotonic()
    try:
        from perennial.bridge.warm import preload

        preload()
    except Exception:  # a broken import of one library must not stop the scheduling of everything else
        _logger.exception("workers are not warm: a heavy import failed in the scheduler")
    else:
        _logger.info("workers are warm after %.1f s", time.monotonic() - began)


_found = _users_own()
__all__ = sorted(_found)
globals().update(_found)
_preload()
