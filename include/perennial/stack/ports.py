"""Which loopback ports the parts listen on, and whether they are free."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from perennial.errors import PortTaken, StackError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Ports:
    """One port per part that listens."""

    postgres: int = 5455
    airflow: int = 8080
    mlflow: int = 5500
    data_plane: int = 8600

    def record(self) -> dict[str, int]:
        return asdict(self)


SETTINGS = {
    "postgres": "PERENNIAL_PG_PORT",
    "airflow": "PERENNIAL_AIRFLOW_PORT",
    "mlflow": "PERENNIAL_MLFLOW_PORT",
    "data_plane": "PERENNIAL_DATA_PLANE_PORT",
}
BASE_SETTING = "PERENNIAL_PORT_BASE"


def chosen_ports(environment: Mapping[str, str] | None = None, file: Mapping[str, Any] | None = None) -> Ports:
    """The ports by setting: a part's own variable, PERENNIAL_PORT_BASE (four ports from there), settings.json, default.

    Raises StackError for something that is no port.

    >>> chosen_ports({"PERENNIAL_PORT_BASE": "9000", "PERENNIAL_MLFLOW_PORT": "5000"})
    Ports(postgres=9000, airflow=9001, mlflow=5000, data_plane=9003)
    """
    environment = os.environ if environment is None else environment
    given = file or {}
    # the variable's name as settings.json has every name; postgres_port is pg_port's older one
    wanted: dict[str, Any] = {
        name: given.get(setting.removeprefix("PERENNIAL_").lower()) or given.get(f"{name}_port")
        for name, setting in SETTINGS.items()
    }
    base = environment.get(BASE_SETTING) or given.get("port_base")
    if base:
        first = _port(BASE_SETTING, base)
        wanted = {name: wanted[name] or first + offset for offset, name in enumerate(SETTINGS)}
    if environment.get(BASE_SETTING):
        first = _port(BASE_SETTING, environment[BASE_SETTING])
        wanted = {name: first + offset for offset, name in enumerate(SETTINGS)}
    for name, setting in SETTINGS.items():
        wanted[name] = environment.get(setting) or wanted[name]
    ports = Ports(**{name: _port(SETTINGS[name], value) for name, value in wanted.items() if value})
    if len(set(ports.record().values())) < len(SETTINGS):
        raise StackError(f"two parts share a port ({ports.record()}); set {', '.join(SETTINGS.values())} apart")
    return ports


def _port(setting: str, value: Any) -> int:
    try:
        port = int(value)
    except (TypeError, ValueError):
        port = 0
    if not 1 <= port <= 65535:
        raise StackError(f"{setting}={value!r} is no port; set it to a number from 1 to 65535")
    return port


def is_free(port: int) -> bool:
    """True when nothing listens on the loopback port (sockets that are merely closing do not count)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def require_free(ports: Ports) -> None:
    """Raise PortTaken, with the setting to change, for the first port that another process holds."""
    for name, port in ports.record().items():
        if not is_free(port):
            raise PortTaken(port, name, SETTINGS[name])
