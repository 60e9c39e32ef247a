"""A release travels: verified with the sender's key, judged on the receiver's holdout, signed anew, byte for byte the same weights."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from perennial.domain.example import Example
from perennial.domain.origin import RELEASED
from perennial.domain.words import JobStatus, State
from perennial.errors import NotConfigured, RegistryError, UnknownLabel, UntrustedBundle
from perennial.fleet import loader
from perennial.flows import carry, fleet_sync, rollout
from perennial.flows.champion import bundle_folder
from perennial.flows.reproduce import reproduce
from perennial.ingest.memory import MemoryAdmission, MemoryBuffer
from perennial.ingest.memory_job_log import MemoryJobLog
from perennial.registry import archive
from perennial.registry.bundle import content_digest
from perennial.registry.manifest import Manifest
from tests.contract.test_stores import accept
from tests.unit.flows.desk import Desk
from tests.unit.registry.samples import Keys

# a trainer whose component says how often it is right; nothing of it is ever trained here
FLEET = """
import json
from dataclasses import dataclass
from typing import ClassVar
from perennial.domain.model import Prediction
from perennial.fleet import Agent, Gates, Task


class Fixed:
    def __init__(self, record):
        self._record = record

    def predict(self, texts):
        answer = lambda text: "world" if ("world" in text) == self._record["right"] else "sports"
        return [Prediction(output=answer(text), confidence=0.9, scores={{"world": 0.5, "sports": 0.5}}) for text in texts]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    key: ClassVar[str] = "ewc_text.v1"

    def fit(self, batch, start, out, *, seed, bench):
        raise AssertionError("an import never trains")

    def load(self, path, bench):
        return Fixed(json.loads((path / "component.json").read_text()))


AGENT = Agent(name="{name}", owner="tests", trainer=Trainer(), tasks=(Task(name="news"{labels}),),
              gates=Gates(min_holdout=20, stress_rows=0))
