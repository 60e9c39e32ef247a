"""One contract for the stores of released bundles: a plain folder, and MLflow behind its real server."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from perennial.bridge.links import ModelRunLink, ModelVersionLink
from perennial.errors import RegistryError, UntrustedBundle, VersionExists
from perennial.registry import mlflow_store
from perennial.registry.bundle import bundle_digest
from perennial.registry.cache import fetch_verified
from perennial.registry.folder_store import FolderStore
from perennial.registry.mlflow_store import MlflowStore, ModelStore, Published
from tests.integration.registry.conftest import MlflowServer
from tests.unit.registry.samples import Keys, Made, OneRow, release


@pytest.fixture(params=["folder", "mlflow"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModelStore]:
    if request.param == "folder":
        yield FolderStore(tmp_path / "store")
    else:
        yield MlflowStore(request.getfixturevalue("mlflow_server").url)


@pytest.fixture
def agent() -> str:
    return f"scout_{uuid4().hex[:8]}"  # the server outlives the test


def _publish(store: ModelStore, made: Made, **more: Any) -> Published:
    return store.publish(
        made.folder, made.signature, made.manifest, digest=made.digest, job_id=made.manifest.job_id,
        metrics={"news.candidate": 0.91, "broken": float("nan")}, params={"trainer": "ewc_text.v1", "epochs": 1},
        tags={"run_id": "manual__1", "reason": "threshold", "mode": "batch"}, **more,
    )  # fmt: skip


@pytest.mark.req("K29", "K59")
def test_what_is_published_comes_back_byte_by_byte(store: ModelStore, agent: str, tmp_path: Path, keys: Keys) -> None:
    made = release(tmp_path, keys, agent=agent)
    assert not store.exists(agent, "1.0.0")
    assert store.links(agent, "1.0.0") == {}
    published = _publish(store, made)
    assert store.exists(agent, "1.0.0")
    assert published.uri
    assert published.run_id
    folder, signature = store.fetch(agent, "1.0.0", tmp_path / "back")
    assert bundle_digest(folder) == made.digest
    assert signature.read_bytes() == made.signature.read_bytes()
    # what the buttons of the register task read
    assert (
        set(store.links(agent, "1.0.0")) == {ModelRunLink.field, ModelVersionLink.field} == {"run_url", "version_url"}
    )
    with pytest.raises(RegistryError):
        store.fetch(agent, "1.0.1", tmp_path / "none")
    with pytest.raises(RegistryError):
        store.fetch(agent, "1.0.0", tmp_path / "other", digest="0" * 64)


@pytest.mark.req("D10")
def test_publishing_again_makes_nothing_twice(store: ModelStore, agent: str, tmp_path: Path, keys: Keys) -> None:
    made = release(tmp_path, keys, agent=agent)
    assert _publish(store, made) == _publish(store, made)


@pytest.mark.req("K31")
@pytest.mark.req("K59")
def test_a_refused_candidate_leaves_its_numbers_once(store: ModelStore, agent: str) -> None:
    told = {
        "summary": "hold: slices",
        "metrics": {"news.candidate": 0.5, "broken": float("nan")},
        "tags": {"run_id": "r1"},
    }
    first = store.record_refused(agent, job_id="job-1", **told)  # type: ignore[arg-type]
    assert store.record_refused(agent, job_id="job-1", **told) == first  # type: ignore[arg-type]
    assert store.record_refused(agent, job_id="job-2", **told) != first  # type: ignore[arg-type]
    assert not store.exists(agent, "1.0.0")


@pytest.mark.req("K59")
def test_mlflow_shows_a_refused_candidate_with_its_run_and_reason(agent: str, mlflow_server: MlflowServer) -> None:
    from mlflow import MlflowClient

    store = MlflowStore(mlflow_server.url)
    identity = store.record_refused(
        agent,
        job_id="job-1",
        summary="hold: slices: fell",
        metrics={"news.candidate": 0.5},
        tags={"run_id": "manual__1"},
    )
    run = MlflowClient(tracking_uri=mlflow_server.url).get_run(identity)
    assert (run.info.status, run.data.metrics) == ("FINISHED", {"news.candidate": 0.5})
    assert run.data.tags["perennial.run_id"] == "manual__1"
    assert run.data.tags["mlflow.note.content"] == "hold: slices: fell"


def test_a_published_version_keeps_its_bytes(store: ModelStore, agent: str, tmp_path: Path, keys: Keys) -> None:
    first, second = release(tmp_path, keys, agent=agent), release(tmp_path, keys, agent=agent)
    _publish(store, first)
    with pytest.raises(VersionExists):
        _publish(store, second)
    folder, _ = store.fetch(agent, "1.0.0", tmp_path / "back")
    assert bundle_digest(folder) == first.digest


def test_a_publication_that_the_ledger_refused_can_be_taken_back(
    store: ModelStore, agent: str, tmp_path: Path, keys: Keys
) -> None:
    first, second = release(tmp_path, keys, agent=agent), release(tmp_path, keys, agent=agent)
    _publish(store, first)
    store.withdraw(agent, "1.0.0", "0" * 64)  # other bytes: nothing happens
    assert store.exists(agent, "1.0.0")
    store.withdraw(agent, "1.0.0", first.digest)
    assert not store.exists(agent, "1.0.0")
    _publish(store, second)
    assert bundle_digest(store.fetch(agent, "1.0.0", tmp_path / "back")[0]) == second.digest


def test_a_manifest_that_is_not_the_bundles_own_is_refused(
    store: ModelStore, agent: str, tmp_path: Path, keys: Keys
) -> None:
    made = release(tmp_path, keys, agent=agent)
    stray = Made(made.folder, made.signature, release(tmp_path, keys, agent=agent, order=7).manifest, made.row)
    with pytest.raises(RegistryError, match=r"Manifest\.read"):
        _publish(store, stray)
    assert not store.exists(agent, "1.0.0")


def test_aliases_follow(store: ModelStore, agent: str, tmp_path: Path, keys: Keys) -> None:
    assert store.aliases(agent) == {}
    store.clear_alias(agent, "candidate")
    for version, base, order in (("1.0.0", None, 1), ("1.0.1", "1.0.0", 2)):
        _publish(store, release(tmp_path, keys, agent=agent, version=version, base_version=base, order=order))
    store.set_alias(agent, "champion", "1.0.0")
    assert store.aliases(agent) == {"champion": "1.0.0"}
    assert store.align_aliases(agent, champion="1.0.0", candidate="1.0.1")
    assert store.aliases(agent) == {"champion": "1.0.0", "candidate": "1.0.1"}
    assert store.align_aliases(agent, champion="1.0.1", candidate=None)
    assert store.align_aliases(agent, champion="1.0.1", candidate=None)
    assert store.aliases(agent) == {"champion": "1.0.1"}
    store.clear_alias(agent, "champion")
    assert store.aliases(agent) == {}
    with pytest.raises(RegistryError):
        store.set_alias(agent, "champion", "9.9.9")


@pytest.mark.req("K69", "J6")
def test_a_store_that_was_tampered_with_is_refused(
    store: ModelStore, agent: str, tmp_path: Path, keys: Keys, request: pytest.FixtureRequest
) -> None:
    made = release(tmp_path, keys, agent=agent)
    _publish(store, made)
    root = tmp_path / "store" if isinstance(store, FolderStore) else request.getfixturevalue("mlflow_server").artifacts
    ledger = OneRow(made.row)
    good = fetch_verified(agent, "1.0.0", ledger=ledger, store=store, public_key=keys.public, into=tmp_path / "before")
    assert bundle_digest(good) == made.digest
    head = next(path for path in root.rglob("head.safetensors") if path.read_bytes() == _head(made))
    head.chmod(0o600)
    head.write_bytes(head.read_bytes()[:-1] + bytes([head.read_bytes()[-1] ^ 1]))
    with pytest.raises(UntrustedBundle):
        fetch_verified(agent, "1.0.0", ledger=ledger, store=store, public_key=keys.public, into=tmp_path / "after")
    served = fetch_verified(
        agent, "1.0.0", ledger=ledger, store=store, public_key=keys.public, into=tmp_path / "before"
    )
    assert bundle_digest(served) == made.digest  # the local verified copy still serves


def _head(made: Made) -> bytes:
    return (made.folder / "tasks/news/head.safetensors").read_bytes()


# MLflow alone


@pytest.mark.req("K30", "K59", "J14", "M47")
def test_mlflow_shows_the_run_and_the_whole_lineage(
    mlflow_server: MlflowServer, agent: str, tmp_path: Path, keys: Keys
) -> None:
    from mlflow import MlflowClient

    store = MlflowStore(mlflow_server.url)
    made = release(tmp_path, keys, agent=agent)
    published = _publish(store, made)
    client = MlflowClient(tracking_uri=mlflow_server.url, registry_uri=mlflow_server.url)
    run = client.get_run(published.run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", f"{agent} 1.0.0")
    assert client.get_experiment(run.info.experiment_id).name == agent
    assert run.data.metrics == {"news.candidate": 0.91}
    assert run.data.params == {"trainer": "ewc_text.v1", "epochs": "1"}
    version = client.get_model_version(agent, published.store_version)
    assert (version.run_id, version.status) == (published.run_id, "READY")
    for tags in (run.data.tags, version.tags):
        named = {key.removeprefix("perennial."): value for key, value in tags.items()}
        assert named["run_id"] == "manual__1"
        assert (named["version"], named["base_version"], named["digest"]) == ("1.0.0", "none", made.digest)
        assert (named["training_seed"], named["job_id"]) == ("7", made.manifest.job_id)
        assert named["holdout_digest"] == made.manifest.holdout.digest
        for name in ("config", "metrics", "signature", "examples_digest", "code_digest", "image", "gate_report_digest"):
            assert named[name], name
    assert "first version" in version.description


@pytest.mark.req("D10")
@pytest.mark.parametrize("killed_in", ["_params", "_upload", "_create_version"])
def test_mlflow_goes_on_after_a_kill_in_the_same_run(
    killed_in: str, mlflow_server: MlflowServer, agent: str, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    class Killed(BaseException):
        """Nothing catches a kill."""

    def kill(*_: object) -> None:
        raise Killed

    store, made = MlflowStore(mlflow_server.url), release(tmp_path, keys, agent=agent)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_store, killed_in, kill)
        with pytest.raises(Killed):
            _publish(store, made)
    assert not store.exists(agent, "1.0.0")
    published = _publish(MlflowStore(mlflow_server.url), made)
    client = MlflowClient(tracking_uri=mlflow_server.url, registry_uri=mlflow_server.url)
    experiment = client.get_experiment_by_name(agent)
    assert [run.info.run_id for run in client.search_runs([experiment.experiment_id])] == [published.run_id]
    assert [version.version for version in client.search_model_versions(f"name = '{agent}'")] == ["1"]
    assert client.get_run(published.run_id).info.status == "FINISHED"
    assert bundle_digest(store.fetch(agent, "1.0.0", tmp_path / "back")[0]) == made.digest


@pytest.mark.req("J100")
def test_an_unreachable_mlflow_is_named_without_its_password(
    agent: str, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = MlflowStore("http://user:topsecret@127.0.0.1:9")
    with pytest.raises(RegistryError, match=r"127\.0\.0\.1:9") as refused:
        store.exists(agent, "1.0.0")
    assert "topsecret" not in str(refused.value) + repr(store)
    assert store.align_aliases(agent, champion="1.0.0", candidate=None) is False


@pytest.mark.parametrize("name", ["sc'out", "a b", "x` = '1"])
def test_names_cannot_change_a_query(name: str, mlflow_server: MlflowServer) -> None:
    with pytest.raises(RegistryError, match="not a name"):
        MlflowStore(mlflow_server.url).exists("scout", name)


@pytest.mark.req("K69")
def test_people_of_mlflow_load_it_as_they_are_used_to_and_only_when_it_verifies(
    mlflow_server: MlflowServer, agent: str, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    from perennial.domain.model import Prediction
    from perennial.registry import mlflow_loader

    class Constant:
        def predict(self, texts: list[str]) -> list[Prediction]:
            return [Prediction(output="world", confidence=0.8) for _ in texts]

    store, made = MlflowStore(mlflow_server.url), release(tmp_path, keys, agent=agent)
    published = _publish(store, made)
    store.set_alias(agent, "champion", "1.0.0")
    monkeypatch.setenv("PERENNIAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PERENNIAL_MLFLOW_URL", mlflow_server.url)
    monkeypatch.setenv("PERENNIAL_VERIFY_KEY_FILE", str(keys.public))
    monkeypatch.setattr(mlflow_loader, "_predictors", lambda folder, settings: {"news": Constant()})
    mlflow.set_tracking_uri(mlflow_server.url)
    mlflow.set_registry_uri(mlflow_server.url)
    model = mlflow.pyfunc.load_model(f"models:/{agent}@champion")
    assert model.predict(["a", "b"]) == [{"news": {"output": "world", "confidence": 0.8}}] * 2
    assert model.metadata.metadata["version"] == "1.0.0"

    head = next(path for path in mlflow_server.artifacts.rglob("head.safetensors") if path.read_bytes() == _head(made))
    head.write_bytes(b"evil")
    with pytest.raises(UntrustedBundle):
        mlflow.pyfunc.load_model(f"models:/{agent}/{published.store_version}")
    other = Keys.make(tmp_path / "other")
    monkeypatch.setenv("PERENNIAL_VERIFY_KEY_FILE", str(other.public))
    head.write_bytes(_head(made))
    with pytest.raises(UntrustedBundle):
        mlflow.pyfunc.load_model(f"models:/{agent}@champion")


# retention


@pytest.mark.req("K59")
def test_a_removed_release_is_gone_and_the_others_stay(
    store: ModelStore, agent: str, tmp_path: Path, keys: Keys, request: pytest.FixtureRequest
) -> None:
    old = release(tmp_path, keys, agent=agent)
    new = release(tmp_path, keys, agent=agent, version="1.0.1", base_version="1.0.0", order=2)
    for made in (old, new):
        _publish(store, made)
    store.set_alias(agent, "champion", "1.0.1")
    store.remove(agent, "1.0.0", "0" * 64)  # other bytes: nothing happens
    assert store.exists(agent, "1.0.0")
    root = tmp_path / "store" if isinstance(store, FolderStore) else request.getfixturevalue("mlflow_server").artifacts
    assert _copies(root, old)
    for _ in range(2):  # a repeat after a kill
        store.remove(agent, "1.0.0", old.digest)
    assert not store.exists(agent, "1.0.0")
    assert not _copies(root, old)
    assert _copies(root, new)
    assert store.aliases(agent) == {"champion": "1.0.1"}
    with pytest.raises(RegistryError):
        store.fetch(agent, "1.0.0", tmp_path / "none")
    assert bundle_digest(store.fetch(agent, "1.0.1", tmp_path / "back")[0]) == new.digest


@pytest.mark.req("K59")
def test_old_runs_of_refused_candidates_are_found_and_forgotten(
    store: ModelStore, agent: str, tmp_path: Path, keys: Keys
) -> None:
    released = release(tmp_path, keys, agent=agent)
    _publish(store, released)
    told = {"summary": "hold", "metrics": {"a": 0.5}, "tags": {"run_id": "r"}}
    first, second = (store.record_refused(agent, job_id=f"job-{n}", **told) for n in (1, 2))  # type: ignore[arg-type]
    assert store.old_runs(agent, datetime.now(UTC) - timedelta(days=1)) == ()
    late = datetime.now(UTC) + timedelta(seconds=5)
    assert set(store.old_runs(agent, late)) == {first, second}
    for _ in range(2):
        store.forget_run(agent, first)
    assert store.old_runs(agent, late) == (second,)
    assert store.exists(agent, "1.0.0")
    assert store.old_runs("nobody_" + agent, late) == ()


def _copies(root: Path, made: Made) -> list[Path]:
    return [path for path in root.rglob("head.safetensors") if path.read_bytes() == _head(made)]


def test_mlflow_forgets_a_removed_run_where_its_database_is_reached(
    mlflow_server: MlflowServer, agent: str, tmp_path: Path, keys: Keys
) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import ViewType

    client = MlflowClient(tracking_uri=mlflow_server.url, registry_uri=mlflow_server.url)
    remote = MlflowStore(mlflow_server.url)
    made = release(tmp_path, keys, agent=agent)
    run_id = _publish(remote, made).run_id
    experiment = client.get_experiment_by_name(agent).experiment_id
    foreign = client.create_run(experiment).info.run_id
    client.delete_run(foreign)  # a person's own decision, which is not ours to complete
    assert remote.erase([agent, "nobody"]) == ""
    remote.remove(agent, "1.0.0", made.digest)
    assert remote.erase([agent]).startswith("1 deleted runs stay as rows in MLflow's database")
    near = MlflowStore(mlflow_server.url, f"sqlite:///{mlflow_server.artifacts.parent}/mlflow.db")
    assert near.erase([agent]) == ""
    assert near.erase([agent]) == ""
    left = client.search_runs([experiment], run_view_type=ViewType.ALL)
    assert [run.info.run_id for run in left] == [foreign]
    assert run_id != foreign


@pytest.mark.req("D10")
@pytest.mark.parametrize("killed_in", ["_delete_artifacts", "_delete_run"])
def test_mlflow_goes_on_removing_after_a_kill(
    killed_in: str, mlflow_server: MlflowServer, agent: str, tmp_path: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Nothing catches a kill."""

    def kill(*_: object) -> None:
        raise Killed

    store, made = MlflowStore(mlflow_server.url), release(tmp_path, keys, agent=agent)
    _publish(store, made)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_store, killed_in, kill)
        with pytest.raises(Killed):
            store.remove(agent, "1.0.0", made.digest)
    MlflowStore(mlflow_server.url).remove(agent, "1.0.0", made.digest)
    assert not store.exists(agent, "1.0.0")
    assert not _copies(mlflow_server.artifacts, made)
    assert store.erase([agent]).startswith("1 deleted runs")
