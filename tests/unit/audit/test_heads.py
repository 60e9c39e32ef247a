"""Heads outlive the database: signed, in order, never kept twice, and no forged chain is ever signed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import SecretStr

from perennial.audit.chain import Seal, seal_hash
from perennial.audit.heads import HeadFile, Signer, Worth, keep, worth
from perennial.audit.memory import MemoryAuditLog
from perennial.audit.verification import Chain, Kind
from perennial.errors import AuditBroken, NotConfigured
from perennial.flows import sealing
from perennial.registry.keys import make_key_pair
from tests.unit.audit.chains import decisions, sealed

pytestmark = pytest.mark.req("K70")

PASSWORD = "correct horse"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("ours", "theirs"):
        make_key_pair(folder / f"{name}.pem", folder / f"{name}.pub", PASSWORD)
    return folder


def seals(count: int) -> list[Seal]:
    record = sealed(list(decisions(range(1, 10 * count + 1)).values()), 10)
    return [seal for seal, _ in record.batches]


def reader(chain: list[Seal], page: int = 3) -> Callable[[int], list[Seal]]:
    return lambda after: chain[after : after + page]


def test_each_batch_is_kept_once_and_signed(tmp_path: Path, keys: Path) -> None:
    file, chain = tmp_path / "audit" / "heads.jsonl", seals(8)
    signer = Signer(keys / "ours.pem", PASSWORD)
    for upto in (5, 5, 8, 8):
        head = keep(file, reader(chain[:upto]), signer)
        assert head is not None
        assert (head.batch, head.hash, head.rows) == (upto, chain[upto - 1].hash.hex(), 10 * upto)
    assert list(HeadFile(file)) == [(seal.batch, seal.hash) for seal in chain]
    assert file.stat().st_mode & 0o077 == 0
    newest = HeadFile(file).newest()
    assert newest is not None
    assert worth(newest, keys / "ours.pub") is Worth.SIGNED
    assert worth(newest, keys / "theirs.pub") is Worth.FORGED
    for name, wrong in (
        ("hash", "00" * 32),
        ("rows", 79),
        ("last_id", 1),
        ("batch", 9),
        ("sealed_at", ""),
        ("key", "0" * 16),
    ):
        assert worth(replace(newest, **{name: wrong}), keys / "ours.pub") is Worth.FORGED  # type: ignore[arg-type]
    assert worth(newest, None) is Worth.UNCHECKED
    assert worth(replace(newest, signature="", key=""), keys / "ours.pub") is Worth.UNSIGNED


def test_a_line_that_a_kill_left_half_is_written_again(tmp_path: Path) -> None:
    file, chain = tmp_path / "heads.jsonl", seals(4)
    keep(file, reader(chain[:3]), None)
    whole = file.read_bytes()
    for cut in (1, 40, len(whole) - whole.rstrip(b"\n").rfind(b"\n") - 2):
        file.write_bytes(whole[:-cut])
        assert [batch for batch, _ in HeadFile(file)] == [1, 2]
        assert HeadFile(file).newest().batch == 2  # type: ignore[union-attr]
        keep(file, reader(chain[:3]), None)
        assert file.read_bytes() == whole
    file.write_bytes(b'{"batch"')
    keep(file, reader(chain[:3]), None)
    assert file.read_bytes() == whole


def test_writers_at_the_same_time_keep_every_head_once(tmp_path: Path) -> None:
    file, chain, length = tmp_path / "heads.jsonl", seals(40), itertools.count(5)

    def grown(after: int) -> list[Seal]:  # as a database in which others go on sealing
        return chain[: max(next(length), after + 1)][after : after + 3]

    threads = [threading.Thread(target=keep, args=(file, grown, None)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keep(file, reader(chain), None)
    assert list(HeadFile(file)) == [(seal.batch, seal.hash) for seal in chain]


def test_a_chain_that_is_not_the_kept_one_is_neither_signed_nor_sealed(tmp_path: Path) -> None:
    file, chain = tmp_path / "heads.jsonl", seals(6)
    keep(file, reader(chain[:4]), None)
    before = file.read_bytes()
    other = replace(chain[3], total=999)
    loose = replace(chain[4], previous=bytes(32))
    for forged, words in (
        (chain[:3], "cut"),
        ([], "cut"),
        ([*chain[:3], replace(other, hash=seal_hash(other)), *chain[4:]], "rewritten"),
        ([*chain[:4], replace(loose, hash=seal_hash(loose))], "does not follow"),
        ([*chain[:4], replace(chain[4], count=3)], "does not follow"),
        ([*chain[:4], chain[5]], "does not follow"),
    ):
        with pytest.raises(AuditBroken, match=words):
            keep(file, reader(forged), None)
        assert file.read_bytes() == before


@pytest.mark.parametrize("line", ["{}", "[]", "x", '{"batch": "1", "hash": ""}'])
def test_a_damaged_file_is_an_error_that_names_the_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "heads.jsonl"
    keep(file, reader(seals(2)), None)
    whole = file.read_text()
    file.write_text(line + "\n" + whole)
    with pytest.raises(AuditBroken, match="line 1"):
        list(HeadFile(file))
    file.write_text(whole + whole)
    with pytest.raises(AuditBroken, match="out of order"):
        list(HeadFile(file))


def test_a_key_that_cannot_be_used_says_which_setting(tmp_path: Path, keys: Path) -> None:
    for signer in (Signer(tmp_path / "none.pem", PASSWORD), Signer(keys / "ours.pem", "wrong")):
        with pytest.raises(NotConfigured, match="PERENNIAL_SIGNING_KEY_FILE") as caught:
            keep(tmp_path / "heads.jsonl", reader(seals(1)), signer)
        assert "wrong" not in str(caught.value)
    assert list(HeadFile(tmp_path / "heads.jsonl")) == []


class Deployment:
    """What the flow needs of the ports."""

    def __init__(self, home: Path, keys: Path) -> None:
        self.audit = MemoryAuditLog()
        self.settings = SimpleNamespace(
            home=home, signing_key_file=keys / "ours.pem", signing_key_password=SecretStr(PASSWORD),
            verify_key_file=keys / "ours.pub",
        )  # fmt: skip

    def decide(self, count: int) -> None:
        for number in range(count):
            self.audit.append(actor="perennial", action="claimed", agent="scout", subject=str(number))


def test_sealing_may_be_killed_between_the_database_and_the_file(tmp_path: Path, keys: Path) -> None:
    ports = Deployment(tmp_path, keys)
    assert sealing.seal(ports).head is None  # type: ignore[arg-type]
    ports.decide(3)
    ports.audit.seal()  # and killed before the head was kept
    ports.decide(2)
    done = sealing.seal(ports)  # type: ignore[arg-type]
    assert (done.rows, done.head.batch, done.head.rows) == (2, 2, 5)  # type: ignore[union-attr]
    again = sealing.seal(ports)  # type: ignore[arg-type]
    assert (again.rows, again.head) == (0, done.head)
    found = sealing.verify(ports)  # type: ignore[arg-type]
    assert (found.report.sound, found.worth, found.report.compared) == (True, Worth.SIGNED, 2)


def test_a_batch_that_is_sealed_while_verification_begins_is_no_cut(tmp_path: Path, keys: Path) -> None:
    ports = Deployment(tmp_path, keys)
    ports.decide(3)
    sealing.seal(ports)  # type: ignore[arg-type]
    view = ports.audit.chain

    @contextmanager
    def late() -> Iterator[Chain]:
        with view() as chain:
            ports.decide(1)
            sealing.seal(ports)  # type: ignore[arg-type]
            yield chain

    ports.audit.chain = late  # type: ignore[method-assign]
    found = sealing.verify(ports)  # type: ignore[arg-type]
    assert (found.report.sound, found.report.batches) == (True, 1)
    ports.audit.chain = view  # type: ignore[method-assign]
    assert sealing.verify(ports).report.batches == 2  # type: ignore[arg-type]


def test_a_head_of_another_key_is_untrusted(tmp_path: Path, keys: Path) -> None:
    ports = Deployment(tmp_path, keys)
    ports.decide(3)
    ports.settings.signing_key_file = keys / "theirs.pem"
    sealing.seal(ports)  # type: ignore[arg-type]
    found = sealing.verify(ports)  # type: ignore[arg-type]
    assert (found.worth, found.report.findings[0].kind) == (Worth.FORGED, Kind.UNTRUSTED)
