"""A program of the user's in a process group of its own: bounded in time and output, without our secrets, killed as a whole."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from perennial.errors import ScriptFailed

MOST_TOLD = 64 * 1024  # bytes of stderr that are looked at
_BLOCK = 65536
_PASSED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
)
_PLACE = re.compile(rb'File "(?:[^"\n]*/)?([\w.-]+)", line (\d+)')
_ERROR = re.compile(rb"^(?:\w+\.)*([A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning))\b", re.MULTILINE)


# Linux tells this leader of the program's group when the thread that started it dies, and the leader ends the whole group: a
# training whose task was killed does not go on by itself, nor does what it started. A program that answers needs none: it ends
# with its input.
_BOUND = """
import ctypes, os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
prctl = getattr(ctypes.CDLL(None), "prctl", None)
if prctl is not None:
    prctl(1, signal.SIGTERM)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
program = os.fork()
if program == 0:
    os.execv(sys.argv[2], sys.argv[2:])
code = os.waitstatus_to_exitcode(os.waitpid(program, 0)[1])
sys.exit(code if code >= 0 else 128 - code)
"""


def environment(room: Path, names: Sequence[str] = ()) -> dict[str, str]:
    """What the program sees of ours: paths of programs, language and devices, and the variables that its agent names."""
    kept = {name: os.environ[name] for name in (*_PASSED, *names) if name in os.environ}
    fixed = {
        "HOME": str(room), "TMPDIR": str(room), "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1",
    }  # fmt: skip
    return {**fixed, **kept}


def run(arguments: Sequence[str], *, room: Path, variables: Mapping[str, str], seconds: float) -> None:
    """Run to the end; ScriptFailed when it fails or takes longer. What it prints is dropped, since it may quote rows."""
    program = shutil.which(arguments[0], path=variables.get("PATH"))
    if program is None:
        raise ScriptFailed(f"{arguments[0]!r} cannot be started; correct the setting `interpreter`")
    bound = [sys.executable, "-I", "-S", "-c", _BOUND, str(os.getpid()), program, *arguments[1:]]
    process = _start(bound, room, variables, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    told = b""
    deadline = time.monotonic() + seconds
    try:
        with selectors.DefaultSelector() as waits:
            assert process.stderr is not None
            waits.register(process.stderr, selectors.EVENT_READ)
            # what it started itself may keep the pipe open beyond its end, so both are watched
            while process.poll() is None or waits.select(0):
                if time.monotonic() >= deadline:
                    raise ScriptFailed(
                        f"the script took longer than {seconds:.0f} s; give it more with train_seconds, or less to do"
                    )
                if waits.select(0.05):
                    block = os.read(process.stderr.fileno(), _BLOCK)
                    told = (told + block)[-MOST_TOLD:]
                    if not block:
                        break
        code = process.wait(timeout=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        raise ScriptFailed(f"the script took longer than {seconds:.0f} s; give it more with train_seconds") from error
    finally:
        kill(process)
    if code != 0:
        raise ScriptFailed(f"the script ended with {code}{where(told)}; run it by hand on rows of your own to see more")


def where(told: bytes) -> str:
    """The kind of error and its line from a traceback, without the message, which may quote a row.

    >>> where(b'Traceback\\n  File "/x/train.py", line 7, in main\\nValueError: secret text')
    ' (ValueError in train.py, line 7)'
    """
    places, errors = _PLACE.findall(told), _ERROR.findall(told)
    if not errors:
        return ""
    place = f" in {places[-1][0].decode()}, line {places[-1][1].decode()}" if places else ""
    return f" ({errors[-1].decode()}{place})"


class Lines:
    """A living program that answers each line with a line."""

    def __init__(self, arguments: Sequence[str], *, room: Path, variables: Mapping[str, str], longest: int) -> None:
        self._process = _start(arguments, room, variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._longest, self._left, self._told = longest, bytearray(), b""
        self._seen = 0  # bytes of what is left in which there is no end of a line
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)

    @property
    def process(self) -> subprocess.Popen[bytes]:
        return self._process

    def ask(self, line: bytes, seconds: float) -> bytes:
        """Write a line (or nothing) and read one; ScriptFailed when it dies, says too much, or takes too long."""
        if line:
            self._refuse_surplus()
        deadline, waiting = time.monotonic() + seconds, memoryview(line)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as waits:
            waits.register(process.stdout, selectors.EVENT_READ)
            waits.register(process.stderr, selectors.EVENT_READ)
            if waiting:
                waits.register(process.stdin, selectors.EVENT_WRITE)
            while (end := self._left.find(b"\n", self._seen)) < 0:
                self._seen = len(self._left)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise ScriptFailed(f"the script gave no answer within {seconds:.0f} s")
                for key, _ in waits.select(left):
                    if key.fileobj is process.stdin:
                        waiting = self._write(waiting)
                        if not waiting:
                            waits.unregister(process.stdin)
                    elif not self._read(key.fd, key.fileobj is process.stdout):
                        waits.unregister(key.fileobj)
        answer = bytes(self._left[:end])
        del self._left[: end + 1]
        self._seen = 0
        return answer

    def _refuse_surplus(self) -> None:
        """What stands there before a question is asked would be taken for its answer, and each later answer for the next one's."""
        assert self._process.stdout is not None
        with contextlib.suppress(BlockingIOError):
            self._left += os.read(self._process.stdout.fileno(), _BLOCK)
        if self._left:
            raise ScriptFailed(
                "the script printed more than one line for a question; print one, and the rest to stderr"
            )

    def _write(self, waiting: memoryview) -> memoryview:
        assert self._process.stdin is not None
        try:
            return waiting[os.write(self._process.stdin.fileno(), waiting) :]
        except BrokenPipeError as error:
            raise ScriptFailed(f"the script stopped reading{where(self._told)}") from error

    def _read(self, descriptor: int, answers: bool) -> bool:
        block = os.read(descriptor, _BLOCK)
        if answers:
            if not block:
                self._hear_out()
                raise ScriptFailed(f"the script ended instead of answering{where(self._told)}")
            self._left += block
            if len(self._left) > self._longest:
                raise ScriptFailed(f"the script answered with more than {self._longest} bytes")
        else:
            self._told = (self._told + block)[-MOST_TOLD:]
        return bool(block)

    def _hear_out(self) -> None:
        """What a program that ended said last, for the line of its error; a second is enough for that."""
        assert self._process.stderr is not None
        deadline = time.monotonic() + 1.0
        with selectors.DefaultSelector() as waits:
            waits.register(self._process.stderr, selectors.EVENT_READ)
            while waits.select(max(0.0, deadline - time.monotonic())):
                block = os.read(self._process.stderr.fileno(), _BLOCK)
                if not block:
                    return
                self._told = (self._told + block)[-MOST_TOLD:]


def _start(
    arguments: Sequence[str], room: Path, variables: Mapping[str, str], *, stdin: int, stdout: int
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            list(arguments), cwd=room, env=dict(variables), stdin=stdin, stdout=stdout, stderr=subprocess.PIPE,
            start_new_session=True, close_fds=True, bufsize=0,
        )  # fmt: skip
    except OSError as error:
        raise ScriptFailed(
            f"{arguments[0]!r} cannot be started ({error.strerror}); correct the setting `interpreter`"
        ) from error


def kill(process: subprocess.Popen[bytes]) -> None:
    """End the program and everything that it started; safe to repeat."""
    with contextlib.suppress(ProcessLookupError):  # the whole group is gone already
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
