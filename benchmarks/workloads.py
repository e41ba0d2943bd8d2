"""What is compared with what, and the bar each comparison has to stay under."""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks import missions
from benchmarks.measure import Command

PEERS = Path(__file__).parent / "peers"
REQON = str(Path(sys.executable).with_name("reqon"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Ours against theirs: the ratio of their times by the clock, and our peak of memory in MB, have bars.

    `cost` divides the difference of the two, in microseconds, by so many items: what one item costs more.
    """

    name: str
    what: str
    ours: Command
    theirs: Command
    ratio: float | None
    memory: float | None
    cost: int | None = None


@dataclass(frozen=True, slots=True)
class Bench:
    """The commands for one API and one scratch folder."""

    api: str
    folder: Path

    def reqon(self, name: str, text: str, *words: str) -> Command:
        """A run of a mission in a state directory that is not there yet."""
        path = self.folder / f"{name}.vague"
        path.write_text(text)
        state = self.folder / "state" / name
        run = [REQON, *words, str(path)] + (["--state-dir", str(state)] if not words else [])
        return Command(run, before=lambda: shutil.rmtree(state, ignore_errors=True))

    def raw(self, work: str, shape: str = "", *, store: str = "memory", at_once: int = 8, pages: int = 100) -> Command:
        words = [sys.executable, str(PEERS / "raw_py.py"), work]
        if shape:
            words += ["--url", f"{self.api}/{shape}", "--store", store, "--out", str(self.folder / "raw")]
            words += ["--at-once", str(at_once), "--pages", str(pages)]
        return Command(words)

    def dlt(self, work: str, shape: str) -> Command:
        out = str(self.folder / "dlt")
        return Command([sys.executable, str(PEERS / "dlt_run.py"), work, "--url", f"{self.api}/{shape}", "--out", out])

    def all(self) -> Iterator[Workload]:
        """In the order of the table."""
        yield from self._start()
        yield from self._pull()
        yield from self._normalise()
        yield from self._details()
        yield from self._state()
        if find_spec("dlt") is not None:
            yield from self._against_dlt()

    def _start(self) -> Iterator[Workload]:
        yield Workload(
            name="w5",
            what="a trivial mission",
            ours=self.reqon("w5", missions.TRIVIAL),
            theirs=self.raw("w5"),
            ratio=6,
            memory=60,
        )
        yield Workload(
            name="check",
            what="`reqon check` of 2,000 lines",
            ours=self.reqon("check", missions.big_mission(), "check"),
            theirs=self.raw("w5"),
            ratio=10,
            memory=70,
        )

    def _pull(self) -> Iterator[Workload]:
        url = f"{self.api}/10000-100-0"
        yield Workload(
            name="w1",
            what="10,000 items in 100 pages into a file store",
            ours=self.reqon("w1", missions.pull(url)),
            theirs=self.raw("w1", "10000-100-0", store="json"),
            ratio=2,
            memory=90,
        )

    def _normalise(self) -> Iterator[Workload]:
        small, large = "10000-100-0", "100000-1000-0"
        yield Workload(
            name="w2-memory",
            what="W1, mapped and checked, memory stores",
            ours=self.reqon("w2-memory", missions.normalise(f"{self.api}/{small}", kind="memory")),
            theirs=self.raw("w2", small),
            ratio=2.5,
            memory=110,
        )
        yield Workload(
            name="w2-file",
            what="W1, mapped and checked, file stores",
            ours=self.reqon("w2-file", missions.normalise(f"{self.api}/{small}")),
            theirs=self.raw("w2", small, store="json"),
            ratio=3,
            memory=110,
        )
        yield Workload(
            name="w3-memory",
            what="as W2, 100,000 items in pages of 1,000, memory stores",
            ours=self.reqon("w3-memory", missions.normalise(f"{self.api}/{large}", size=1000, kind="memory")),
            theirs=self.raw("w3", large),
            ratio=1.6,
            memory=320,
        )

    def _details(self) -> Iterator[Workload]:
        yield Workload(
            name="w4-0",
            what="1,000 detail requests one after the other, 0 ms each",
            ours=self.reqon("w4-0", missions.details(f"{self.api}/1000-1000-0")),
            theirs=self.raw("w4", "1000-1000-0", at_once=1),
            ratio=2,
            memory=80,
        )
        yield Workload(
            name="w4-20",
            what="1,000 detail requests, 16 at once, 20 ms each",
            ours=self.reqon("w4-20", missions.details(f"{self.api}/1000-1000-20", parallel=16)),
            theirs=self.raw("w4", "1000-1000-20", at_once=16),
            ratio=1.25,
            memory=80,
        )

    def _state(self) -> Iterator[Workload]:
        for name, shape, size, items in (("w2", "10000-100-0", 100, 10_000), ("w3", "100000-1000-0", 1000, 100_000)):
            url = f"{self.api}/{shape}"
            yield Workload(
                name=f"w6-{name}",
                what=f"{name.upper()}, state on over state off",
                ours=self.reqon(f"w6-{name}-on", missions.normalise(url, size=size, kind="memory")),
                theirs=self.reqon(f"w6-{name}-off", missions.normalise(url, size=size, kind="memory", state=False)),
                ratio=1.15,
                memory=None,
                cost=items,
            )

    def _against_dlt(self) -> Iterator[Workload]:
        for work, shape, size in (
            ("w1", "10000-100-0", 100),
            ("w2", "10000-100-0", 100),
            ("w3", "100000-1000-0", 1000),
        ):
            url = f"{self.api}/{shape}"
            text = missions.pull(url) if work == "w1" else missions.normalise(url, size=size)
            yield Workload(
                name=f"dlt-{work}",
                what=f"{work.upper()} into files, against dlt into SQLite",
                ours=self.reqon(f"dlt-{work}", text),
                theirs=self.dlt(work, shape),
                ratio=1 / 3,
                memory=None,
            )
