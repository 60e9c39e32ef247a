"""A listener that makes our pools in an Airflow that has none.

A task whose pool is missing waits for ever without a word, so an Airflow that somebody else set up gets our pools from its own
processes when they start. A pool that exists is left as it is. PERENNIAL_MAKE_POOLS=0 switches it off.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.listeners import hookimpl

from perennial.bridge.pools import POOLS

logger = logging.getLogger(__name__)


@hookimpl  # type: ignore[untyped-decorator]
def on_starting(component: Any) -> None:
    """Called by Airflow in the scheduler, DAG processor and triggerer as they start, and in tasks, where it does nothing.

    A failure is logged by Airflow and stops nothing.
    """
    from airflow.jobs.job import Job

    from perennial.settings import load_settings

    if isinstance(component, Job) and load_settings().make_pools:
        make_missing_pools()


def make_missing_pools() -> list[str]:
    """Make the pools that Airflow does not have; their names. Needs Airflow's own database, which tasks have not."""
    from airflow.models.pool import Pool as AirflowPool
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from sqlalchemy.exc import IntegrityError

    made = []
    for pool in POOLS:
        try:
            with create_session() as session:
                if session.scalar(select(AirflowPool.id).where(AirflowPool.pool == pool.name)) is None:
                    row = AirflowPool(
                        pool=pool.name, slots=pool.slots, description=pool.description, include_deferred=False
                    )
                    session.add(row)
                    made.append(pool.name)
        except IntegrityError:  # two processes start at once
            made.remove(pool.name)
    if made:
        logger.info("made the pools %s", ", ".join(made))
    return made
