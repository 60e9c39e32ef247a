"""Where the embedded stack keeps what it must remember: one folder, readable by its owner alone."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import perennial


@dataclass(frozen=True, kw_only=True, slots=True)
class Home:
    """The paths under PERENNIAL_HOME.

    >>> Home(root=Path("/srv/p")).state_file.as_posix()
    '/srv/p/state.json'
    """

    root: Path

    @property
    def secrets_file(self) -> Path:
        return self.root / "secrets.json"

    @property
    def connections_file(self) -> Path:
        return self.root / "connections.json"

    @property
    def settings_file(self) -> Path:
        """Written by people: ports and other settings that outlive an environment variable."""
        return self.root / "settings.json"

    @property
    def state_file(self) -> Path:
        return self.root / "state.json"

    @property
    def supervisor_lock(self) -> Path:
        return self.root / "supervisor.lock"

    @property
    def command_lock(self) -> Path:
        return self.root / "command.lock"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def database(self) -> Path:
        return self.root / "postgres"

    @property
    def airflow(self) -> Path:
        return self.root / "airflow"

    @property
    def passwords_file(self) -> Path:
        """User name to password, in the form that Airflow's simple auth manager reads."""
        return self.airflow / "passwords.json"

    @property
    def artifacts(self) -> Path:
        return self.root / "mlflow"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def inbox(self) -> Path:
        return self.root / "inbox"

    def log_of(self, part: str) -> Path:
        """The log of one part; older generations end in ``.1`` to ``.3``."""
        return self.logs / f"{part}.log"

    def make(self) -> None:
        """Create the folders with mode 0700, and tighten them if they were wider."""
        for folder in (self.root, self.logs, self.airflow, self.artifacts, self.keys, self.inbox):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder.stat().st_mode & 0o077:
                folder.chmod(0o700)


def home() -> Home:
    """The home of this process's environment: PERENNIAL_HOME, or ``.perennial`` in the working directory."""
    from perennial.settings import home_folder  # brings pydantic, which the supervisor does without

    return Home(root=home_folder())


def project_folder() -> Path:
    """The folder that holds ``dags/``: PERENNIAL_PROJECT, the checkout that this package lies in, or the working directory."""
    chosen = os.environ.get("PERENNIAL_PROJECT")
    if chosen:
        return Path(chosen).absolute()
    checkout = Path(perennial.__file__).resolve().parents[2]
    return checkout if (checkout / "dags").is_dir() else Path.cwd()
