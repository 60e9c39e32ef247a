"""A folder into which people and programs put files: ``inbox/*.jsonl`` and ``inbox/*.csv``, each read once.

A file is known by the digest of its bytes, so the same file under another name is not read again, and a file that was
read half when its reader was killed goes on at the next line. Read files lie in ``inbox/done/``. A writer that takes
long writes ``name.jsonl.part`` (or ``.tmp``, or a dotfile) and renames it.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from perennial.errors import SourceError
from perennial.events.files import SUFFIXES, file_digest, read_records
from perennial.events.source import Batch, PositionOf

logger = logging.getLogger(__name__)


class DropFolder:
    """The ``inbox`` source. Any number of processes may drain one folder; the stored positions keep them apart."""

    name = "inbox"

    def __init__(self, folder: Path, *, quiet_seconds: float = 1.0) -> None:
        self._folder, self._quiet = folder, quiet_seconds

    def waiting(self) -> list[str]:
        """Names of the files that would be read now; a file touched within the last second is left for later."""
        return [path.name for path in self._files()]

    def _files(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        newest = time.time() - self._quiet
        found: list[tuple[float, Path]] = []
        for path in self._folder.iterdir():
            if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
                continue
            try:
                touched = path.stat().st_mtime
            except FileNotFoundError:  # another reader finished it meanwhile
                continue
            if touched <= newest or self._quiet == 0:
                found.append((touched, path))
        return [path for _, path in sorted(found)]

    def poll(self, position_of: PositionOf, *, size: int = 1000) -> Iterator[Batch]:
        """Batches of every waiting file, oldest first. An unreadable file does not keep the others out; it is named at the end."""
        unreadable: list[str] = []
        for path in self._files():
            try:
                yield from self._read(path, position_of, size)
            except (SourceError, OSError) as error:
                unreadable.append(str(error))
        if unreadable:
            raise SourceError(f"{len(unreadable)} file(s) of {self._folder.name}: {'; '.join(unreadable)}")

    def _read(self, path: Path, position_of: PositionOf, size: int) -> Iterator[Batch]:
        try:
            before = path.stat()
            part = file_digest(path)
        except FileNotFoundError:
            return  # another reader finished it meanwhile
        known = position_of(part)
        if known is not None and known.finished:
            self._put_away(path, part)
            return
        position = known.position if known else 0
        records = (record for record in read_records(path) if record.position > position)
        while taken := tuple(islice(records, size)):
            position = taken[-1].position
            yield Batch(source=self.name, part=part, name=path.name, records=taken, position=position)
        try:
            after = path.stat()
        except FileNotFoundError:
            return  # another reader finished it meanwhile
        if (before.st_size, before.st_mtime_ns, before.st_ino) != (after.st_size, after.st_mtime_ns, after.st_ino):
            logger.warning("%s is still being written and stays; write it under .part and rename it", path.name)
            return
        yield Batch(source=self.name, part=part, name=path.name, records=(), position=position, finished=True)

    def settle(self, batch: Batch) -> None:
        """Move a finished file to ``done/``."""
        if batch.finished:
            self._put_away(self._folder / batch.name, batch.part)

    def _put_away(self, path: Path, part: str) -> None:
        done = self._folder / "done"
        done.mkdir(exist_ok=True)
        target = done / path.name
        if target.exists():
            target = done / f"{path.stem}.{part[:12]}{path.suffix}"
        try:
            os.replace(path, target)
        except FileNotFoundError:
            logger.debug("%s was put away by another reader", path.name)
