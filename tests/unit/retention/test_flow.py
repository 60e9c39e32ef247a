"""A whole pass over twins: what goes, what stays, that a dry run says the same, and that a killed pass is taken up again."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from perennial.audit.memory import MemoryAuditLog
from perennial.errors import FilesRemoved, NotConfigured, RegistryError
from perennial.flows.champion import bundle_folder
from perennial.flows.retention import Part, check_files_are_there, run_part, told
from perennial.flows.rollback import rollback_agent
from perennial.registry.folder_store import FolderStore
from perennial.registry.memory import MemoryLedger
from perennial.retention.memory import MemoryRetention, OldRow
from perennial.retention.memory_runs import MemoryRuns
from perennial.retention.store import Left, Rows
from perennial.rollout.targets import FolderTarget
from perennial.settings import Settings
from tests.unit.registry.samples import Keys, release

NOW = datetime.now(UTC)
AGENT = "scout"


class Deployment:
    """Eight releases of one agent; 1.0.6 serves and 1.0.7 is its candidate; the first two and 1.0.4 to 1.0.6 were champions."""

    def __init__(self, room: Path, keys: Keys, **settings: Any) -> None:
        self.home, self.ledger, self.store = room / "home", MemoryLedger(), FolderStore(room / "store")
        self.retention, self.audit, self.runs = MemoryRetention(), MemoryAuditLog(), MemoryRuns()
        for number in range(8):
            version = f"1.0.{number}"
            made = release(
                room, keys, agent=AGENT, version=version, base_version=f"1.0.{number - 1}" if number else None,
                order=self.ledger.reserve_order(),
            )  # fmt: skip
            published = self.store.publish(
                made.folder, made.signature, made.manifest, digest=made.digest, metrics={}, params={}, tags={},
                job_id=made.manifest.job_id,
            )  # fmt: skip
            self.ledger.add_gate_report(
                agent=AGENT, job_id=UUID(made.manifest.job_id), attempt=1, content_digest=made.manifest.content_digest,
                action="pass", report={},
            )  # fmt: skip
            self.ledger.record_version(made.manifest, digest=made.digest, uri=published.uri, mlflow_run_id=None)
            self.retention.versions[(AGENT, version)] = Left(
                version=version, digest=made.digest, base_version=made.manifest.base_version,
                encoders=tuple(made.manifest.encoders.values()),
            )  # fmt: skip
            if number in (0, 1, 4, 5, 6):
                self.ledger.move_alias(AGENT, "champion", version, actor="perennial", reason="rollout")
        self.retention.playing = {
            (AGENT, "1.0.6"): "champion",
            (AGENT, "1.0.5"): "former champion, kept hot",
            (AGENT, "1.0.7"): "candidate",
        }
        self.ports: Any = SimpleNamespace(
            settings=Settings(
                home=self.home, verify_key_file=keys.public, retention_keep_versions=2, retention_keep_champions=2, **settings
            ),
            ledger=self.ledger, models=self.store, retention=self.retention, audit=self.audit, runs=self.runs,
            rollouts=SimpleNamespace(previous_champion=lambda agent: "1.0.5", reverted_lately=lambda within: []),
            work=self.home / "work",
            targets={"folder": FolderTarget(self.home / "serving", {})}, fleet=lambda: SimpleNamespace(agents=()),
        )  # fmt: skip

    def there(self) -> list[str]:
        return [row.version for row in reversed(self.ledger.versions(AGENT)) if self.store.exists(AGENT, row.version)]

    def run(self, part: Part, **how: Any) -> Any:
        return run_part(self.ports, part, now=NOW, **how)


@pytest.fixture
def deployment(tmp_path: Path, keys: Keys) -> Deployment:
    return Deployment(tmp_path, keys)


def age(path: Path, days: int = 60) -> None:
    when = (NOW - timedelta(days=days)).timestamp()
    os.utime(path, (when, when))


@pytest.mark.req("K81")
def test_only_the_files_of_old_versions_go_and_a_dry_run_says_which(deployment: Deployment) -> None:
    bundle_folder(deployment.ports, AGENT, "1.0.1")  # a cached copy
    deployment.ports.targets["folder"].point(AGENT, "1.0.0", bundle_folder(deployment.ports, AGENT, "1.0.0"))
    deployment.ports.targets["folder"].point(AGENT, "1.0.6", bundle_folder(deployment.ports, AGENT, "1.0.6"))
    deployment.retention.hold(AGENT, "1.0.2", held=True, actor="auditor", reason="audit")
    before = deployment.ledger.versions(AGENT)
    planned = deployment.run(Part.VERSIONS, dry_run=True)
    assert deployment.there() == [f"1.0.{number}" for number in range(8)]
    done = deployment.run(Part.VERSIONS)
    assert done.names == planned.names == ["scout 1.0.0", "scout 1.0.3"]
    # newest two, two champions, what is in play, what a person holds, and the base of each of them
    assert deployment.there() == ["1.0.1", "1.0.2", "1.0.4", "1.0.5", "1.0.6", "1.0.7"]
    assert done.kept["scout 1.0.2"] == "held by a person"
    assert done.kept["scout 1.0.1"] == "base of 1.0.2"
    assert done.kept["scout 1.0.4"] == "base of 1.0.5"
    assert deployment.ports.targets["folder"].kept(AGENT) == ("1.0.6",)
    cached = sorted(path.name[:5] for path in (deployment.home / "cache" / "bundles" / AGENT).iterdir())
    assert cached == ["1.0.1", "1.0.6"]
    assert deployment.ledger.versions(AGENT) == before  # the record stays
    assert [entry.subject for entry in deployment.audit.entries() if entry.action == "files_removed"] == [
        "1.0.3",
        "1.0.0",
    ]
    again = deployment.run(Part.VERSIONS)
    assert (again.gone, again.names) == ({}, [])


@pytest.mark.req("D10")
@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_killed_pass_is_taken_up_again(
    deployment: Deployment, killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing catches a kill."""

    calls = 0

    def kill_after(verb: Any) -> Any:
        def wrapped(*given: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls > killed_at:
                raise Killed
            return verb(*given, **named)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(deployment.store, "remove", kill_after(deployment.store.remove))
        patch.setattr(deployment.retention, "end_removal", kill_after(deployment.retention.end_removal))
        with pytest.raises(Killed):
            deployment.run(Part.VERSIONS)
    assert not all(one.complete for one in deployment.retention.removals(AGENT))
    deployment.run(Part.VERSIONS)
    assert deployment.there() == ["1.0.4", "1.0.5", "1.0.6", "1.0.7"]
    assert [one.version for one in deployment.retention.removals(AGENT)] == ["1.0.0", "1.0.1", "1.0.2", "1.0.3"]
    assert all(one.complete for one in deployment.retention.removals(AGENT))


def test_a_version_that_comes_into_play_meanwhile_stays(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = deployment.retention.begin_removal

    def late(agent: str, version: str, **who: str) -> bool:
        deployment.retention.playing[(AGENT, "1.0.3")] = "champion"  # somebody rolled back after the plan was made
        return begin(agent, version, **who)

    monkeypatch.setattr(deployment.retention, "begin_removal", late)
    deployment.run(Part.VERSIONS)
    assert "1.0.3" in deployment.there()
    assert deployment.retention.removal(AGENT, "1.0.3") is None


@pytest.mark.req("K81")
def test_what_a_folder_serves_stays_also_when_the_agent_names_the_folder_no_more(deployment: Deployment) -> None:
    folder = deployment.ports.targets["folder"]
    folder.point(AGENT, "1.0.0", bundle_folder(deployment.ports, AGENT, "1.0.0"))  # and nothing moves the link since
    planned = deployment.run(Part.VERSIONS, dry_run=True)
    done = deployment.run(Part.VERSIONS)
    assert done.names == planned.names == ["scout 1.0.1", "scout 1.0.2", "scout 1.0.3"]
    assert done.kept["scout 1.0.0"] == planned.kept["scout 1.0.0"] == "a folder serves it"
    assert "1.0.0" in deployment.there()
    assert deployment.retention.removal(AGENT, "1.0.0") is None
    assert done.not_done == []


@pytest.mark.req("K81", "D10")
def test_a_removal_that_a_folder_is_in_the_way_of_holds_up_no_other(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = deployment.ports.targets["folder"]
    folder.point(AGENT, "1.0.0", bundle_folder(deployment.ports, AGENT, "1.0.0"))
    erased: list[object] = []
    monkeypatch.setattr(deployment.store, "erase", lambda agents: erased.append(agents))
    # marked before anybody looked at the folder
    assert deployment.retention.begin_removal(AGENT, "1.0.0", actor="perennial", reason="old")
    for _ in range(2):
        done = deployment.run(Part.VERSIONS)
        assert done.not_done == ["scout 1.0.0 serves from its folder; point it elsewhere before its files go"]
    # what somebody reads keeps its other copies
    assert deployment.there() == ["1.0.0", "1.0.4", "1.0.5", "1.0.6", "1.0.7"]
    assert len(erased) == 2
    folder.point(AGENT, "1.0.6", bundle_folder(deployment.ports, AGENT, "1.0.6"))
    assert deployment.run(Part.VERSIONS).names == ["scout 1.0.0"]
    assert deployment.there() == ["1.0.4", "1.0.5", "1.0.6", "1.0.7"]


@pytest.mark.req("J91")
def test_whoever_asks_for_removed_files_is_told_when_and_why(deployment: Deployment) -> None:
    bundle_folder(deployment.ports, AGENT, "1.0.0")
    deployment.run(Part.VERSIONS)
    told_so = r"the files of scout 1\.0\.0 were removed by retention on \d{4}-\d\d-\d\d"
    with pytest.raises(FilesRemoved, match=told_so):
        rollback_agent(deployment.ports, AGENT, actor="editor", reason="worse", version="1.0.0")
    with pytest.raises(FilesRemoved, match=told_so):
        bundle_folder(deployment.ports, AGENT, "1.0.0")
    with pytest.raises(FilesRemoved, match="perennial models scout"):
        check_files_are_there(deployment.ports, AGENT, "1.0.0")
    check_files_are_there(deployment.ports, AGENT, "1.0.6")
    deployment.store.remove(AGENT, "1.0.6", deployment.retention.versions[(AGENT, "1.0.6")].digest)
    with pytest.raises(RegistryError) as lost:  # lost otherwise: retention is not to blame
        bundle_folder(deployment.ports, AGENT, "1.0.6")
    assert not isinstance(lost.value, FilesRemoved)


def test_an_encoder_goes_with_the_last_version_that_names_it(
    deployment: Deployment, tmp_path: Path, keys: Keys
) -> None:
    shared, lost = "e" * 64, "0" * 64  # every sample names the first
    for digest in (shared, lost):
        (deployment.home / "bases" / digest).mkdir(parents=True)
        (deployment.home / "bases" / digest / "model.safetensors").write_bytes(b"x" * 100)
        age(deployment.home / "bases" / digest)
    for dry_run in (True, False):
        outcome = deployment.run(Part.BASES, dry_run=dry_run)
        assert (outcome.names, outcome.bytes) == ([f"bases/{lost}"], 100)
    assert [path.name for path in (deployment.home / "bases").iterdir()] == [shared]


def test_a_dry_run_counts_the_encoders_of_versions_that_would_go(deployment: Deployment) -> None:
    only = "a" * 64
    oldest = deployment.retention.versions[(AGENT, "1.0.0")]
    deployment.retention.versions[(AGENT, "1.0.0")] = replace(oldest, encoders=(only,))
    (deployment.home / "bases" / only).mkdir(parents=True)
    (deployment.home / "bases" / only / "f").write_bytes(b"x")
    age(deployment.home / "bases" / only)
    planned = deployment.run(Part.BASES, dry_run=True).names
    assert deployment.run(Part.BASES).names == []  # its version is still there
    deployment.run(Part.VERSIONS)
    assert deployment.run(Part.BASES).names == planned == [f"bases/{only}"]


def test_leftovers_on_disk_go_and_names_are_below_the_home(deployment: Deployment) -> None:
    gone = [
        "bases/.staging-1/f",
        "cache/bundles/.fetch-1/f",
        "logs/tasks/dag_id=x/run_id=y/attempt=1.log",
        "serving/scout/versions/.1.0.0.x/f",
    ]
    for name in [*gone, "logs/scheduler.log"]:
        path = deployment.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
        age(path)
        age(path.parent)
    planned = deployment.run(Part.FILES, dry_run=True)
    done = deployment.run(Part.FILES)
    assert done.names == planned.names
    assert done.names == [
        "bases/.staging-1", "cache/bundles/.fetch-1", "serving/scout/versions/.1.0.0.x", "logs/tasks/dag_id=x/run_id=y/attempt=1.log",
    ]  # fmt: skip
    assert (deployment.home / "logs" / "scheduler.log").exists()  # the supervisor turns its own logs over


@pytest.mark.req("K81")
def test_rows_go_in_batches_and_what_cannot_be_done_is_said(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rows in Rows:
        for days in (400, 0):
            deployment.retention.old.append(OldRow(rows=rows, at=NOW - timedelta(days=days)))
    planned = deployment.run(Part.ROWS, dry_run=True).gone
    assert len(deployment.retention.old) == 2 * len(Rows)
    remove = deployment.retention.remove_old

    def no_admit_role(rows: Rows, before: datetime, limit: int) -> int:
        if rows is Rows.REJECTED:
            raise NotConfigured("PERENNIAL_ADMIT_DATABASE_URL", "set it there")
        return remove(rows, before, limit)

    with monkeypatch.context() as patch:
        patch.setattr(deployment.retention, "remove_old", no_admit_role)
        first = deployment.run(Part.ROWS)
    assert first.not_done == ["PERENNIAL_ADMIT_DATABASE_URL is not set; set it there"]
    second = deployment.run(Part.ROWS)
    assert {**first.gone, **second.gone} == planned == {rows.value: 1 for rows in Rows if rows is not Rows.TRAINED}
    assert len(deployment.retention.old) == len(Rows) + 1  # trained rows stay unless their age is set


def test_trained_rows_go_where_a_deployment_asks_for_it(tmp_path: Path, keys: Keys) -> None:
    deployment = Deployment(tmp_path, keys, retention_trained_days=100)
    deployment.retention.old.append(OldRow(rows=Rows.TRAINED, at=NOW - timedelta(days=400)))
    assert deployment.run(Part.ROWS).gone == {"trained": 1}


def test_old_runs_of_airflow_and_of_refused_candidates_go(deployment: Deployment) -> None:
    deployment.runs.runs = {
        ("harvest", "old"): NOW - timedelta(days=60), ("harvest", "young"): NOW, ("train_scout", "running"): None,
    }  # fmt: skip
    refused = deployment.store.record_refused(AGENT, job_id="job", summary="hold", metrics={}, tags={})
    age(next((deployment.store._root / AGENT / "refused").iterdir()))
    planned = [deployment.run(part, dry_run=True).names for part in (Part.AIRFLOW, Part.REFUSED)]
    assert [deployment.run(part).names for part in (Part.AIRFLOW, Part.REFUSED)] == planned
    assert planned == [["harvest old"], [f"scout {refused}"]]
    assert set(deployment.runs.runs) == {("harvest", "young"), ("train_scout", "running")}
    deployment.ports.runs = None
    nothing = deployment.run(Part.AIRFLOW)
    assert (
        told([nothing.counts()])
        == "nothing was old enough to go; not done: there is no Airflow here whose runs could go"
    )


def test_what_a_killed_training_or_import_left_goes_with_the_folder_of_work(deployment: Deployment) -> None:
    job = UUID(int=7)
    texts = deployment.home / "work" / str(job) / "1" / ".news.0" / ".perennial-script-0" / "data.jsonl"
    half, fresh = deployment.home / "work" / ".import-0", deployment.home / "work" / ".import-1"
    texts.parent.mkdir(parents=True)
    texts.write_text("{}")
    half.mkdir()
    fresh.mkdir()
    for path in (texts.parents[3], half):
        age(path)
    deployment.run(Part.FILES)
    assert list((deployment.home / "work").iterdir()) == [fresh]
