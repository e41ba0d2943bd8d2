"""A process on a terminal of its own: what it shows, and what a person types."""

import os
import pty
import select
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.processes import COMMAND, environment


class Terminal:
    """`reqon` with these arguments on a pseudo terminal; ended by `close` at the latest."""

    def __init__(self, *arguments: object, cwd: Path, variables: Mapping[str, str] | None = None) -> None:
        words = [*COMMAND, *map(str, arguments)]
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(cwd)
            os.execve(sys.executable, words, {"TERM": "dumb", **environment(variables or {})})
        self.shown = ""

    def until(self, mark: str, *, seconds: float = 60) -> str:
        """What is shown until this mark comes; the rest stays for the next call."""
        deadline = time.monotonic() + seconds
        while mark not in self.shown:
            assert time.monotonic() < deadline, f"never shown: {mark!r}; shown: {self.shown!r}"
            if not self._read(1.0):
                raise AssertionError(f"ended before {mark!r}: {self.shown!r}")
        before, _, self.shown = self.shown.partition(mark)
        return before + mark

    def type(self, line: str) -> None:
        os.write(self._fd, line.encode() + b"\n")

    def end(self, *, seconds: float = 60) -> tuple[int, str]:
        """The exit code, and what was still shown."""
        deadline = time.monotonic() + seconds
        while self._read(0.2):
            assert time.monotonic() < deadline, self.shown
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self._fd)
        return code, self.shown

    def _read(self, seconds: float) -> bool:
        """Take what is there; False once nothing will come any more."""
        if not select.select([self._fd], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:
            return False
        self.shown += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)
