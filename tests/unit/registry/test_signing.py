"""Only the very bytes that were signed, by the right key, as the expected version, are ever accepted."""

from __future__ import annotations

import base64
import json
import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from perennial.errors import RegistryError, UntrustedBundle
from perennial.registry.bundle import bundle_digest
from perennial.registry.files import listing
from perennial.registry.keys import make_key_pair
from perennial.registry.signing import sign, verify, verify_bundle
from tests.unit.registry.samples import PASSWORD, Keys, Made, release

pytestmark = pytest.mark.req("K69")


def test_a_signed_bundle_verifies_as_a_private_copy(made: Made, keys: Keys, tmp_path: Path) -> None:
    copy = verify_bundle(made.folder, made.signature, keys.public, made.row, into=tmp_path / "in")
    assert copy.parent.stat().st_mode & 0o777 == 0o700
    assert bundle_digest(copy) == made.digest
    assert made.signature == made.folder.with_name("release.sig")


def test_one_flipped_bit_in_any_file_is_refused(made: Made, keys: Keys) -> None:
    draw = random.Random(1)
    for path in listing(made.folder):
        file = made.folder / path
        whole = file.read_bytes()
        for _ in range(3):
            place = draw.randrange(len(whole))
            file.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << draw.randrange(8))]) + whole[place + 1 :])
            with pytest.raises(UntrustedBundle):
                verify(made.folder, made.signature, keys.public)
        file.write_bytes(whole)
    verify(made.folder, made.signature, keys.public)


@pytest.mark.parametrize("change", ["extra", "missing", "renamed", "cut", "git", "empty"])
def test_other_files_are_refused(change: str, made: Made, keys: Keys) -> None:
    head = made.folder / "tasks/news/head.safetensors"
    if change == "extra":
        (made.folder / "tasks/news/more.json").write_text("{}")
    elif change == "missing":
        head.unlink()
    elif change == "renamed":
        head.rename(head.with_name("tail.safetensors"))
    elif change == "cut":
        head.write_bytes(head.read_bytes()[:-1])
    elif change == "git":
        (made.folder / ".git").mkdir()
        (made.folder / ".git" / "hook.json").write_text("{}")
    else:
        (made.folder / "tasks/news/extra").mkdir()
    with pytest.raises(UntrustedBundle):
        verify(made.folder, made.signature, keys.public)


def test_a_signature_of_another_key_is_refused(made: Made, tmp_path: Path) -> None:
    other = Keys.make(tmp_path / "other")
    with pytest.raises(UntrustedBundle):
        verify(made.folder, made.signature, other.public)
    forged = sign(made.folder, other.private, PASSWORD)
    with pytest.raises(UntrustedBundle):
        verify(made.folder, forged, Keys.make(tmp_path / "third").public)


def test_another_signed_release_is_refused_in_its_place(made: Made, keys: Keys, tmp_path: Path) -> None:
    newer = release(tmp_path, keys, version="1.0.1", base_version="1.0.0", order=2)
    for given, wanted in ((made, newer), (newer, made)):
        verify(given.folder, given.signature, keys.public)  # well signed
        with pytest.raises(UntrustedBundle, match="not those that were released"):
            verify_bundle(given.folder, given.signature, keys.public, wanted.row)


@pytest.mark.parametrize("change", [{"version": "1.0.1"}, {"agent": "analyst"}, {"order": 2}])
def test_a_ledger_row_that_names_something_else_is_refused(change: dict[str, Any], made: Made, keys: Keys) -> None:
    with pytest.raises(UntrustedBundle, match="not the expected"):
        verify_bundle(made.folder, made.signature, keys.public, replace(made.row, **change))


def _edited(signature: Path, **changes: Any) -> None:
    """Change the signed statement without being able to sign it again."""
    bundle = json.loads(signature.read_text())
    statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
    statement["predicate"]["serialization"].update(changes)
    bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    signature.write_text(json.dumps(bundle))


def test_an_edited_statement_is_refused(made: Made, keys: Keys) -> None:
    _edited(made.signature, ignore_paths=["tasks"])
    with pytest.raises(UntrustedBundle):
        verify(made.folder, made.signature, keys.public)


