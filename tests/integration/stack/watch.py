"""Counts the processes of a stack from /proc, by session, ancestry, command line, environment and working directory, and not
by the product's own list."""

from __future__ import annotations

import os

import psutil

from tests.stack_fixture import Stack


class Watch:
    """Remembers every process that was ever seen below the supervisor or pointing at the home, to look for survivors."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._seen: dict[int, float] = {}
        self._sessions: set[int] = set()

    def look(self) -> set[int]:
        """Note what runs now; returns the living processes of the stack."""
        found = {process for process in psutil.process_iter() if self._points_here(process)}
        for process in list(found):
            try:
                found |= set(process.children(recursive=True))
            except psutil.NoSuchProcess:
                continue
        for process in found:
            try:
                self._seen[process.pid] = process.create_time()
                self._sessions.add(os.getsid(process.pid))
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        return self.survivors()

    def _points_here(self, process: psutil.Process) -> bool:
        home = str(self._stack.home)
        try:
            words = " ".join(process.cmdline())
            if home in words or process.cwd().startswith(home):
                return True
            return process.pid != os.getpid() and process.environ().get("PERENNIAL_HOME") == home
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            return False

    def survivors(self) -> set[int]:
        """Processes seen before, or in a session seen before, or pointing at the home, that still live."""
        left = set()
        for process in psutil.process_iter():
            try:
                if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                    continue
                known = self._seen.get(process.pid) == process.create_time()
                if known or os.getsid(process.pid) in self._sessions or self._points_here(process):
                    left.add(process.pid)
            except (psutil.NoSuchProcess, ProcessLookupError):
                continue
        return left
