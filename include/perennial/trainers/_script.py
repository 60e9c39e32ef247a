"""The user's script as a value: its name, its text, and the digest that a component's record names."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from perennial.errors import TrainingError, UntrustedBundle
from perennial.settings import load_settings

FILE = "script.json"  # a bundle holds no file that could be run as it lies there
EXAMPLE = "word_counts.py"
MOST = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """A program of one file. ``digest`` is the sha256 (hex) of its bytes."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def keep(self, folder: Path) -> None:
        """Write it as JSON, as bundles and bases hold it."""
        record = {"name": self.name, "sha256": self.digest, "text": self.text}
        (folder / FILE).write_text(
            json.dumps(record, indent=1, sort_keys=True, ensure_ascii=True) + "\n", encoding="utf-8"
        )

    def place(self, folder: Path) -> Path:
        """Write it as a program into a private folder, to be run from there."""
        path = folder / self.name
        path.write_bytes(self.text.encode())
        return path


def find(name: str) -> Path:
    """Where a script lies: an absolute path, or one in the fleet folder; the example comes with the package."""
    own = Path(name) if Path(name).is_absolute() else load_settings().fleet_folder / name
    shipped = Path(__file__).with_name(f"_{EXAMPLE}")
    return shipped if name == EXAMPLE and not own.is_file() else own


def problem(name: str) -> str:
    """Why there is no such script; empty when there is one."""
    path = find(name)
    if not path.is_file():
        return f"the script {name!r} is not there (looked at {path}); paths are relative to the fleet folder"
    if path.stat().st_size > MOST:
        return f"the script {name!r} is larger than {MOST >> 20} MB; import what is large from an installed package"
    return ""


def read(name: str) -> Script:
    """The script as it is now; TrainingError when it is not there or no text."""
    if told := problem(name):
        raise TrainingError(told)
    try:
        return Script(name=find(name).name.removeprefix("_"), text=find(name).read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise TrainingError(f"the script {name!r} is not UTF-8; save it as UTF-8") from error


def kept(folder: Path, digest: str | None = None) -> Script:
    """The script of a component or base; UntrustedBundle when its text is not that of the digest."""
    try:
        record = json.loads((folder / FILE).read_text(encoding="utf-8"))
        script = Script(name=record["name"], text=record["text"])
        agrees = script.digest == record["sha256"] and digest in (None, script.digest)
        if not agrees or Path(script.name).name != script.name or script.name.startswith("."):
            raise ValueError("another text")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UntrustedBundle(
            "the script of the component is not the one that its record names; restore the version"
        ) from error
    return script
