"""Does an item cost the same in a small run and in a large one, and does memory stay where it was?"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import missions
from benchmarks.workloads import Bench


@dataclass(frozen=True, slots=True)
class Size:
    """Runs of one size: items, the median of CPU seconds, the peak in MB."""

    items: int
    cpu: float
    wall: float
    peak: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    name: str
    what: str
    memory: float
    sizes: Sequence[Size]

    @property
    def marginal(self) -> list[float]:
        """Microseconds of CPU that one item more costs, from each size to the next."""
        return [(b.cpu - a.cpu) / (b.items - a.items) * 1e6 for a, b in zip(self.sizes, self.sizes[1:], strict=False)]


def pulled(bench: Bench, *, times: int) -> Scaling:
    """W1 with 1,000, 10,000 and 100,000 items, in pages of one size."""
    sizes = [(n, missions.pull(f"{bench.api}/{n}-1000-0", size=1000)) for n in (1_000, 10_000, 100_000)]
    return Scaling(name="w1", what="W1, pages of 1,000", memory=120, sizes=_measured(bench, "scale", sizes, times))


def streamed(bench: Bench, *, times: int) -> Scaling:
    """Up to a million items through fetch, map and file store."""
    sizes = [(n, missions.streamed(f"{bench.api}/{n}-1000-0")) for n in (10_000, 250_000, 1_000_000)]
    what = "fetch, map, file store; pages of 1,000"
    return Scaling(name="million", what=what, memory=250, sizes=_measured(bench, "million", sizes, times))


def _measured(bench: Bench, name: str, sizes: Sequence[tuple[int, str]], times: int) -> list[Size]:
    found = []
    for items, text in sizes:
        command = bench.reqon(f"{name}-{items}", text)
        runs = [command.run(bench.folder) for _ in range(max(1, times))]
        middle = statistics.median
        found.append(
            Size(items, middle([r.cpu for r in runs]), middle([r.wall for r in runs]), max(r.peak for r in runs))
        )
    return found
