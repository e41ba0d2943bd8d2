"""Processes that hold locks of a state directory, to be killed or stopped."""

import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

_HOLD = """
import os, sys
from reqon.state.directory import StateDirectory
directory = StateDirectory(sys.argv[1])
kind, name = sys.argv[2], sys.argv[3]
lock = {
    "daemon": lambda: directory.daemon_lock,
    "mission": lambda: directory.mission_lock(name),
    "execution": lambda: directory.execution_lock(name),
}[kind]()
if sys.argv[4] == "together":
    sys.stdin.readline()
print("held" if lock.take(note=f"pid {os.getpid()}") else "taken", flush=True)
sys.stdin.readline()
"""


class Owner:
    """A process that takes one lock and holds it until it is ended.

    `together`: it waits for `go` before it tries, so that several can try at one moment.
    """

    def __init__(self, directory: Path, kind: str, name: str = "", *, together: bool = False) -> None:
        command = [sys.executable, "-c", _HOLD, str(directory), kind, name, "together" if together else "at once"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)

    def go(self) -> None:
        self._say()

    def answer(self) -> str:
        """`held` or `taken`, once it knows."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def end(self) -> None:
        """Let it leave by itself."""
        self._say()
        self.process.wait(10)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def suspend(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def _say(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
