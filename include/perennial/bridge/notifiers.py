"""Tells people through the one Airflow connection ``perennial_alerts``: webhook, Slack or mail, as its type says."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Any

from airflow.sdk import BaseNotifier

from perennial.alerts.channel import CONNECTION, Channel, channel_of
from perennial.alerts.kinds import Alert, Kind

logger = logging.getLogger(__name__)


def channel() -> Channel | None:
    """The channel of the connection, or None where there is no such connection. NotConfigured when it is not understood."""
    from airflow.sdk import Connection
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        found = Connection.get(CONNECTION)
    except AirflowNotFoundException:
        logger.debug("no Airflow connection %s; alerts stay in the list", CONNECTION)
        return None
    return channel_of(
        found.conn_type or "", host=found.host or "", port=found.port, login=found.login or "", password=found.password or "",
        schema=found.schema or "", extra=found.extra_dejson,
    )  # fmt: skip


class AlertNotifier(BaseNotifier):  # type: ignore[misc]
    """For your own DAGs: ``on_failure_callback=AlertNotifier()`` tells of a failed task over the same connection.

    Our own DAGs need none: the DAG ``alerts`` looks at the tables, tells each cause once and repeats what did not get out.

    :param alert: what to tell; by default the failure of the task in the context
    """

    def __init__(self, *, alert: Alert | None = None) -> None:
        super().__init__()
        self.alert = alert

    def notify(self, context: Any) -> None:
        """Send. Raises AlertUndelivered when it was not taken; says so in the log where there is no connection."""
        way = channel()
        alert = self.alert or failed_task(context)
        if way is None:
            logger.warning("nobody is told, since there is no connection %s: %s", CONNECTION, alert.told())
            return
        way.send(alert)


def failed_task(context: Any) -> Alert:
    """The alert for the task of a context: names alone, since an exception's text can quote data."""
    ti = context["ti"]
    text = f"task {ti.task_id} of {ti.dag_id} failed in run {ti.run_id}"
    return Alert(id=0, kind=Kind.FAILURE, agent="", cause=text, text=text, raised_at=datetime.now(UTC))
