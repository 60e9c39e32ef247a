"""Imports the heavy libraries once in the parent of all task processes, so that a task finds them for nothing.

Airflow forks a process per task. What the parent (the scheduler of the embedded stack, a Celery worker in production) has imported
costs a child no time and shares its memory. Called from ``airflow_local_settings``; a library that is missing or broken is
logged and never stops the scheduler.
"""

from __future__ import annotations

import gc
import importlib
import logging
import multiprocessing
import os
import time

logger = logging.getLogger(__name__)

LIBRARIES = (
    "torch", "transformers", "safetensors.torch", "sklearn.feature_extraction.text", "sklearn.linear_model", "mlflow", "mlflow.tracking",
    "great_expectations", "presidio_analyzer", "model_signing", "psycopg", "psycopg_pool", "httpx",
)  # fmt: skip
ROOMS = (
    "perennial.wiring", "perennial.flows.due", "perennial.flows.harvest", "perennial.flows.train", "perennial.flows.rollout",
    "perennial.flows.watch", "perennial.flows.fleet_check", "perennial.guard.redactor", "perennial.guard.validation",
    "perennial.trainers.catalogue", "perennial.trainers._ewc_run", "perennial.bridge.factory", "perennial.bridge.sensors",
)  # fmt: skip

# numpy's OpenBLAS starts its threads at import, and a fork copies none of them but every lock they hold;
# torch sizes its own pool when it is first used, which is in the child
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_MODULE_LOADING": "LAZY"}


EVERYTHING = LIBRARIES + ROOMS


def preload(modules: tuple[str, ...] = EVERYTHING) -> dict[str, float]:
    """Import ``modules`` now; the seconds that each took, without those that failed.

    Does nothing where tasks are not forked: a spawned process inherits no import. Makes no CUDA context (a child could not use it).
    """
    if multiprocessing.get_start_method(allow_none=True) not in {None, "fork"} or not hasattr(os, "fork"):
        logger.info("tasks are not forked here; warm workers are off")
        return {}
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    seconds: dict[str, float] = {}
    for name in modules:
        began = time.monotonic()
        try:
            importlib.import_module(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - any library may fail in its own way; tasks then import it themselves
            logger.warning(
                "warm workers: %s did not import (%s: %s); its tasks start cold", name, type(error).__name__, error
            )
        else:
            seconds[name] = round(time.monotonic() - began, 3)
    if modules is EVERYTHING:
        _load_tagger()
    gc.collect()
    gc.freeze()  # what lives now will not be touched by a child's collector, so its pages stay shared
    logger.info("warm workers: %s of %s modules in %.1f s", len(seconds), len(modules), sum(seconds.values()))
    return seconds


def _load_tagger() -> None:
    """Read the name tagger's weights, which children then share. It computes nothing here: torch's threads do not survive a fork."""
    from perennial.guard.tagger import tagger

    try:
        tagger()
    except Exception as error:  # noqa: BLE001 - a task that needs it says so itself; the scheduler goes on
        logger.warning(
            "warm workers: the name tagger did not load (%s); tasks load it themselves", type(error).__name__
        )
