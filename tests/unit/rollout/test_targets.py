"""A folder target swaps whole versions under the feet of readers, and goes back to the same bytes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from perennial.errors import RolloutError, UntrustedBundle
from perennial.rollout import targets
from perennial.rollout.machine import Plan
from perennial.rollout.memory import MemoryRollouts
from perennial.rollout.rows import GatewayRow
from perennial.rollout.targets import FolderTarget, GatewayTarget, tree_digest


def _bundle(folder: Path, text: str) -> Path:
    (folder / "tasks" / "topic").mkdir(parents=True)
    (folder / "manifest.json").write_text(f'{{"version": "{text}"}}')
    (folder / "tasks" / "topic" / "weights").write_bytes(text.encode() * 1000)
    return folder


@pytest.fixture
def bundles(tmp_path: Path) -> dict[str, Path]:
    return {version: _bundle(tmp_path / "verified" / version, version) for version in ("1.0.0", "1.0.1")}


@pytest.mark.req("J6", "J91", "S23", "S24", "J101")
def test_rollback_links_back_to_byte_identical_files(tmp_path: Path, bundles: dict[str, Path]) -> None:
    link = tmp_path / "models" / "scout"
    target = FolderTarget(tmp_path / "root", {"SCOUT_MODEL_PATH": str(link)})
    target.point("scout", "1.0.0", bundles["1.0.0"])
    first = target.digest("scout")
    target.point("scout", "1.0.1", bundles["1.0.1"])
    assert (link / "manifest.json").read_text() == '{"version": "1.0.1"}'
    target.point("scout", "1.0.0", bundles["1.0.0"])
    assert target.current("scout") == "1.0.0"
    assert target.digest("scout") == first == tree_digest(bundles["1.0.0"]) == target.digest_of("scout", "1.0.0")


def test_two_writers_that_bring_the_same_version_at_once_both_succeed(
    tmp_path: Path, bundles: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = FolderTarget(tmp_path / "root", {})
    copy, turns = targets._copy, iter([True])

    def slow(source: Path, place: Path) -> None:
        copy(source, place)
        if next(turns, False):
            target.point("scout", "1.0.0", bundles["1.0.0"])  # the other one was faster

    monkeypatch.setattr(targets, "_copy", slow)
    target.point("scout", "1.0.0", bundles["1.0.0"])
    assert (target.current("scout"), target.kept("scout")) == ("1.0.0", ("1.0.0",))
    assert target.digest("scout") == tree_digest(bundles["1.0.0"])


@pytest.mark.req("S23")
def test_a_reader_never_finds_a_missing_or_torn_version(tmp_path: Path, bundles: dict[str, Path]) -> None:
    target = FolderTarget(tmp_path / "root", {})
    target.point("scout", "1.0.0", bundles["1.0.0"])
    link, stop, bad, reads = target.link("scout"), threading.Event(), [], 0

    def read() -> None:
        nonlocal reads
        while not stop.is_set():
            reads += 1
            try:
                folder = link.resolve(strict=True)
                version = (folder / "tasks" / "topic" / "weights").read_bytes()[:5].decode()
                if (folder / "manifest.json").read_text() != f'{{"version": "{version}"}}':
                    bad.append("torn")
            except OSError as error:
                bad.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    for number in range(200):
        version = ("1.0.1", "1.0.0")[number % 2]
        target.point("scout", version, bundles[version])
    stop.set()
    thread.join()
    assert not bad
    assert reads > 200


def test_kept_files_that_changed_are_refused_and_the_link_stays(tmp_path: Path, bundles: dict[str, Path]) -> None:
    target = FolderTarget(tmp_path / "root", {})
    target.point("scout", "1.0.0", bundles["1.0.0"])
    target.point("scout", "1.0.1", bundles["1.0.1"])
    kept = tmp_path / "root" / "scout" / "versions" / "1.0.0" / "tasks" / "topic" / "weights"
    kept.chmod(0o644)
    kept.write_bytes(b"evil")
    with pytest.raises(UntrustedBundle, match="were changed"):
        target.point("scout", "1.0.0", bundles["1.0.0"])
    assert target.current("scout") == "1.0.1"


def test_links_inside_a_bundle_and_names_that_climb_are_refused(tmp_path: Path, bundles: dict[str, Path]) -> None:
    target = FolderTarget(tmp_path / "root", {})
    (bundles["1.0.0"] / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(UntrustedBundle, match="link"):
        target.point("scout", "1.0.0", bundles["1.0.0"])
    for agent, version in (("../scout", "1.0.1"), ("scout", "../../1.0.1"), ("scout", "latest")):
        with pytest.raises(RolloutError):
            target.point(agent, version, bundles["1.0.1"])


def test_real_files_in_the_links_place_are_not_removed(tmp_path: Path, bundles: dict[str, Path]) -> None:
    place = _bundle(tmp_path / "mine", "mine")
    target = FolderTarget(tmp_path / "root", {"SCOUT_MODEL_PATH": str(place)})
    with pytest.raises(RolloutError, match="SCOUT_MODEL_PATH"):
        target.point("scout", "1.0.0", bundles["1.0.0"])
    assert (place / "manifest.json").exists()
    assert target.current("scout") is None


def test_the_gateway_target_waits_for_what_gateways_say(tmp_path: Path) -> None:
    rollouts = MemoryRollouts()
    row = rollouts.open(agent="scout", version="1.0.0", plan=Plan(), run_id="r1")
    target = GatewayTarget(rollouts, wait_seconds=0.2)
    with pytest.raises(RolloutError, match="promote"):
        target.point("scout", "1.0.0", tmp_path)
    rollouts.promote_full(row.id, actor="t", reason="t")
    beat = GatewayRow(instance="a", agent="scout", champion=None, previous=None, candidate=None, weight=0, epoch=0)
    rollouts.heartbeats["a", "scout"] = (rollouts._clock(), beat)
    with pytest.raises(RolloutError, match="do not serve"):
        target.point("scout", "1.0.0", tmp_path)
