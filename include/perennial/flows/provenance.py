"""What code and which libraries made a release."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib import metadata
from pathlib import Path

LIBRARIES = ("apache-airflow", "mlflow", "torch", "transformers", "tokenizers", "safetensors", "numpy", "scikit-learn")
_CPUINFO = Path("/proc/cpuinfo")


@cache
def code_digest() -> str:
    """sha256 (hex) over every Python and SQL file of this package, in order of their paths."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.suffix in {".py", ".sql"} and "__pycache__" not in path.parts:
            digest.update(path.relative_to(root).as_posix().encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def machine() -> dict[str, str]:
    """Processor, system and interpreter of this process: on others the last bits of a sum may differ."""
    names = [
        line.split(":", 1)[1].strip()
        for line in (_CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.is_file() else ())
        if line.startswith("model name")
    ]
    processor = names[0] if names else platform.processor() or platform.machine()
    return {
        "processor": processor, "system": f"{platform.system()} {platform.machine()}", "python": platform.python_version(),
    }  # fmt: skip


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in LIBRARIES}


def environment() -> dict[str, str]:
    """Library versions, the container image and the DAG bundle's version, where the deployment names them."""
    return {
        **_versions(),
        "image": os.environ.get("PERENNIAL_IMAGE", ""),
        "dag_bundle_version": os.environ.get("PERENNIAL_DAG_BUNDLE_VERSION", ""),
    }
