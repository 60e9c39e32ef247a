"""A bundle is complete or absent, says what it holds, and holds nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest

from perennial.errors import IncompleteManifest, RegistryError, UntrustedBundle, VersionExists
from perennial.registry.bundle import assemble, bundle_digest, check_bundle, content_digest
from perennial.registry.files import listing, private_copy
from perennial.registry.manifest import IdSet, Manifest
from tests.unit.registry.samples import REPORT, Made, components, manifest


def test_a_bundle_holds_what_the_design_names(made: Made) -> None:
    assert listing(made.folder) == (
        "MLmodel", "examples.json", "gate_report.json", "manifest.json", "rows.json", "tasks/news/component.json",
        "tasks/news/fisher.safetensors", "tasks/news/head.safetensors", "tasks/quality/component.json",
        "tasks/quality/fisher.safetensors", "tasks/quality/head.safetensors",
    )  # fmt: skip
    record = json.loads((made.folder / "manifest.json").read_text())
    assert record["examples"] == {"count": 3, "digest": IdSet.of(["a", "b", "c"]).digest}
    assert "ids" not in record
    assert json.loads((made.folder / "examples.json").read_text()) == {
        "new": ["a", "b", "c"], "replay": ["d"], "holdout": ["x", "y"],
    }  # fmt: skip
    assert record["labels"] == {"news": ["sports", "world"], "quality": []}
    assert record["encoders"] == {"news": "e" * 64, "quality": "e" * 64}
    assert check_bundle(made.folder) == Manifest.from_dict(record)


@pytest.mark.req("K2", "K58")
def test_digests_depend_on_names_and_bytes_alone(made: Made, tmp_path: Path) -> None:
    copy = private_copy(made.folder, tmp_path / "copy")
    assert bundle_digest(copy) == bundle_digest(made.folder) == made.digest
    assert content_digest(copy) == content_digest(made.folder) == made.manifest.content_digest
    os.utime(copy / "MLmodel", (1, 1))
    (copy / "tasks/news/head.safetensors").chmod(0o400)
    assert bundle_digest(copy) == made.digest
    (copy / "tasks/news").rename(copy / "tasks/tone")
    assert bundle_digest(copy) != made.digest
    assert content_digest(copy) != made.manifest.content_digest


MAY_BE_EMPTY = {
    "origin",
    "ids",
    "rows",
    "base_version",
    "format",
    "replayed",
    "holdout",
    "gate_report_digest",
    "permission",
    "overrides",
}


@pytest.mark.req("K30")
@pytest.mark.parametrize("name", [item.name for item in fields(Manifest) if item.name not in MAY_BE_EMPTY])
def test_a_missing_field_is_named_and_nothing_is_made(name: str, tmp_path: Path) -> None:
    candidate = components(tmp_path / "candidate")
    whole = manifest(candidate)
    hollow = {"order": 0, "examples": IdSet(count=0, digest=""), "seed": None}
    empty = hollow[name] if name in hollow else type(getattr(whole, name))()
    with pytest.raises(IncompleteManifest, match=name.rstrip("s")):
        assemble(candidate / "tasks", replace(whole, **{name: empty}), REPORT, tmp_path / "release")  # type: ignore[arg-type]
    assert not (tmp_path / "release").exists()


def test_only_a_first_version_has_no_base(tmp_path: Path) -> None:
    candidate = components(tmp_path / "candidate")
    cases: tuple[tuple[str, str | None, list[str]], ...] = (
        ("1.0.0", None, []), ("2.0.0", None, []), ("1.0.1", None, ["base_version"]), ("1.1.0", None, ["base_version"]),
        ("1.0.1", "1.0.0", []),
    )  # fmt: skip
    for version, base, missing in cases:
        record = manifest(candidate, version=version, base_version=base, gate_report_digest="d" * 64)
        assert record.missing() == missing


@pytest.mark.parametrize(
    "change",
    [
        {"version": "1.0"},
        {"gate_action": "maybe"},
        {"order": -1},
        {"gate_action": "approve"},  # without saying who approved
        {"gate_action": "approve", "permission": {"approvals": []}},
    ],
)
def test_malformed_fields_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(IncompleteManifest):
        manifest(components(tmp_path / "candidate"), **change).check_complete()


def test_components_that_changed_after_the_verdict_are_not_released(tmp_path: Path) -> None:
    candidate = components(tmp_path / "candidate")
    judged = manifest(candidate)
    (candidate / "tasks/news/head.safetensors").write_bytes(b"other")
    with pytest.raises(RegistryError, match="changed after they were judged"):
        assemble(candidate / "tasks", judged, REPORT, tmp_path / "release")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["candidate"]  # nothing half made is left


@pytest.mark.req("D10")
def test_a_repeat_returns_the_bundle_that_is_there_and_another_release_is_refused(tmp_path: Path) -> None:
    candidate = components(tmp_path / "candidate")
    first = manifest(candidate)
    out = assemble(candidate / "tasks", first, REPORT, tmp_path / "release")
    digest = bundle_digest(out)
    again = replace(first, order=9, created_at="later")
    assert assemble(candidate / "tasks", again, REPORT, out) == out
    assert bundle_digest(out) == digest
    assert Manifest.read(out).order == 1
    with pytest.raises(VersionExists):
        assemble(candidate / "tasks", replace(first, version="1.0.0", job_id="other"), REPORT, out)


def _link(folder: Path) -> None:
    (folder / "tasks/news/other.json").symlink_to("component.json")


def _linked_folder(folder: Path) -> None:
    (folder / "tasks/more").symlink_to(folder / "tasks/news", target_is_directory=True)


PLANTS: dict[str, Callable[[Path], object]] = {
    "git folder": lambda folder: ((folder / ".git").mkdir(), (folder / ".git/config.json").write_text("{}")),
    "gitignore": lambda folder: (folder / ".gitignore").write_text("*"),
    "python": lambda folder: (folder / "tasks/news/loader.py").write_text("boom()"),
    "pickle": lambda folder: (folder / "tasks/news/head.pkl").write_bytes(b"\x80"),
    "second MLmodel": lambda folder: (folder / "tasks/MLmodel").write_text("{}"),
    "empty folder": lambda folder: (folder / "code").mkdir(),
    "link": _link,
    "linked folder": _linked_folder,
    "pipe": lambda folder: os.mkfifo(folder / "wait.json"),
    "odd name": lambda folder: (folder / "a b.json").write_text("{}"),
    "deep": lambda folder: (folder / "a/b/c/d/e").mkdir(parents=True),
}


@pytest.mark.req("K69")
@pytest.mark.parametrize("what", PLANTS)
def test_nothing_outside_the_closed_list_is_accepted(what: str, made: Made) -> None:
    PLANTS[what](made.folder)
    with pytest.raises(UntrustedBundle):
        listing(made.folder)
    with pytest.raises(UntrustedBundle):
        private_copy(made.folder)


def test_a_private_copy_is_closed_to_others_whatever_the_source_allows(made: Made, tmp_path: Path) -> None:
    (made.folder / "MLmodel").chmod(0o777)
    copy = private_copy(made.folder, tmp_path / "private")
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    assert (copy / "MLmodel").stat().st_mode & 0o777 == 0o600


def test_a_folder_without_tasks_is_no_candidate(tmp_path: Path) -> None:
    with pytest.raises(UntrustedBundle, match="no tasks"):
        content_digest(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", "{}"),
        ("manifest.json", "[1]"),
        ("manifest.json", "not json"),
        ("examples.json", '{"new": ["a", "b", "z"], "replay": ["d"], "holdout": ["x", "y"]}'),
        ("gate_report.json", '{"action": "pass"}'),
        ("tasks/news/component.json", "{}"),
    ],
)
def test_parts_that_do_not_belong_together_are_refused(file: str, content: str, made: Made) -> None:
    (made.folder / file).write_text(content)
    with pytest.raises(UntrustedBundle):
        check_bundle(made.folder)
