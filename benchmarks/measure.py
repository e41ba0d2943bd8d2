"""Whole processes, as the operating system accounts for them."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Figures:
    """One finished process: seconds by the clock and of CPU, and its peak of memory in MB."""

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True, slots=True)
class Command:
    """A command; `before` makes its place as it must be found, untimed."""

    words: Sequence[str]
    before: Callable[[], object] = lambda: None

    def run(self, folder: Path) -> Figures:
        """Run it once.

        Raises:
            RuntimeError: it did not exit with 0.
        """
        self.before()
        # Started as an installed program is: its bytecode lies ready.
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")}
        with (folder / "output").open("wb") as output:
            began = time.perf_counter()
            process = subprocess.Popen(
                self.words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(self.words)}: exit {process.returncode}\n{(folder / 'output').read_text()}")
        return Figures(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Two commands in turn, A B A B …, so that a machine that slows down slows both."""

    ours: Sequence[Figures]
    theirs: Sequence[Figures]

    @property
    def ratios(self) -> list[float]:
        return [a.wall / b.wall for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def cpu_ratios(self) -> list[float]:
        return [a.cpu / b.cpu for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def peak(self) -> float:
        return max(f.peak for f in self.ours)


def in_turn(ours: Command, theirs: Command, folder: Path, *, times: int) -> Pairs:
    """`times` counted pairs after one that is not."""
    ours.run(folder)
    theirs.run(folder)
    pairs = [(ours.run(folder), theirs.run(folder)) for _ in range(times)]
    return Pairs([a for a, _ in pairs], [b for _, b in pairs])


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
