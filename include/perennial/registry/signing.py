"""OpenSSF model signatures over whole bundles, made and verified strictly.

The library's defaults accept files planted in ``.git`` and honour ignore-paths that the signer wrote into the
signature; the measurements are in docs/adr. So: no path is ever ignored, each call uses a new configuration, the
signed payload is read and must ignore nothing, and any failure whatever refuses the bundle.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from perennial.domain.model import ModelRef
from perennial.errors import RegistryError, UntrustedBundle
from perennial.registry.bundle import bundle_digest, check_bundle, signature_path
from perennial.registry.files import copy_file, listing, private_copy
from perennial.registry.keyring import key_for
from perennial.registry.rows import Release

logger = logging.getLogger(__name__)

_PREDICATE = "https://model_signing/signature/v1.0"


def _strict() -> Any:
    from model_signing import hashing

    return hashing.Config().set_ignored_paths(paths=[], ignore_git_paths=False)


def sign(folder: Path, key_file: Path, password: str | None) -> Path:
    """Sign a bundle with an EC key and return the signature's path beside the folder (``<name>.sig``).

    Runs in the register task, after the gates. RegistryError when the key cannot be read; the message never holds the
    password.
    """
    from model_signing import signing

    listing(folder)
    target = signature_path(folder)
    aside = target.with_name(f".{target.name}.{uuid4().hex}")
    secret = password.encode() if password else None  # typed str in the library, but it passes it on as bytes
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=key_file, password=secret)
        config.set_hashing_config(_strict()).sign(folder, aside)
        os.replace(aside, target)
    except Exception as error:
        raise RegistryError(
            f"the bundle could not be signed ({type(error).__name__}); "
            "check PERENNIAL_SIGNING_KEY_FILE and its password"
        ) from error
    finally:
        aside.unlink(missing_ok=True)
    return target


def verify(folder: Path, signature: Path, public_key: Path, released_at: datetime | None = None) -> None:
    """Raise UntrustedBundle unless the signature covers every byte of the folder and was made by the key's owner.

    A key that was retired (``registry.keyring``) counts for what the ledger says was registered before that, at ``released_at``.

    Says nothing about which version this is: another signed version passes here. Use ``verify_bundle`` before loading.
    """
    from model_signing import verifying

    listing(folder)
    try:
        envelope, hint = _envelope(signature)
        with key_for(public_key, hint, released_at) as key:
            config = verifying.Config().use_elliptic_key_verifier(public_key=key)
            config.set_hashing_config(_strict()).verify(folder, signature)
        _check_statement(envelope)
    except UntrustedBundle:
        raise
    except Exception as error:  # the library fails with seven kinds of exceptions; each of them means no
        raise UntrustedBundle(
            f"the signature of {folder.name!r} does not verify ({type(error).__name__}); it is not loaded: "
            "fetch the version again, or roll back"
        ) from error


def _envelope(signature: Path) -> tuple[dict[str, Any], str]:
    bundle = json.loads(signature.read_text(encoding="utf-8"))
    hint = str(bundle["verificationMaterial"]["publicKey"]["hint"])
    if not hint:
        # without it the library only prints a warning
        raise UntrustedBundle("the signature does not name its key; it is not loaded")
    envelope: dict[str, Any] = bundle["dsseEnvelope"]
    if len(envelope["signatures"]) != 1:
        raise UntrustedBundle("the signature file holds more than one signature; it is not loaded")
    return envelope, hint


def _check_statement(envelope: dict[str, Any]) -> None:
    statement = json.loads(base64.b64decode(envelope["payload"], validate=True))
    serialization = statement["predicate"]["serialization"]
    wrong = (
        statement["predicateType"] != _PREDICATE
        or serialization["method"] != "files"
        or serialization["hash_type"] != "sha256"
        or serialization["allow_symlinks"] is not False
        or serialization.get("ignore_paths", []) != []
    )
    if wrong:
        raise UntrustedBundle("the signature leaves parts of the bundle uncovered; it is not loaded")


def verify_bundle(
    folder: Path, signature: Path, public_key: Path, expected: Release | ModelRef, *, into: Path | None = None
) -> Path:
    """A private copy of the bundle that is exactly what the ledger says; load this copy and nothing else.

    Checks on the copy: the closed list of files, the signature, the digest, and that the manifest inside names the
    expected agent, version and (given a ledger row) order. Raises UntrustedBundle otherwise and leaves nothing
    behind. The caller removes the copy's parent folder. About 10 ms for a small bundle once the library is imported
    (0.4 s).
    """
    copy = private_copy(folder, into)
    try:
        copy_file(signature, signature_path(copy))
        check_copy(copy, public_key, expected)
    except OSError as error:
        shutil.rmtree(copy.parent, ignore_errors=True)
        raise UntrustedBundle(f"{folder.name!r} has no readable signature; it is not loaded") from error
    except UntrustedBundle:
        shutil.rmtree(copy.parent, ignore_errors=True)
        raise
    return copy


def check_copy(copy: Path, public_key: Path, expected: Release | ModelRef) -> None:
    """The checks of ``verify_bundle`` on a folder that is private already, with its signature beside it."""
    # without a ledger row nobody knows when it was registered
    verify(copy, signature_path(copy), public_key, expected.created_at if isinstance(expected, Release) else None)
    digest = bundle_digest(copy)
    if digest != expected.digest:
        raise UntrustedBundle(
            f"the bytes of {expected.agent} {expected.version} are not those that were released "
            f"(digest {digest[:12]}, ledger {expected.digest[:12]}); it is not loaded"
        )
    manifest = check_bundle(copy)
    order = expected.order if isinstance(expected, Release) else manifest.order
    if (manifest.agent, manifest.version, manifest.order) != (expected.agent, expected.version, order):
        raise UntrustedBundle(
            f"this is {manifest.agent} {manifest.version} (order {manifest.order}), not the expected "
            f"{expected.agent} {expected.version}; it is not loaded"
        )
