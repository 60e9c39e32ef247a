"""The one room that knows MLflow: a run per release, a registered model per agent, tags that carry the lineage."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from perennial.errors import RegistryError, VersionExists
from perennial.registry.bundle import signature_path
from perennial.registry.manifest import Manifest
from perennial.registry.store import ModelStore, Published, check_manifest, finite, prefixed, release_tags
from perennial.settings import without_login

__all__ = ["MlflowStore", "ModelStore", "Published"]

logger = logging.getLogger(__name__)

_FOLDER = "bundle"
_REMOVED = "perennial.removed"  # on runs that retention deleted, so that nobody else's deleted runs are erased
# MLflow keeps the tags of a deleted version; these are the long ones, and the ledger has what they say
_LONG_TAGS = ("perennial.config", "perennial.metrics", "perennial.encoders")
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # MLflow would try for minutes; a task is retried by Airflow instead
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
}


class MlflowStore:
    """A ``ModelStore`` on an MLflow tracking server (3.17), reached by its REST API.

    ``publish`` costs about ten calls (0.2-0.3 s on loopback); importing MLflow costs 1-2 s in a cold process.
    """

    def __init__(self, url: str, backend: str | None = None) -> None:
        self._url = url.rstrip("/")
        self._shown = without_login(self._url)  # for people: the URL itself can hold a password
        self._backend = backend  # URI of MLflow's own database, where this process may reach it
        self._numbers: dict[tuple[str, str], tuple[str, str]] = {}  # (agent, version) -> (number, run id): immutable

    def __repr__(self) -> str:
        return f"MlflowStore({self._place})"

    @property
    def _place(self) -> str:
        return self._shown.partition("://")[2] or self._shown

    def publish(
        self, bundle: Path, signature: Path, manifest: Manifest, *, digest: str, metrics: Mapping[str, float],
        params: Mapping[str, Any], tags: Mapping[str, str], job_id: UUID | str,
    ) -> Published:  # fmt: skip
        """See ``ModelStore``.

        The run is found by the bundle's digest, so a repeat after a kill goes on in the same run.
        """
        check_manifest(bundle, manifest)
        labels = release_tags(manifest, digest=digest, signature=signature, job_id=job_id, more=tags)
        with self._client() as client:
            known = self._publication(client, manifest.agent, manifest.version)
            if known is not None and known.tags.get("perennial.digest") != digest:
                raise VersionExists(
                    f"{manifest.agent} {manifest.version} lies in MLflow with other bytes; take the next version"
                )
            experiment = _experiment(client, manifest.agent)
            run = _run_of(client, experiment, digest) or client.create_run(
                experiment, tags=labels, run_name=f"{manifest.agent} {manifest.version}"
            )
            run_id = run.info.run_id
            if run.info.status != "FINISHED":
                client.log_batch(run_id, metrics=_metrics(metrics), params=_params(params))
                _upload(run.info.artifact_uri, self._url, bundle, signature)
            if known is None:
                known = _create_version(client, manifest, f"{run.info.artifact_uri}/{_FOLDER}", run_id, labels)
            if run.info.status != "FINISHED":
                client.set_terminated(run_id)
        self._numbers[(manifest.agent, manifest.version)] = (str(known.version), run_id)
        return Published(uri=known.source, run_id=run_id, store_version=str(known.version))

    def record_refused(
        self, agent: str, *, job_id: UUID | str, summary: str, metrics: Mapping[str, float], tags: Mapping[str, str]
    ) -> str:
        """See ``ModelStore``. A run of its own beside those of the releases, with the gate's summary as its description."""
        labels = prefixed({**tags, "agent": agent, "job_id": str(job_id), "mlflow.note.content": summary})
        with self._client() as client:
            experiment = _experiment(client, agent)
            query = f"tags.`perennial.job_id` = '{_quotable(str(job_id))}'"
            found = client.search_runs([experiment], filter_string=query, max_results=1)
            run = found[0] if found else client.create_run(experiment, tags=labels, run_name=f"{agent} refused")
            if run.info.status != "FINISHED":
                client.log_batch(run.info.run_id, metrics=_metrics(metrics))
                client.set_terminated(run.info.run_id)
        return str(run.info.run_id)

    def withdraw(self, agent: str, version: str, digest: str) -> None:
        """See ``ModelStore``. The run stays, marked, so that the job's numbers can still be read."""
        self._numbers.pop((agent, version), None)
        with self._client() as client:
            for found in self._publications(client, agent, version):
                if found.tags.get("perennial.digest") == digest:
                    client.delete_model_version(agent, found.version)
                    client.set_tag(found.run_id, "perennial.withdrawn", "true")

    def exists(self, agent: str, version: str) -> bool:
        """See ``ModelStore``."""
        with self._client() as client:
            return self._publication(client, agent, version) is not None

    def fetch(self, agent: str, version: str, into: Path, *, digest: str | None = None) -> tuple[Path, Path]:
        """See ``ModelStore``."""
        with self._client() as client:
            found = self._publication(client, agent, version, digest)
            if found is None:
                raise RegistryError(
                    f"MLflow at {self._place} has no {agent} {version}; publish it again or restore its backup"
                )
            into.mkdir(parents=True, exist_ok=True, mode=0o700)
            folder = into / _FOLDER
            _download(found.source, self._url, into)
        signature = signature_path(folder)
        if not folder.is_dir() or not signature.is_file():
            raise RegistryError(f"MLflow at {self._place} holds {agent} {version} without its files or signature")
        return folder, signature

    def set_alias(self, agent: str, alias: str, version: str) -> None:
        """See ``ModelStore``."""
        with self._client() as client:
            client.set_registered_model_alias(agent, alias, self._number(client, agent, version))

    def clear_alias(self, agent: str, alias: str) -> None:
        """See ``ModelStore``."""
        with self._client() as client:
            if alias in _raw_aliases(client, agent):
                client.delete_registered_model_alias(agent, alias)

    def aliases(self, agent: str) -> dict[str, str]:
        """See ``ModelStore``."""
        with self._client() as client:
            return self._aliases(client, agent)

    def align_aliases(self, agent: str, *, champion: str | None, candidate: str | None) -> bool:
        """See ``ModelStore``."""
        wanted = {"champion": champion, "candidate": candidate}
        try:
            with self._client() as client:
                now = _raw_aliases(client, agent)
                for alias, version in wanted.items():
                    if version is None:
                        if alias in now:
                            client.delete_registered_model_alias(agent, alias)
                        continue
                    number = self._number(client, agent, version)
                    if now.get(alias) != number:
                        client.set_registered_model_alias(agent, alias, number)
        except RegistryError as error:
            logger.warning("MLflow's aliases of %s do not follow the ledger yet: %s", agent, error)
            return False
        return True

    def remove(self, agent: str, version: str, digest: str) -> None:
        """See ``ModelStore``. Files first, so that a repeat after a kill still finds version and run by their tags."""
        self._numbers.pop((agent, version), None)
        with self._client() as client:
            experiment = client.get_experiment_by_name(agent)
            run = None if experiment is None else _run_of(client, experiment.experiment_id, digest)
            if run is not None:
                _delete_artifacts(run.info.artifact_uri, self._url)
            for found in self._publications(client, agent, version):
                if found.tags.get("perennial.digest") == digest:
                    for tag in _LONG_TAGS:
                        if tag in found.tags:
                            client.delete_model_version_tag(agent, found.version, tag)
                    client.delete_model_version(agent, found.version)
            if run is not None:
                _delete_run(client, run.info.run_id)

    def old_runs(self, agent: str, before: datetime) -> tuple[str, ...]:
        """See ``ModelStore``."""
        with self._client() as client:
            experiment = client.get_experiment_by_name(agent)
            if experiment is None:
                return ()
            aged = f"attributes.start_time < {int(before.timestamp() * 1000)}"
            kinds = (f"attributes.run_name = '{_quotable(agent)} refused'", "tags.`perennial.withdrawn` = 'true'")
            found = [
                run.info.run_id
                for kind in kinds
                for run in _pages(client, experiment.experiment_id, f"{kind} and {aged}")
            ]
        return tuple(dict.fromkeys(found))

    def forget_run(self, agent: str, run_id: str) -> None:
        """See ``ModelStore``."""
        with self._client() as client:
            run = client.get_run(run_id)
            if run.info.lifecycle_stage != "deleted":
                _delete_artifacts(run.info.artifact_uri, self._url)
                _delete_run(client, run_id)

    def erase(self, agents: Sequence[str]) -> str:
        """See ``ModelStore``.

        A run that is deleted through the API stays in MLflow's database until it is collected there. `mlflow gc` would collect deleted
        experiments of others too, so exactly our runs are erased, by the call that it makes; that needs MLflow's database, which a
        remote server's users rarely reach.
        """
        from mlflow.entities import ViewType

        with self._client() as client:
            experiments = [client.get_experiment_by_name(agent) for agent in agents]
            found = [
                run.info.run_id
                for experiment in experiments
                if experiment is not None
                for run in _pages(
                    client, experiment.experiment_id, f"tags.`{_REMOVED}` = 'true'", ViewType.DELETED_ONLY
                )
            ]
            if not found:
                return ""
            if self._backend is None:
                return (
                    f"{len(found)} deleted runs stay as rows in MLflow's database; set PERENNIAL_RETENTION_MLFLOW_BACKEND to its URI, "
                    "or run `mlflow gc` where it is reached"
                )
            _erase(self._backend, found)
        return ""

    def links(self, agent: str, version: str) -> dict[str, str]:
        """See ``ModelStore``; empty too when MLflow is not reached by HTTP, since there are no pages then."""
        if not self._shown.startswith(("http://", "https://")):
            return {}
        with self._client() as client:
            found = self._publication(client, agent, version)
            if found is None:
                return {}
            experiment = client.get_run(found.run_id).info.experiment_id
        return {
            "run_url": f"{self._shown}/#/experiments/{experiment}/runs/{found.run_id}",
            "version_url": f"{self._shown}/#/models/{agent}/versions/{found.version}",
        }

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """MLflow's client, with whatever goes wrong inside told as a RegistryError."""
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"  # defaults to true, and no bundle needs it
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from requests.exceptions import RequestException

        try:
            yield MlflowClient(tracking_uri=self._url, registry_uri=self._url)
        except RequestException as error:
            raise RegistryError(f"MLflow at {self._place} is away ({type(error).__name__}); try again") from self._told(
                error
            )
        except MlflowException as error:
            raise RegistryError(
                f"MLflow at {self._place} refused ({error.error_code}); its log has the details"
            ) from self._told(error)

    def _told(self, error: Exception) -> Exception | None:
        """The cause for tracebacks, which end in logs; none when there is a login, since MLflow's own words quote the URL."""
        return error if self._shown == self._url else None

    def _number(self, client: Any, agent: str, version: str) -> str:
        if (agent, version) not in self._numbers:
            found = self._publication(client, agent, version)
            if found is None:
                raise RegistryError(f"MLflow at {self._place} has no {agent} {version}")
            self._numbers[(agent, version)] = (str(found.version), found.run_id)
        return self._numbers[(agent, version)][0]

    def _publication(self, client: Any, agent: str, version: str, digest: str | None = None) -> Any:
        found = self._publications(client, agent, version)
        fitting = [item for item in found if digest is None or item.tags.get("perennial.digest") == digest]
        return fitting[0] if fitting else None

    def _publications(self, client: Any, agent: str, version: str) -> list[Any]:
        query = f"name = '{_quotable(agent)}' and tags.`perennial.version` = '{_quotable(version)}'"
        return sorted(client.search_model_versions(query), key=lambda item: int(item.version))

    def _aliases(self, client: Any, agent: str) -> dict[str, str]:
        numbers = _raw_aliases(client, agent)
        return {
            alias: client.get_model_version(agent, number).tags.get("perennial.version", "")
            for alias, number in numbers.items()
        }


