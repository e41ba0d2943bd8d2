"""The daemon under load, against the bars of the specification (spec/daemon.md, spec/reliability.md 5 and 8).

python -m benchmarks.daemon                all of it, to the terminal: four minutes
python -m benchmarks.daemon --only start   one part
python -m benchmarks.daemon --write        into benchmarks/DAEMON.md

Processor time is what the operating system accounts to the process, so that a busy machine does not spoil it; times by
the clock are the machine's, and mean little on one that is busy. Exits 1 when a bar is missed.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from http.client import HTTPConnection
from pathlib import Path

import orjson

HERE = Path(__file__).parent
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")

RESTING = """mission M{number} {{
  schedule: cron "{minute} {hour} * * *"
  source Shop{number} {{ auth: bearer, token: env("SHOP_TOKEN", "unset"), base: "https://shop.example.com/v1" }}
  store orders: file("orders-{number}")
  action Fetch {{
    get "/orders" {{
      params: {{ limit: 100 }}, paginate: page(page, 100), until: length(response.data) < 100, since: lastSync
    }}
    for order in response.data checkpoint every 100 {{
      map order -> Order {{ id: .id, status: uppercase(.status), total: .total }}
      store Order -> orders {{ key: .id }}
    }}
  }}
  run Fetch
}}
"""
OFTEN = """mission M{number} {{
  schedule: every 10 seconds
  store out: memory("out")
  action Work {{ for n in [1, 2, 3] {{ store {{ id: n }} -> out {{ key: .id }} }} }}
  run Work
}}
"""
BUSY = """mission Busy{number} {{
  schedule: every 1 hour {{ runImmediately: true }}
  store out: memory("out")
  let ten = split("0,1,2,3,4,5,6,7,8,9", ",")
  action Work {{
    for a in ten {{ for b in ten {{ for c in ten {{ for d in ten {{ for e in ten {{ for f in ten {{ for g in ten {{
      let s = concat(a, b, c, d, e, f, g)
    }} }} }} }} }} }} }}
  }}
  run Work
}}
"""


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number and the most it may be."""

    name: str
    value: float
    bar: float
    unit: str

    @property
    def held(self) -> bool:
        return self.value <= self.bar


class Daemon:
    """One daemon over the missions of a folder."""

    def __init__(self, home: Path, *options: str, many: bool = False) -> None:
        self.home, self.many = home, many
        self.began = time.monotonic()
        self._log = (home / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "reqon", "missions", "--daemon", "--metrics-port", "0", *options],
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._log,
        )

    def ready(self) -> float:
        """Seconds from its start until it said so."""
        while b'"message":"ready"' not in self.log:
            if self.process.poll() is not None:
                raise RuntimeError(self.log.decode()[-2000:])
            time.sleep(0.02)
        return time.monotonic() - self.began

    @property
    def log(self) -> bytes:
        return (self.home / "log").read_bytes()

    @property
    def cpu(self) -> float:
        """Seconds of processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    @property
    def memory(self) -> float:
        """Resident MB now."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE / 2**20

    def settle(self) -> None:
        """Wait until it has compiled what its start has left."""
        time.sleep(2)
        while self.many and b'"message":"all missions are compiled"' not in self.log:
            time.sleep(0.5)
        time.sleep(3)

    def idle(self, seconds: float) -> float:
        """The share of a core, in percent, that it uses meanwhile."""
        began, before = time.monotonic(), self.cpu
        time.sleep(seconds)
        return 100 * (self.cpu - before) / (time.monotonic() - began)

    @property
    def port(self) -> int:
        found = re.search(rb'"purpose":"metrics","url":"http://127.0.0.1:(\d+)"', self.log)
        assert found
        return int(found[1])

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        finally:
            self.process.kill()
            self._log.close()


@contextmanager
def daemon(number: int, text: str, *options: str) -> Iterator[Daemon]:
    """A daemon over so many missions, a hundred a folder."""
    with tempfile.TemporaryDirectory(prefix="reqon-") as folder:
        home = Path(folder)
        for n in range(number):
            place = home / "missions" / f"group{n // 100:03d}"
            place.mkdir(parents=True, exist_ok=True)
            # Due at night, spread: none of them comes while we look.
            (place / f"m{n}.vague").write_text(
                text.format(number=n, minute=n % 60, hour=(time.localtime().tm_hour + 12) % 24)
            )
        running = Daemon(home, *options, many=number > 200)
        try:
            yield running
        finally:
            running.stop()