def test_a_well_signed_statement_that_ignores_paths_is_refused(made: Made, keys: Keys) -> None:
    from model_signing import hashing, signing

    loose = hashing.Config().set_ignored_paths(paths=["tasks/news/head.safetensors"], ignore_git_paths=False)
    config = signing.Config().use_elliptic_key_signer(private_key=keys.private, password=PASSWORD.encode())
    config.set_hashing_config(loose).sign(made.folder, made.signature)
    (made.folder / "tasks/news/head.safetensors").write_bytes(b"anything")
    with pytest.raises(UntrustedBundle, match="uncovered"):
        verify(made.folder, made.signature, keys.public)


def test_a_signature_that_hides_its_key_is_refused(made: Made, keys: Keys) -> None:
    bundle = json.loads(made.signature.read_text())
    bundle["verificationMaterial"]["publicKey"]["hint"] = ""
    made.signature.write_text(json.dumps(bundle))
    with pytest.raises(UntrustedBundle, match="name its key"):
        verify(made.folder, made.signature, keys.public)


def test_mutated_signatures_are_refused_whatever_they_raise(made: Made, keys: Keys) -> None:
    draw, whole, harmless = random.Random(4), made.signature.read_bytes(), 0
    original = json.loads(whole)
    for _ in range(300):
        kind, place = draw.randrange(4), draw.randrange(len(whole))
        mutated = {
            0: whole[:place] + bytes([draw.randrange(256)]) + whole[place + 1 :],
            1: whole[:place],
            2: whole[:place] + whole[place + draw.randrange(1, 9) :],
            3: os.urandom(draw.randrange(200)),
        }[kind]
        made.signature.write_bytes(mutated)
        try:
            same = json.loads(mutated)["dsseEnvelope"] == original["dsseEnvelope"]
        except (ValueError, KeyError, TypeError):
            same = False
        if same:  # a change of white space or of unsigned metadata
            harmless += 1
            continue
        with pytest.raises(UntrustedBundle):
            verify(made.folder, made.signature, keys.public)
    assert harmless < 150


@pytest.mark.parametrize("content", [None, "", "{}", "[]", "null", '{"verificationMaterial": 3}'])
def test_a_missing_or_hollow_signature_is_refused(content: str | None, made: Made, keys: Keys) -> None:
    made.signature.unlink()
    if content is not None:
        made.signature.write_text(content)
    with pytest.raises(UntrustedBundle):
        verify_bundle(made.folder, made.signature, keys.public, made.row)


def test_a_refusal_leaves_no_copy_behind(made: Made, keys: Keys, tmp_path: Path) -> None:
    (made.folder / "tasks/news/head.safetensors").write_bytes(b"x")
    with pytest.raises(UntrustedBundle):
        verify_bundle(made.folder, made.signature, keys.public, made.row, into=tmp_path / "in")
    assert list((tmp_path / "in").iterdir()) == []


def test_signing_fails_without_the_right_password_and_names_no_secret(made: Made, keys: Keys) -> None:
    before = made.signature.read_bytes()
    for password in ("wrong horse", None):
        with pytest.raises(RegistryError, match="PERENNIAL_SIGNING_KEY_FILE") as refused:
            sign(made.folder, keys.private, password)
        assert "horse" not in str(refused.value)
    assert made.signature.read_bytes() == before


def test_keys_are_made_once_encrypted_and_closed(tmp_path: Path) -> None:
    private, public = tmp_path / "a/key.pem", tmp_path / "a/key.pub"
    assert make_key_pair(private, public, PASSWORD)
    assert private.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in private.read_bytes()
    kept = private.read_bytes()
    assert not make_key_pair(private, public, "another")
    assert private.read_bytes() == kept
    opened = public.read_bytes()
    public.unlink()
    with pytest.raises(RegistryError, match="cannot be opened"):
        make_key_pair(private, public, "another")
    assert not make_key_pair(private, public, PASSWORD)
    assert (private.read_bytes(), public.read_bytes()) == (kept, opened)
    assert sorted(path.name for path in private.parent.iterdir()) == ["key.pem", "key.pub"]
    with pytest.raises(RegistryError, match="password"):
        make_key_pair(tmp_path / "b.pem", tmp_path / "b.pub", "")
