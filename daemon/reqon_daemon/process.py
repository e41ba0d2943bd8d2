"""What the process uses: the `process_*` metrics by the names that every Prometheus client has."""

import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PROC = "/proc"


class ProcessFigures(Collector):
    """Read at each scrape, in as few calls of the system as can be.

    Each call gives the interpreter away, and where missions compute it comes back up to 5 ms later. The library's own
    collector makes one for each open descriptor and ten more: a tenth of a second.
    """

    def __init__(self, proc: str = _PROC) -> None:
        self._own = f"{proc}/self"
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._booted = _boot_time(f"{proc}/stat")

    def describe(self) -> list[Metric]:
        return [
            GaugeMetricFamily("process_virtual_memory_bytes", "Virtual memory size in bytes."),
            GaugeMetricFamily("process_resident_memory_bytes", "Resident memory size in bytes."),
            GaugeMetricFamily("process_start_time_seconds", "When the process began, in seconds since 1970."),
            CounterMetricFamily("process_cpu_seconds_total", "Processor time of user and system, in seconds."),
            GaugeMetricFamily("process_open_fds", "Open file descriptors."),
            GaugeMetricFamily("process_max_fds", "The most file descriptors there may be."),
        ]

    def collect(self) -> Iterator[Metric]:
        """What can be known: nothing on a system without /proc."""
        figures = self._figures()
        for metric in self.describe():
            if (value := figures.get(metric.name)) is not None:
                metric.add_metric([], value)  # type: ignore[attr-defined]  # of all families that `describe` makes
                yield metric

    def _figures(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        with suppress(OSError):
            fields = _read(f"{self._own}/stat").rpartition(b")")[2].split()
            figures["process_virtual_memory_bytes"] = float(fields[20])
            figures["process_resident_memory_bytes"] = float(fields[21]) * resource.getpagesize()
            figures["process_cpu_seconds"] = (int(fields[11]) + int(fields[12])) / self._ticks
            if self._booted is not None:
                figures["process_start_time_seconds"] = self._booted + int(fields[19]) / self._ticks
            figures["process_open_fds"] = float(_entries(f"{self._own}/fd"))
            figures["process_max_fds"] = _most_descriptors()
        return figures


def _read(path: str) -> bytes:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(handle, 4096)
    finally:
        os.close(handle)


def _entries(folder: str) -> int:
    """How many there are: from Linux 6.2 on the folder's size says it."""
    return os.stat(folder).st_size or len(os.listdir(folder))  # noqa: PTH116, PTH208  # a Path makes more calls


def _most_descriptors() -> float:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return float("inf") if limit == resource.RLIM_INFINITY else float(limit)


def _boot_time(path: str) -> float | None:
    with suppress(OSError):
        for line in Path(path).read_text().splitlines():
            if line.startswith("btime "):
                return float(line.split()[1])
    return None