def at_percent(values: list[float], percent: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def start(number: int = 5000) -> Iterator[Figure]:
    """Many missions: how long until ready, and what they cost when nothing is due."""
    with daemon(number, RESTING) as one:
        seconds = one.ready()
        yield Figure(f"{number} missions: start", seconds, 10, "s")
        yield Figure(f"{number} missions: start, processor time", one.cpu, 10, "s")
        one.settle()
        yield Figure(f"{number} missions: idle", one.idle(30), 5, "% of a core")
        yield Figure(f"{number} missions: memory", one.memory, 750, "MB")


def idle(number: int = 1000) -> Iterator[Figure]:
    """The everyday size."""
    with daemon(number, RESTING) as one:
        one.ready()
        one.settle()
        yield Figure(f"{number} missions: idle", one.idle(30), 1, "% of a core")
        yield Figure(f"{number} missions: memory", one.memory, 150, "MB")


def lateness(number: int = 100, rounds: int = 6) -> Iterator[Figure]:
    """Missions that are all due at once, every ten seconds."""
    with daemon(number, OFTEN, "--max-running", "200") as one:
        one.ready()
        time.sleep(10 * rounds + 5)
        late = []
        for path in (one.home / ".vague-data" / "execution").glob("*.json"):
            record = orjson.loads(path.read_bytes())
            if record.get("scheduledFor"):
                began, due = (datetime.fromisoformat(record[key]) for key in ("startedAt", "scheduledFor"))
                late.append(1000 * (began - due).total_seconds())
    yield Figure(f"{number} due together: starts that are missing", number * rounds - len(late), 0, "")
    yield Figure(f"{number} due together: lateness, median", at_percent(late, 50), 250, "ms")
    yield Figure(f"{number} due together: lateness, p99", at_percent(late, 99), 250, "ms")


def scrapes(number: int = 300) -> Iterator[Figure]:
    """Scrapes while two missions compute without a pause, beside a hundred that rest."""
    with daemon(100, RESTING) as one:
        for n in range(2):
            (one.home / "missions" / f"busy{n}.vague").write_text(BUSY.format(number=n))
        one.ready()
        while one.log.count(b'"message":"mission.start"') < 2:
            time.sleep(0.05)
        took = []
        connection = HTTPConnection("127.0.0.1", one.port, timeout=30)
        for _ in range(number):
            began = time.perf_counter()
            connection.request("GET", "/metrics")
            body = connection.getresponse().read()
            took.append(1000 * (time.perf_counter() - began))
            assert body
            time.sleep(0.02)
        computing = one.log.count(b'"message":"mission.complete"') == 0
    yield Figure("scrape while missions compute: runs that ended meanwhile", 0 if computing else 1, 0, "")
    yield Figure("scrape while missions compute, median", at_percent(took, 50), 100, "ms")
    yield Figure("scrape while missions compute, p99", at_percent(took, 99), 100, "ms")


PARTS: dict[str, Callable[[], Iterator[Figure]]] = {
    "start": start,
    "idle": idle,
    "lateness": lateness,
    "scrapes": scrapes,
}


def table(figures: list[Figure]) -> str:
    lines = ["| What | Measured | Bar | |", "|---|---|---|---|"]
    for one in figures:
        held = "held" if one.held else "MISSED"
        lines.append(f"| {one.name} | {one.value:.4g} {one.unit} | {one.bar:g} {one.unit} | {held} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help=f"some of {', '.join(PARTS)}, with commas")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    figures: list[Figure] = []
    for name in (asked.only or ",".join(PARTS)).split(","):
        for figure in PARTS[name]():
            figures.append(figure)
            print(table([figure]).splitlines()[-1], flush=True)
    if asked.write:
        head = f"# The daemon under load\n\n`python -m benchmarks.daemon`, {os.cpu_count()} cores.\n\n"
        (HERE / "DAEMON.md").write_text(head + table(figures) + "\n")
    return 0 if all(figure.held for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
