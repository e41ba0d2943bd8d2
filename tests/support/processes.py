"""`reqon` in processes of their own: started, waited for, told, killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from reqon.values import decode

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "reqon")
_KEPT = ("PATH", "HOME", "LANG", "TZ")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a process said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it wrote to stdout, read as JSON."""
        return decode(self.out.encode())

    @property
    def text(self) -> str:
        return self.out + self.err


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment that holds nothing of ours but these variables."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {**kept, "PYTHONPATH": f"{ROOT}:{ROOT / 'daemon'}", "COLUMNS": "80", **variables}


class Process:
    """`reqon` with these arguments in a folder; what it writes is read as it comes, and it never outlives the block."""

    def __init__(self, arguments: Sequence[object], *, cwd: Path, variables: Mapping[str, str] | None = None) -> None:
        self.arguments = [*COMMAND, *map(str, arguments)]
        self._cwd, self._environment = cwd, environment(variables or {})
        self.out = self.err = ""
        self._changed = threading.Condition()
        self.process: subprocess.Popen[bytes]
        self._readers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self.arguments,
            cwd=self._cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name, stream in (("out", self.process.stdout), ("err", self.process.stderr)):
            assert stream is not None
            reader = threading.Thread(target=self._read, args=(name, stream), daemon=True)
            reader.start()
            self._readers.append(reader)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        if error is not None:
            sys.stdout.write(f"{self.arguments[3:]}\n{self.out}\n{self.err}\n")

    def _read(self, name: str, stream: IO[bytes]) -> None:
        for raw in stream:
            with self._changed:
                setattr(self, name, getattr(self, name) + raw.decode(errors="replace"))
                self._changed.notify_all()

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(10)

    def until(self, condition: Callable[[Self], bool], what: str = "it", *, seconds: float = 60) -> None:
        """Wait until what it wrote fulfils a condition."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self), seconds), f"never {what}:\n{self.out}{self.err}"

    def said(self, text: str, *, seconds: float = 60) -> None:
        """Wait until it wrote this text, to stdout or stderr."""
        self.until(lambda p: text in p.out or text in p.err, f"said {text!r}", seconds=seconds)

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def kill(self) -> Ended:
        """SIGKILL; what it had said."""
        self.process.kill()
        return self.wait()

    def wait(self, seconds: float = 120) -> Ended:
        """Its end."""
        code = self.process.wait(seconds)
        self._join()
        return Ended(code, self.out, self.err)

    @property
    def running(self) -> bool:
        return self.process.poll() is None


def reqon(
    *arguments: object, cwd: Path, seconds: float = 120, variables: Mapping[str, str] | None = None, **more: str
) -> Ended:
    """Run a command to its end. `variables`, and those given by name, are added to an empty environment."""
    with Process(arguments, cwd=cwd, variables={**(variables or {}), **more}) as process:
        return process.wait(seconds)


def soon(condition: Callable[[], Any], what: str, *, seconds: float = 60) -> Any:
    """The first true value of a condition that no event tells of; asked fifty times a second."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
    return found
