"""The way out of an alert: a webhook, Slack, or mail, as the connection says; every call has a timeout and no error holds a secret."""

from __future__ import annotations

import json
import smtplib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from perennial.alerts.kinds import Alert
from perennial.errors import AlertUndelivered, NotConfigured

SECONDS = 10.0
CONNECTION = "perennial_alerts"


class Channel(Protocol):
    """Tells people. Returns once the message was taken; AlertUndelivered otherwise, and the alert is told again later."""

    def send(self, alert: Alert) -> None:
        """Tell one alert; telling it twice must do no harm."""
        ...


class MemoryChannel:
    """The twin: remembers what was told, and can be away."""

    def __init__(self) -> None:
        self.sent: list[Alert] = []
        self.away = False

    def send(self, alert: Alert) -> None:
        """See ``Channel.send``."""
        if self.away:
            raise AlertUndelivered("the channel is away")
        self.sent.append(alert)


class _NoRedirect(HTTPRedirectHandler):
    """A redirect would carry the token to another host."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Follow none."""
        return None


@dataclass(frozen=True, kw_only=True)
class Webhook:
    """POSTs JSON. ``slack``: the body that Slack's incoming webhooks take; else the whole alert, with the message as ``message``."""

    url: str = field(repr=False)  # a webhook's address is its secret
    token: str = field(default="", repr=False)
    slack: bool = False

    def send(self, alert: Alert) -> None:
        """See ``Channel.send``."""
        body = {"text": alert.told()} if self.slack else {**alert.as_dict(), "message": alert.told()}
        headers = {"Content-Type": "application/json"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = Request(self.url, data=json.dumps(body).encode(), headers=headers, method="POST")
        try:
            with build_opener(_NoRedirect).open(request, timeout=SECONDS) as answer:
                answer.read(1024)
        except HTTPError as error:
            raise AlertUndelivered(f"the webhook refused ({error.code}); check the connection {CONNECTION}") from None
        except (URLError, OSError, ValueError, HTTPException) as error:
            raise AlertUndelivered(f"the webhook is away ({type(error).__name__}); it is tried again") from None


@dataclass(frozen=True, kw_only=True)
class Mail:
    """SMTP; ``security`` is ``ssl``, ``starttls`` or ``none``."""

    host: str
    port: int
    sender: str
    to: tuple[str, ...]
    user: str = ""
    password: str = field(default="", repr=False)
    security: str = "starttls"

    def send(self, alert: Alert) -> None:
        """See ``Channel.send``."""
        message = EmailMessage()
        message["From"], message["To"] = self.sender, ", ".join(self.to)
        message["Subject"] = f"Perennial {alert.kind.value}" + (f": {alert.agent}" if alert.agent else "")
        # the same id for a repeat, so that mail programs show it once
        message["Message-ID"] = f"<perennial-alert-{alert.id}-{alert.raised_at:%Y%m%d%H%M%S}@perennial>"
        message.set_content(alert.told())
        try:
            with self._open() as link:
                if self.user:
                    link.login(self.user, self.password)
                link.send_message(message)
        except (OSError, smtplib.SMTPException) as error:
            raise AlertUndelivered(f"the mail server is away or refused ({type(error).__name__})") from None

    def _open(self) -> smtplib.SMTP:
        if self.security == "ssl":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=SECONDS, context=ssl.create_default_context())
        link = smtplib.SMTP(self.host, self.port, timeout=SECONDS)
        if self.security == "starttls":
            try:
                link.starttls(context=ssl.create_default_context())
            except (OSError, smtplib.SMTPException):
                link.close()
                raise
        return link


def channel_of(kind: str, *, host: str, port: int | None, login: str, password: str, schema: str,
               extra: Mapping[str, Any]) -> Channel:  # fmt: skip
    """The channel of an Airflow connection, by its type: ``smtp``, ``slackwebhook``/``slack``, or ``http``/``https``/``generic``.

    Mail needs ``from_email`` and ``to`` in the extras (``to`` with commas for several). NotConfigured says what is missing.

    >>> channel_of("http", host="hooks.example", port=None, login="", password="t", schema="https", extra={"path": "/p"}).url
    'https://hooks.example/p'
    >>> channel_of("smtp", host="mail.example", port=None, login="", password="", schema="", extra={"from_email": "a@b", "to": "c@d"}).port
    465
    """
    if kind == "smtp":
        return _mail(host, port, login, password, extra)
    if kind not in {"http", "https", "generic", "slackwebhook", "slack", ""}:
        raise NotConfigured(f"connection {CONNECTION}", f"its type {kind!r} is none of http, slackwebhook, smtp")
    slack = kind.startswith("slack")
    address = host or ("https://hooks.slack.com/services" if slack else "")
    if "://" not in address:
        address = f"{schema if schema in {'http', 'https'} else 'https'}://{address}"
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise NotConfigured(f"connection {CONNECTION}", "its host must name where the webhook listens")
    if port and parts.port is None:
        address = parts._replace(netloc=f"{parts.netloc}:{port}").geturl()
    path = str(extra.get("path") or "")
    if slack:  # Airflow keeps a Slack webhook's secret path as the password
        return Webhook(url="/".join((address.rstrip("/"), password.strip("/"))) if password else address, slack=True)
    return Webhook(url=address.rstrip("/") + path if path else address, token=password)


def _mail(host: str, port: int | None, login: str, password: str, extra: Mapping[str, Any]) -> Mail:
    to = tuple(part.strip() for part in str(extra.get("to") or "").split(",") if part.strip())
    sender = str(extra.get("from_email") or login)
    if not host or not to or "@" not in sender:
        raise NotConfigured(f"connection {CONNECTION}", "mail needs a host, and from_email and to in the extras")
    # the words and defaults of Airflow's SMTP provider
    plain = str(extra.get("disable_ssl", "false")).lower() in {"1", "true"}
    no_tls = str(extra.get("disable_tls", "false")).lower() in {"1", "true"}
    security = "ssl" if not plain else "none" if no_tls else "starttls"
    return Mail(
        host=host, port=port or (465 if security == "ssl" else 587), sender=sender, to=to, user=login, password=password,
        security=security,
    )  # fmt: skip
