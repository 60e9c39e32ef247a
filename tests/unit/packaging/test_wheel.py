"""What `pip install perennial` brings: the wheel is built here, without a network, and looked into."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest

from perennial.cli._extras import extra_of

REPOSITORY = Path(__file__).resolve().parents[3]
# everything that a part loads at its first call is an extra; the import of the client needs the standard library alone
CLIENT = "import sys; sys.path[:0] = [{folder!r}]; "


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the files that git knows or would add, built in a folder of its own."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    # "-z": names as they are. A deleted file that is not committed yet is listed too.
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, capture_output=True,
        text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(out), str(source)],
        check=True, capture_output=True,
    )  # fmt: skip
    (built,) = out.glob("perennial-*.whl")
    return built


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def alone(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """An interpreter that sees the wheel and the standard library, and no other library."""
    head = f"import sys; sys.path[:0] = [{str(folder)!r}]; "
    return subprocess.run([sys.executable, "-I", "-S", "-c", head + code], capture_output=True, text=True, check=False)


@pytest.mark.req("D1", "J113")
def test_the_wheel_is_small_and_holds_the_package_and_what_it_copies(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    print(f"{wheel.name}: {wheel.stat().st_size:,} bytes, {len(names)} files")
    assert wheel.stat().st_size < 1_000_000
    shipped = sorted(name for name in names if ".data/data/share/perennial/" in name)
    dags = {path.name for path in (REPOSITORY / "dags").glob("*.py")}
    assert {name.rpartition("/")[2] for name in shipped} == {*dags, "scout.py", "airflow_settings.yaml"}
    foreign = [
        name for name in names
        if (name not in shipped and not re.match(r"perennial(-[\d.]+\.dist-info)?/", name))
        or re.search(r"(^|/)(tests?|conftest|compat)(/|\.py|_)", name)
        or not re.search(r"\.(py|sql|txt|json|typed|yaml)$|^perennial/pages/static/[a-z-]+\.(css|js|svg)$"
                         r"|^perennial/guard/names/tagger\.safetensors$|dist-info/", name)
    ]  # fmt: skip
    assert foreign == []
    migrations = {path.name for path in (REPOSITORY / "include/perennial/storage/migrations").glob("*.sql")}
    assert migrations <= {name.rpartition("/")[2] for name in names}


def test_stores_in_memory_are_for_tests_and_nothing_shipped_needs_one(unpacked: Path) -> None:
    shipped = list((unpacked / "perennial").rglob("*.py"))
    assert len(shipped) > 300
    assert [path.name for path in shipped if re.match(r"memory(_.*)?\.py$", path.name)] == []
    needed = re.compile(
        r"^\s*(?:from perennial\.[a-z_.]*\bmemory\w* import|import perennial\.[a-z_.]*\bmemory)", re.MULTILINE
    )
    assert [path for path in shipped if needed.search(path.read_text(encoding="utf-8"))] == []


def test_the_client_is_the_package_and_everything_else_is_an_extra(unpacked: Path) -> None:
    (folder,) = unpacked.glob("*.dist-info")
    found = PathDistribution(folder)
    plain = {re.split(r"[\[=<>;]", line)[0].strip() for line in found.requires or () if "extra ==" not in line}
    assert plain == {"psycopg", "psycopg-pool", "pydantic-settings"}
    assert {"client", "gateway", "train", "airflow", "stack", "all"} <= set(found.metadata.get_all("Provides-Extra"))
    assert ("airflow.plugins", "perennial") in {(one.group, one.name) for one in found.entry_points}
    import perennial

    assert found.version == perennial.__version__


@pytest.mark.req("J113")
def test_the_client_imports_with_the_standard_library_alone(unpacked: Path) -> None:
    code = (
        "import time; began = time.perf_counter(); import perennial.client as c; spent = time.perf_counter() - began;"
        "print(f'{spent * 1000:.0f} ms', len(sys.modules), c.add_user_correction.__name__)"
    )
    runs = [alone(unpacked, code) for _ in range(3)]
    assert [run.returncode for run in runs] == [0, 0, 0], runs[0].stderr
    print("import perennial.client:", ", ".join(run.stdout.split(" ms")[0] for run in runs), "ms")
    assert "add_user_correction" in runs[0].stdout


def test_the_command_without_its_extra_says_what_to_install(unpacked: Path) -> None:
    done = alone(unpacked, "sys.argv = ['perennial', 'status']; from perennial.cli import main; main()")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].endswith("run pip install 'perennial[airflow]'")
    assert "Traceback" not in done.stderr


def test_every_library_that_the_code_imports_is_brought_by_an_extra(unpacked: Path) -> None:
    (folder,) = unpacked.glob("*.dist-info")
    requires = PathDistribution(folder).requires or []
    imported = set()
    for path in (REPOSITORY / "include" / "perennial").rglob("*.py"):
        for line in path.read_text().splitlines():
            if found := re.match(r"\s*(?:from|import) (\w+)", line):
                imported.add(found[1])
    libraries = imported - set(sys.stdlib_module_names) - {"perennial", "__future__", "airflow_local_settings"}
    assert {"torch", "mlflow", "airflow", "typer", "fastapi"} <= libraries
    plain = " ".join(line for line in requires if "extra ==" not in line)
    unknown = [
        name for name in sorted(libraries) if name.replace("_", "-") not in plain and not extra_of(name, requires)
    ]
    # these come with libraries that are named: pydantic with pydantic-settings, cryptography with model-signing, and so on
    assert unknown == sorted(set(unknown) & ALONG)


ALONG = {
    "a", "botocore", "cryptography", "data", "huggingface_hub", "one", "pydantic", "requests", "sqlalchemy", "the", "threadpoolctl", "tqdm",
}  # fmt: skip


def test_the_locks_agree() -> None:
    def pins(name: str) -> dict[str, str]:
        lines = (REPOSITORY / name).read_text().splitlines()
        return dict(line.split("==") for line in lines if "==" in line)

    lock = pins("requirements.txt")
    for other in ("requirements-dev.txt", "requirements-deploy.txt"):
        assert {name: version for name, version in pins(other).items() if name in lock} == lock, other
    assert {"apache-airflow-providers-celery", "apache-airflow-providers-cncf-kubernetes", "boto3"} <= set(
        pins("requirements-deploy.txt")
    )