"""


class Bases:
    """The encoders of one deployment, by digest."""

    def __init__(self) -> None:
        self.known: dict[str, Path] = {}

    def put(self, folder: Path) -> str:
        self.known["e" * 64] = folder
        return "e" * 64

    def path(self, digest: str) -> Path:
        if digest not in self.known:
            raise UntrustedBundle("not in the store")
        return self.known[digest]


class Deployment(Desk):
    """A desk with rows, a holdout and a trainer that only loads."""

    def __init__(self, room: Path, keys: Keys, *, labels: str = "", name: str = "scout") -> None:
        room.mkdir()
        super().__init__(room, keys)
        fleet = room / "fleet"
        (fleet / "scout.py").write_text(FLEET.format(name=name, labels=labels))
        self.bases = Bases()
        buffer = self.ports.buffer
        settings = self.ports.settings.model_copy(update={"trusted_senders": room / "trusted"})
        self.ports = replace(
            self.ports,
            fleet=partial(loader.load, fleet),
            bases=self.bases,
            jobs=MemoryJobLog(buffer),
            settings=settings,
        )
        (room / "trusted").mkdir()
        fleet_sync.sync(self.ports)

    def trust(self, name: str, keys: Keys) -> None:
        (self.room / "trusted" / f"{name}.pub").write_bytes(keys.public.read_bytes())

    def fill(self, rows: int = 400) -> None:
        buffer = self.ports.buffer
        buffer.sync_agents(
            [{**fleet_sync.record_of(self.ports.fleet().members[0], self.ports.settings), "holdout_share": 0.3}]
        )
        labels = ("world", "sports")
        buffer.add_many(
            [
                Example(
                    agent="scout", task="news", input_text=f"{labels[n % 2]} story {uuid4()}", expected_output=labels[n % 2],
                    uncertainty=0.5,
                )
                for n in range(rows)
            ]
        )  # fmt: skip
        MemoryAdmission(buffer).run("scout", accept)

    def release(self, *, right: bool = True, labels: tuple[str, ...] = ("sports", "world")) -> str:
        """A first version that the gates passed, as its training would have made it."""
        from perennial.flows.train.register import require_permission
        from perennial.registry.release import make_release
        from tests.unit.registry.samples import PASSWORD, components, manifest

        ref = self.claim(f"run-{uuid4()}")
        place = components(self.room / uuid4().hex, tasks=("news",))
        file = place / "tasks" / "news" / "component.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "labels": list(labels), "right": right}))
        digest = content_digest(place)
        report = {"action": "pass", "summary": "passes", "verdicts": []}
        self.ledger.add_gate_report(
            agent="scout", job_id=ref.job_id, attempt=ref.attempt, content_digest=digest, action="pass", report=report
        )
        permission = require_permission(self.ports, ref, digest)
        base = self.ledger.champion("scout")
        made = make_release(
            ledger=self.ledger, store=self.ports.models, agent="scout", job_id=ref.job_id, part="minor", tasks=place / "tasks",
            describe=lambda version, order: manifest(
                place, version=version, order=order, job_id=str(ref.job_id), base_version=base, permission=permission.as_dict()
            ),
            gate_report=report, out=self.room / uuid4().hex, key_file=self.keys.private, password=PASSWORD, tags={},
        )  # fmt: skip
        encoder = self.room / "encoder"
        encoder.mkdir(exist_ok=True)
        (encoder / "model.safetensors").write_bytes(b"an encoder")
        self.bases.put(encoder)
        self.ports.buffer.finish(ref.job_id, ref.attempt, JobStatus.COMPLETED, version=made.version)
        return made.version

    def bring(self, file: Path, **more: Any) -> carry.Brought:
        return carry.bring(self.ports, file, actor="ana", why="accepted on staging", **more)


@pytest.fixture
def sender(tmp_path: Path, keys: Keys) -> Deployment:
    return Deployment(tmp_path / "sender", keys)


@pytest.fixture(scope="session")
def our_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys.make(tmp_path_factory.mktemp("ours"))


@pytest.fixture
def receiver(tmp_path: Path, our_keys: Keys, keys: Keys) -> Deployment:
    made = Deployment(tmp_path / "receiver", our_keys)
    made.trust("staging", keys)
    return made


@pytest.fixture
def file(sender: Deployment, tmp_path: Path) -> Path:
    out = tmp_path / "scout.tar"
    carry.export(sender.ports, "scout", sender.release(), out, actor="bo")
    return out


@pytest.mark.req("K69")
def test_a_release_is_judged_signed_and_rolled_out_here_with_the_same_weights(
    sender: Deployment, receiver: Deployment, file: Path
) -> None:
    receiver.fill()
    before = receiver.ports.buffer.counts("scout")
    done = receiver.bring(file)
    assert (done.version, done.origin, done.sender, done.action) == ("1.0.0", "1.0.0", "staging", "pass")
    there, here = (bundle_folder(one.ports, "scout", "1.0.0") for one in (sender, receiver))
    assert content_digest(here) == content_digest(there)  # every byte of the components
    manifest = Manifest.read(here)
    row = sender.ledger.version("scout", "1.0.0")
    assert row is not None
    assert dict(manifest.origin) == {"digest": row.digest, "version": "1.0.0", "sender": "staging"}
    ours = receiver.ledger.version("scout", "1.0.0")
    assert ours is not None
    assert ours.digest != row.digest  # judged and signed anew
    assert receiver.ports.buffer.counts("scout") == before  # nothing was trained on, every row waits as before
    assert receiver.bases.path("e" * 64)
    ref = rollout.verify(receiver.ports, "scout", "rollout-1")
    assert ref is not None
    assert ref["version"] == "1.0.0"
    assert [one.action for one in receiver.ports.audit.entries() if one.actor == "ana"] == ["bundle_imported"]
    assert [one.action for one in sender.ports.audit.entries() if one.actor == "bo"] == ["bundle_exported"]
    assert "imported" in reproduce(receiver.ports, "scout", "1.0.0").reasons[0]


def test_imported_again_it_is_the_same_version(receiver: Deployment, file: Path) -> None:
    receiver.fill()
    assert receiver.bring(file).version == receiver.bring(file).version == "1.0.0"
    assert len(receiver.ledger.versions("scout")) == 1


def test_our_gates_hold_what_is_wrong_on_our_holdout_and_our_rows_are_not_to_blame(
    sender: Deployment, receiver: Deployment, tmp_path: Path
) -> None:
    out = tmp_path / "bad.tar"
    carry.export(sender.ports, "scout", sender.release(right=False), out, actor="bo")
    receiver.fill()
    before = receiver.ports.buffer.counts("scout")
    done = receiver.bring(out)
    assert (done.version, done.action) == (None, "hold")
    assert receiver.ledger.versions("scout") == ()
    assert receiver.ports.buffer.counts("scout") == before


@pytest.mark.req("J49", "K69")
@pytest.mark.parametrize("fate", ["passes", "is held", "fails"])
def test_an_import_uses_up_nothing_that_came_in_with_the_rows_that_wait(
    sender: Deployment, receiver: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: str
) -> None:
    out = tmp_path / "scout.tar"
    carry.export(sender.ports, "scout", sender.release(right=fate != "is held"), out, actor="bo")
    receiver.fill()
    assert isinstance(receiver.ports.buffer, MemoryBuffer)
    rows = receiver.ports.buffer.state.rows
    let_go = next(row for row in rows if not row.holdout)
    let_go.reason, let_go.refusals = RELEASED, 1  # a person let it train again
    with monkeypatch.context() as patch:
        if fate == "fails":
            patch.setattr(carry, "gate", lambda *_: (_ for _ in ()).throw(RegistryError("the disk is full")))
            with pytest.raises(RegistryError, match="the disk is full"):
                receiver.bring(out)
        else:
            assert bool(receiver.bring(out).version) is (fate == "passes")
    assert sum(row.holdout for row in rows) > 50
    assert {(row.state, row.job_id, row.attempt) for row in rows} == {(State.READY, None, None)}
    assert (let_go.reason, let_go.refusals) == (RELEASED, 1)


def test_without_a_holdout_of_ours_nothing_is_released(receiver: Deployment, file: Path) -> None:
    done = receiver.bring(file)
    assert done.version is None
    assert done.action in {"hold", "approve"}


def test_a_killed_import_goes_on(receiver: Deployment, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receiver.fill()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(carry, "gate", killed)
        with pytest.raises(KeyboardInterrupt):
            receiver.bring(file)
    assert receiver.bring(file).version == "1.0.0"
    assert list(receiver.ports.work.glob(".import-*")) == []


@pytest.mark.req("K69")
def test_nobody_unknown_and_nothing_changed_comes_in(
    receiver: Deployment, file: Path, tmp_path: Path, keys: Keys
) -> None:
    receiver.fill()
    (receiver.room / "trusted" / "staging.pub").unlink()
    with pytest.raises(NotConfigured, match="TRUSTED_SENDERS"):
        receiver.bring(file)
    receiver.trust("somebody", Keys.make(tmp_path / "other"))
    with pytest.raises(UntrustedBundle, match="no trusted sender"):
        receiver.bring(file)
    receiver.trust("staging", keys)
    content = file.read_bytes()
    where = content.index(b"head.safetensors") + 600
    file.write_bytes(content[:where] + bytes([content[where] ^ 1]) + content[where + 1 :])
    with pytest.raises(UntrustedBundle):
        receiver.bring(file)
    assert receiver.ledger.versions("scout") == ()


def test_another_agent_or_labels_that_nobody_knows_here_are_refused(
    receiver: Deployment, file: Path, tmp_path: Path, keys: Keys, our_keys: Keys
) -> None:
    with pytest.raises(UntrustedBundle, match="not analyst"):
        receiver.bring(file, agent="analyst")
    other = Deployment(tmp_path / "other", our_keys, name="analyst")
    other.trust("staging", keys)
    with pytest.raises(NotConfigured, match="scout"):
        other.bring(file)
    closed = Deployment(tmp_path / "closed", our_keys, labels=', labels=("sports", "weather")')
    closed.trust("staging", keys)
    with pytest.raises(UnknownLabel, match="1 labels"):
        closed.bring(file)
    with pytest.raises(RegistryError, match="a reason"):
        carry.bring(receiver.ports, file, actor="ana", why=" ")


# the file itself


def _entry(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, len(content) if kind == tarfile.REGTYPE else 0
    return entry, content


def _tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for entry, content in entries:
            tar.addfile(entry, io.BytesIO(content))
    return path


HOSTILE: dict[str, Callable[[], list[tuple[tarfile.TarInfo, bytes]]]] = {
    "climbs out": lambda: [_entry("bundle/../../out.json")],
    "absolute": lambda: [_entry("/tmp/out.json")],
    "hidden": lambda: [_entry("bundle/.git/config")],
    "symlink": lambda: [_entry("bundle/a.json", kind=tarfile.SYMTYPE, link="/etc/passwd")],
    "hard link": lambda: [_entry("bundle/a.json", kind=tarfile.LNKTYPE, link="header.json")],
    "device": lambda: [_entry("bundle/a.json", kind=tarfile.CHRTYPE)],
    "folder": lambda: [_entry("bundle/a", kind=tarfile.DIRTYPE)],
    "twice": lambda: [_entry("header.json", b"{}"), _entry("header.json", b"{}")],
    "not ours": lambda: [_entry("run.sh")],
    "too large": lambda: [_entry("bundle/a.json", b"x" * 3_000)],
    "no header": lambda: [_entry("bundle/a.json")],
    "odd header": lambda: [_entry("header.json", b'{"agent": 1}'), _entry("bundle.sig")],
}


@pytest.mark.req("K69")
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_and_writes_nothing_outside(tmp_path: Path, case: str) -> None:
    room = tmp_path / "room"
    room.mkdir()
    path = _tar(tmp_path / "x.tar", *HOSTILE[case]())
    with pytest.raises(UntrustedBundle):
        archive.unpack(path, room, most_bytes=2_000)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["room", "x.tar"]
    assert not any(one.is_symlink() for one in room.rglob("*"))


def test_a_compressed_file_is_no_archive_of_ours(tmp_path: Path) -> None:
    path = _tar(tmp_path / "x.tar", _entry("header.json", b"{}" + b" " * 1_000_000), mode="w:gz")
    with pytest.raises(UntrustedBundle, match="no archive"):
        archive.unpack(path, tmp_path / "room")


def test_an_encoder_that_is_not_the_one_named_is_refused(receiver: Deployment, file: Path) -> None:
    receiver.fill()
    receiver.ports = replace(
        receiver.ports,
        bases=SimpleNamespace(path=Bases().path, put=lambda folder: "f" * 64),  # type: ignore[arg-type]
    )
    with pytest.raises(UntrustedBundle, match="encoder"):
        receiver.bring(file)