def _quotable(text: str) -> str:
    if not all(sign.isalnum() or sign in "._-" for sign in text):
        raise RegistryError(f"{text[:48]!r} is not a name of an agent or version")
    return text


def _experiment(client: Any, name: str) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _run_of(client: Any, experiment: str, digest: str) -> Any:
    runs = client.search_runs(
        [experiment], filter_string=f"tags.`perennial.digest` = '{_quotable(digest)}'", max_results=1
    )
    return runs[0] if runs else None


def _create_version(client: Any, manifest: Manifest, source: str, run_id: str, tags: Mapping[str, str]) -> Any:
    from mlflow.exceptions import MlflowException

    def create() -> Any:
        return client.create_model_version(
            manifest.agent, source, run_id, tags=dict(tags), description=_description(manifest), await_creation_for=0
        )

    try:
        return create()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    try:
        client.create_registered_model(
            manifest.agent, description=f"Releases of the agent {manifest.agent} by Perennial"
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    return create()


def _description(manifest: Manifest) -> str:
    origin = f"from {manifest.base_version}" if manifest.base_version else "first version"
    return (
        f"{manifest.version}, {origin}: {manifest.examples.count} examples ({manifest.reason}, {manifest.mode}), "
        f"gate {manifest.gate_action}"
    )


def _metrics(metrics: Mapping[str, float]) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(name, value, now, 0) for name, value in finite(metrics).items()]


