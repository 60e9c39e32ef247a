"""Airflow's REST API (3.3: ``/api/v2``): one login, one renewal of it, and errors that say what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from perennial.errors import NotConfigured, StoreUnavailable
from perennial.settings import Settings

_NOT_ALLOWED = (401, 403)


class AirflowLink:
    """Calls as the user of the settings, or with their token. The token is fetched with the first call and kept in memory."""

    def __init__(self, settings: Settings, *, purpose: str, seconds: float = 30.0) -> None:
        """``purpose`` ends the sentences that are said to people, such as "delete DAG runs"; ``seconds`` is how long a call may take."""
        self._settings, self._purpose, self._seconds = settings, purpose, seconds
        given = settings.airflow_token
        self._given = given.get_secret_value() if given else None
        self._token = self._given

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, known: int | None = None
    ) -> dict[str, Any]:
        """The answer's JSON; one with the code ``known`` is empty and no error.

        StoreUnavailable when Airflow is away or refuses, NotConfigured when a setting is missing.
        """
        try:
            return self._ask(method, path, body)
        except HTTPError as error:
            if error.code == known:
                return {}
            raise self._refusal(method, path, error) from error

    def listed(self, path: str, name: str) -> list[Any]:
        """GET; the list of that name in the answer. Errors as with ``call``."""
        found = self.call("GET", path).get(name)
        if not isinstance(found, list):
            raise _no_airflow(f"no {name} in it")
        return found

    def find(self, path: str) -> dict[str, Any] | None:
        """GET; None when Airflow has no such thing. Errors as with ``call``."""
        try:
            return self._ask("GET", path, None)
        except HTTPError as error:
            if error.code == 404:
                return None
            raise self._refusal("GET", path, error) from error

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
        if self._token is None:
            self._token = self._login()
        try:
            return self._send(method, path, body, self._token)
        except HTTPError as error:
            if error.code not in _NOT_ALLOWED or self._given:
                raise
        self._token = self._login()  # expired: one fresh login
        return self._send(method, path, body, self._token)

    def _refusal(self, method: str, path: str, error: HTTPError) -> StoreUnavailable:
        what = f"Airflow refused {method} {path.split('?')[0]} ({error.code})"
        if error.code in _NOT_ALLOWED:
            return StoreUnavailable(f"{what}; the machine user needs the right to {self._purpose}")
        return StoreUnavailable(f"{what}; its log has the details")

    def _login(self) -> str:
        if self._settings.airflow_password is None:
            raise NotConfigured(
                "PERENNIAL_AIRFLOW_PASSWORD", f"the machine user needs it to {self._purpose}; set it there"
            )
        body = {
            "username": self._settings.airflow_user, "password": self._settings.airflow_password.get_secret_value()
        }  # fmt: skip
        try:
            return str(self._send("POST", "/auth/token", body, None)["access_token"])
        except KeyError as error:
            raise _no_airflow("no access_token in it") from error
        except HTTPError as error:
            raise StoreUnavailable(f"Airflow does not let {self._settings.airflow_user} in ({error.code})") from error

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, token: str | None) -> dict[str, Any]:
        url = self._settings.airflow_url.rstrip("/") + path
        if not url.startswith(("http://", "https://")):
            raise NotConfigured("PERENNIAL_AIRFLOW_URL", "it must begin with http:// or https://")
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
        data = None if body is None else json.dumps(body).encode()
        try:
            with urlopen(Request(url, data=data, headers=headers, method=method), timeout=self._seconds) as answer:
                found = json.loads(answer.read() or b"{}")
        except HTTPError:
            raise
        except (URLError, OSError) as error:
            raise StoreUnavailable(f"Airflow is away ({type(error).__name__}); try again") from error
        except (HTTPException, ValueError) as error:  # it died in the middle, or a proxy's page came with code 200
            raise _no_airflow(type(error).__name__) from error
        if not isinstance(found, dict):
            raise _no_airflow("no JSON object")
        return found


def _no_airflow(why: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"the answer broke off or is not Airflow's ({why}); try again, or lead PERENNIAL_AIRFLOW_URL past any login page"
    )
