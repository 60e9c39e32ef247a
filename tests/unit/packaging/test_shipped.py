"""`perennial dags install`: our files into somebody's folders, again and again, and never over what they edited."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from perennial.cli import build
from perennial.errors import StackError
from perennial.stack import shipped


def test_a_repeat_changes_nothing_and_an_upgrade_replaces_removes_and_keeps(tmp_path: Path) -> None:
    first = {"a.py": b"1", "b.py": b"1", "gone.py": b"1", "left.py": b"1"}
    assert shipped.copy(first, tmp_path).written == ("a.py", "b.py", "gone.py", "left.py")
    assert shipped.copy(first, tmp_path).unchanged == ("a.py", "b.py", "gone.py", "left.py")
    (tmp_path / "b.py").write_bytes(b"edited")
    (tmp_path / "left.py").write_bytes(b"edited")
    (tmp_path / "theirs.py").write_bytes(b"theirs")
    second = {"a.py": b"2", "b.py": b"2", "new.py": b"2"}
    done = shipped.copy(second, tmp_path)
    assert done == shipped.Copied(written=("a.py", "new.py"), removed=("gone.py",), kept=("b.py",))
    present = {path.name: path.read_bytes() for path in tmp_path.glob("*.py")}
    assert present == {"a.py": b"2", "b.py": b"edited", "left.py": b"edited", "new.py": b"2", "theirs.py": b"theirs"}
    assert shipped.copy(second, tmp_path).kept == ("b.py",)
    assert shipped.copy(second, tmp_path, force=True).written == ("b.py",)


def test_a_file_of_the_same_name_that_was_there_before_stays(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_bytes(b"theirs")
    assert shipped.copy({"train.py": b"ours"}, tmp_path).kept == ("train.py",)
    assert (tmp_path / "train.py").read_bytes() == b"theirs"


def test_a_copy_that_was_killed_before_its_record_is_finished_by_a_repeat(tmp_path: Path) -> None:
    shipped.copy({"a.py": b"1", "b.py": b"1"}, tmp_path)
    (tmp_path / "a.py").write_bytes(b"2")  # the upgrade got so far
    assert shipped.copy({"a.py": b"2", "b.py": b"2"}, tmp_path).kept == ()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StackError, match="cannot be written"):
        shipped.copy({"a.py": b""}, tmp_path / "file" / "dags")


def test_the_command_copies_dags_and_the_example_agent(tmp_path: Path) -> None:
    words = ["dags", "install", str(tmp_path / "dags"), "--fleet", str(tmp_path / "fleet")]
    done = CliRunner().invoke(build(), words)
    assert done.exit_code == 0, done.output
    assert "PERENNIAL_FLEET_FOLDER" in done.output
    assert {path.name for path in (tmp_path / "dags").glob("*.py")} == set(shipped.shipped(shipped.DAGS))
    assert (tmp_path / "fleet" / "scout.py").stat().st_mode & 0o077 == 0o044
    (tmp_path / "dags" / "train.py").write_text("mine")
    done = CliRunner().invoke(build(), words)
    assert done.exit_code == 1
    assert "train.py was edited" in done.output
