"""Which pg_dump and pg_restore are used: pg_dump refuses a server that is newer than itself, pg_restore a file of a newer pg_dump."""

from __future__ import annotations

from pathlib import Path

import pytest

from perennial.errors import StackError
from perennial.stack import dump, postgres

URL = "postgresql://owner:secret@127.0.0.1:1/perennial"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel's programs, version 16; nothing on PATH; a server of version 18."""
    folder = tmp_path / "wheel"
    program(folder, "pg_dump", "16.14")
    program(folder, "pg_restore", "16.14")
    monkeypatch.setattr(postgres, "binary", lambda name: folder / name)
    monkeypatch.setattr(dump, "_server_major", lambda url: 18)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    return folder


def program(folder: Path, name: str, version: str) -> Path:
    """A program that says its version, and otherwise notes its words."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(
        f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{name} (PostgreSQL) {version}"; exit 0; fi\n'
        f'echo "$0 $*" > "{folder}/ran"\nfor word; do case "$word" in --file=*) echo > "${{word#--file=}}";; esac; done\n'
    )
    path.chmod(0o755)
    return path


def archive(file: Path, *, made_by: str, minor: int = 16, server: str = "18.1 (Debian 18.1-1.pgdg12+2)") -> Path:
    """The head of a dump in the custom format."""

    def number(value: int) -> bytes:
        return b"\0" + value.to_bytes(4, "little")

    words = b"".join(number(len(word)) + word.encode() for word in ("perennial", server, made_by))
    packing = b"\1" if minor >= 15 else number(-1 % 256)
    file.write_bytes(b"PGDMP\1" + bytes([minor]) + b"\0\4\x08\1" + packing + number(7) * 7 + words + b"\0" * 20)
    return file


def test_a_newer_server_is_dumped_by_the_newer_program_on_the_path(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path / 'old'}:{tmp_path / 'new'}:/usr/bin:/bin")
    program(tmp_path / "old", "pg_dump", "17.2 (Debian 17.2-1)")
    program(tmp_path / "new", "pg_dump", "18beta1")
    dump.dump(URL, tmp_path / "file")
    assert "--format=custom" in (tmp_path / "new" / "ran").read_text()
    monkeypatch.setattr(dump, "_server_major", lambda url: 16)
    dump.dump(URL, tmp_path / "file")
    assert (bundled / "ran").is_file()  # the wheel's own, where it is new enough


def test_without_such_a_program_both_versions_are_named(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StackError, match=r"pg_dump here is of PostgreSQL 16, .* 18: install .* version 18 or later"):
        dump.dump(URL, tmp_path / "file")
    (bundled / "pg_dump").unlink()
    with pytest.raises(StackError, match=r"there is no pg_dump here, .* 18: install"):
        dump.dump(URL, tmp_path / "file")


@pytest.mark.parametrize("minor", [14, 15, 16])
def test_a_file_is_read_by_a_program_as_new_as_the_one_that_made_it(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minor: int
) -> None:
    dump.restore(URL, archive(tmp_path / "ours", made_by="16.14", minor=minor, server="16.14"))
    assert "--single-transaction" in (bundled / "ran").read_text()
    newer = archive(tmp_path / "newer", made_by="18.1", minor=minor)
    with pytest.raises(StackError, match=r"pg_restore here is of PostgreSQL 16, .* 18: install"):
        dump.restore(URL, newer)
    program(tmp_path / "new", "pg_restore", "18.1")
    monkeypatch.setenv("PATH", f"{tmp_path / 'new'}:/usr/bin:/bin")
    dump.restore(URL, newer)
    assert str(newer) in (tmp_path / "new" / "ran").read_text()


def test_a_restore_into_an_older_server_that_fails_says_so(
    bundled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "new", "pg_restore", "18.1")
    (tmp_path / "new" / "pg_restore").write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "pg_restore (PostgreSQL) 18.1" && exit 0\n'
        "echo 'pg_restore: error: transaction_timeout' >&2; exit 1\n"
    )
    monkeypatch.setenv("PATH", f"{tmp_path / 'new'}:/usr/bin:/bin")
    file = archive(tmp_path / "newer", made_by="18.1")
    with pytest.raises(StackError, match=r"transaction_timeout$"):
        dump.restore(URL, file)
    monkeypatch.setattr(dump, "_server_major", lambda url: 16)
    with pytest.raises(StackError, match=r"timeout; .* 18 and the server is 16: restore into .* 18 or later"):
        dump.restore(URL, file)


@pytest.mark.parametrize("text", [b"", b"PGDMP", b"PGDMP\1\x10\0\4\x08\1\1" + b"\0" * 80, b"no dump at all" * 20])
def test_what_is_no_dump_is_said(bundled: Path, tmp_path: Path, text: bytes) -> None:
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(StackError, match="no dump"):
        dump.restore(URL, tmp_path / "file")


def test_a_server_that_is_away_is_said() -> None:
    with pytest.raises(StackError, match="does not answer"):
        dump._server_major(URL)
