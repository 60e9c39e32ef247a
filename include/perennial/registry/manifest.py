"""What a release says about itself: from which rows, settings and code it was made, and what was decided about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from perennial.domain.model import SemanticVersion
from perennial.domain.words import GateAction
from perennial.errors import IncompleteManifest, UntrustedBundle
from perennial.registry.recipe import ROWS, Recipe, Rows, rows_from_bytes

FORMAT = 1
NAME = "manifest.json"
EXAMPLES = "examples.json"
_ASIDE = frozenset({"ids", "rows"})  # in files of their own
_OPTIONAL = frozenset({"base_version", "permission", "overrides", "origin", *_ASIDE})


@dataclass(frozen=True, kw_only=True, slots=True)
class IdSet:
    """Example ids by their number and the sha256 (hex) of the sorted ids, one per line."""

    count: int
    digest: str

    @classmethod
    def of(cls, ids: Sequence[str]) -> IdSet:
        """Count and digest of some ids.

        >>> IdSet.of(["b", "a"]) == IdSet.of(["a", "b"])
        True
        """
        return cls(count=len(ids), digest=hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest())


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The record of one release; every field but ``ids`` and ``rows`` is written to ``manifest.json`` inside the signature.

    ``order`` is monotonic over all releases, so an older signed bundle cannot pass as a newer one. ``encoders`` maps
    a task to the digest of the encoder that its head was trained on (encoders are stored once, outside the bundle).
    ``environment`` holds library versions, ``image`` and ``dag_bundle_version``. ``ids`` go to ``examples.json``.
    ``recipe`` (a ``Recipe`` as plain JSON) and ``rows`` (``rows.json``) say how to make the release again; releases from
    before ADR 9 have neither and can still be read.
    ``overrides`` are the settings that a person had set for a while when the job was claimed, each beside what the file said.
    ``origin`` names digest, version and sender of a release that another deployment made (``flows.carry``); such a one has no recipe.
    ``permission`` says which verdict and which approvals let it be registered; empty in releases from before it was.
    """

    agent: str
    version: str
    base_version: str | None
    order: int
    job_id: str
    reason: str
    mode: str
    examples: IdSet
    replayed: IdSet
    holdout: IdSet
    seed: int
    settings: Mapping[str, Any]
    trainers: Mapping[str, Any]
    labels: Mapping[str, Sequence[str]]
    encoders: Mapping[str, str]
    metrics: Mapping[str, float]
    environment: Mapping[str, str]
    code_digest: str
    fleet_file_digest: str
    content_digest: str
    gate_action: str
    gate_report_digest: str = ""  # filled by ``bundle.assemble``
    created_at: str = ""
    format: int = FORMAT
    recipe: Mapping[str, Any] = field(default_factory=dict)
    permission: Mapping[str, Any] = field(default_factory=dict)
    overrides: Sequence[Mapping[str, Any]] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    ids: Mapping[str, Sequence[str]] = field(default_factory=dict, repr=False, compare=False)
    rows: Rows = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def build(
        cls, *, examples: Sequence[str], replayed: Sequence[str], holdout: Sequence[str], components: Path, **known: Any
    ) -> Manifest:  # fmt: skip
        """A manifest from lists of ids and the folder of trained components (one ``component.json`` per task).

        Labels, trainers and encoders are read from the components, so they cannot differ from what is shipped. The
        clock is read here, once.
        """
        records = {path.name: _component(path) for path in sorted(components.iterdir()) if path.is_dir()}
        return cls(
            examples=IdSet.of(examples), replayed=IdSet.of(replayed), holdout=IdSet.of(holdout),
            ids={"new": sorted(examples), "replay": sorted(replayed), "holdout": sorted(holdout)},
            labels={task: tuple(record["labels"]) for task, record in records.items()},
            trainers={task: record["trainer"] for task, record in records.items()},
            encoders={task: record["encoder"]["digest"] for task, record in records.items()},
            created_at=datetime.now(UTC).isoformat(timespec="milliseconds"), **known,
        )  # fmt: skip

    def missing(self) -> list[str]:
        """Names of the fields that a release must have and this one has not.

        ``base_version`` may be absent in X.0.0 only: where nothing serves, what comes is a major version (1.0.0, or 2.0.0 when
        1.0.0 never came to serve); what may truly be empty (a label map of a score task, nothing replayed) is not missing.
        """
        found = [
            item.name
            for item in fields(self)
            if item.name not in _OPTIONAL
            and not (item.name == "recipe" and self.origin)
            and getattr(self, item.name) in (None, "", {}, ())
        ]
        if self.base_version is None and not self.version.endswith(".0.0"):
            found.append("base_version")
        if self.examples.count < 1:
            found.append("examples")
        found += [f"encoders.{task}" for task in self.trainers if not self.encoders.get(task)]
        found += [f"environment.{name}" for name in ("image", "dag_bundle_version") if name not in self.environment]
        return found

    def check_complete(self) -> None:
        """Raise IncompleteManifest, naming every missing or malformed field."""
        wrong = self.missing()
        try:
            SemanticVersion.parse(self.version)
            GateAction(self.gate_action)
        except ValueError as error:
            wrong.append(str(error))
        if self.order < 1:
            wrong.append("order")
        if self.gate_action == GateAction.APPROVE and not self.permission.get("approvals"):
            wrong.append("permission.approvals")
        if wrong:
            raise IncompleteManifest(
                f"the release record of {self.agent or 'an unnamed agent'} lacks {', '.join(wrong)}; "
                "nothing is published without them, run the job again"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, without the ids and rows themselves."""
        record = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in _ASIDE}
        for name in ("examples", "replayed", "holdout"):
            record[name] = asdict(record[name])
        record["overrides"] = [dict(one) for one in self.overrides]
        record["labels"] = {task: list(labels) for task, labels in self.labels.items()}
        return {key: dict(value) if isinstance(value, Mapping) else value for key, value in record.items()}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], ids: Mapping[str, Sequence[str]] | None = None) -> Manifest:
        """Inverse of ``as_dict``; UntrustedBundle when it is not such a record."""
        try:
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']!r}")
            given = dict(value)
            for name in ("examples", "replayed", "holdout"):
                given[name] = IdSet(**given[name])
            given["overrides"] = tuple(given.get("overrides", ()))
            given["labels"] = {task: tuple(labels) for task, labels in given["labels"].items()}
            return cls(**given, ids=dict(ids or {}))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UntrustedBundle(
                f"the manifest is not readable ({type(error).__name__}); fetch the version again"
            ) from error

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """The manifest of an assembled bundle, with its ids; UntrustedBundle when files are absent or disagree."""
        try:
            ids = json.loads((folder / EXAMPLES).read_text(encoding="utf-8"))
            found = cls.from_dict(json.loads((folder / NAME).read_text(encoding="utf-8")), ids)
        except (OSError, ValueError) as error:
            raise UntrustedBundle(
                f"the manifest of {folder.name!r} is not readable ({type(error).__name__}); fetch the version again"
            ) from error
        for name, part in (("examples", "new"), ("replayed", "replay"), ("holdout", "holdout")):
            if getattr(found, name) != IdSet.of(ids.get(part, ())):
                raise UntrustedBundle(
                    f"the {name} ids of {folder.name!r} do not match the manifest; fetch the version again"
                )
        return replace(found, rows=_rows(folder, found)) if found.recipe else found


def _rows(folder: Path, manifest: Manifest) -> Rows:
    """The rows beside a manifest, when they are the ones that it names."""
    try:
        content = (folder / ROWS).read_bytes()
        known = Recipe.from_dict(manifest.recipe).rows_digest
        rows = rows_from_bytes(content)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UntrustedBundle(
            f"the rows of {folder.name!r} are not readable ({type(error).__name__}); fetch the version again"
        ) from error
    if hashlib.sha256(content).hexdigest() != known:
        raise UntrustedBundle(f"the rows of {folder.name!r} do not match the manifest; fetch the version again")
    return rows


def _component(folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((folder / "component.json").read_text(encoding="utf-8"))
    lost = [name for name in ("labels", "trainer", "encoder") if name not in record]
    if lost:
        raise IncompleteManifest(f"the component {folder.name!r} does not say its {', '.join(lost)}; train it again")
    return record