def _params(params: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(name, str(value)[:500]) for name, value in sorted(params.items())][:100]


def _upload(artifact_uri: str, url: str, bundle: Path, signature: Path) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = get_artifact_repository(artifact_uri, tracking_uri=url)
    place.log_artifacts(str(bundle), _FOLDER)
    named = signature_path(bundle.with_name(_FOLDER)).name
    if signature.name == named:
        place.log_artifact(str(signature))
        return
    import tempfile

    with tempfile.TemporaryDirectory() as room:
        copy = Path(room) / named
        copy.write_bytes(signature.read_bytes())
        place.log_artifact(str(copy))


def _download(source: str, url: str, into: Path) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    root = source.removesuffix(f"/{_FOLDER}")
    place = get_artifact_repository(root, tracking_uri=url)
    place.download_artifacts(_FOLDER, str(into))
    place.download_artifacts(f"{_FOLDER}.sig", str(into))


def _delete_artifacts(artifact_uri: str, url: str) -> None:
    """A run's files; through the tracking server where it serves them, else with this process's rights to their store."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(artifact_uri, tracking_uri=url).delete_artifacts()


def _delete_run(client: Any, run_id: str) -> None:
    client.set_tag(run_id, _REMOVED, "true")
    client.delete_run(run_id)


def _pages(client: Any, experiment: str, query: str, view: int | None = None) -> Iterator[Any]:
    from mlflow.entities import ViewType

    token = None
    while True:
        page = client.search_runs(
            [experiment], query, run_view_type=view or ViewType.ACTIVE_ONLY, max_results=500, page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _erase(backend: str, runs: Sequence[str]) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(backend, "mlflow-artifacts:/")
    for run_id in runs:
        if store.get_run(run_id).info.lifecycle_stage == "deleted":  # nobody restored it meanwhile
            store._hard_delete_run(run_id)


def _raw_aliases(client: Any, agent: str) -> dict[str, str]:
    from mlflow.exceptions import MlflowException

    try:
        return {alias: str(number) for alias, number in client.get_registered_model(agent).aliases.items()}
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise
