"""The notifier for people's own DAGs, over the one connection."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from perennial.alerts.channel import Mail, MemoryChannel, Webhook
from perennial.bridge import notifiers


def test_the_connection_decides_the_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PERENNIAL_ALERTS", "http://:tok@hooks.example:8443/https?path=%2Fp")
    assert notifiers.channel() == Webhook(url="https://hooks.example:8443/p", token="tok")
    monkeypatch.setenv(
        "AIRFLOW_CONN_PERENNIAL_ALERTS", "smtp://u:p@mail.example/?from_email=a%40example.org&to=b%40example.org"
    )
    way = notifiers.channel()
    assert isinstance(way, Mail)
    assert (way.host, way.port, way.security, way.to) == ("mail.example", 465, "ssl", ("b@example.org",))


def test_without_the_connection_nobody_is_told_and_nothing_breaks(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(notifiers, "channel", lambda: None)
    ti = SimpleNamespace(task_id="load", dag_id="mine", run_id="r1")
    notifiers.AlertNotifier().notify({"ti": ti, "exception": ValueError("a secret text")})
    assert "task load of mine failed in run r1" in caplog.text
    assert "secret" not in caplog.text


def test_a_failed_task_of_their_own_is_told_by_names_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    way = MemoryChannel()
    monkeypatch.setattr(notifiers, "channel", lambda: way)
    context = {
        "ti": SimpleNamespace(task_id="load", dag_id="mine", run_id="r1"),
        "exception": ValueError("a secret text"),
    }
    notifiers.AlertNotifier()(context)
    assert "task load of mine failed" in way.sent[0].told()
    assert "secret" not in way.sent[0].told()
