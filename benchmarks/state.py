"""What state costs: syncs at a checkpoint, and how long a resume of a long run takes until its first item.

    python -m benchmarks.state [ITEMS]

Prints figures beside their bars; nothing is asserted. What an item costs with state on over state off is a workload of
`make bench` (W6).
"""

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from reqon import files
from reqon.diagnostics import Source
from reqon.events import CheckpointSaved, EventBus
from reqon.lang.loader import load_text
from reqon.runner import Runner, RunnerSettings
from reqon.runtime.request import RunRequest
from reqon.values import encode

BAR_SECONDS = 3.0
MISSION = """
mission Long {{
  source Shop {{ auth: none, base: "{url}" }}
  store customers: file("customers")
  store details: file("details")
  action Detail {{
    for customer in customers{every} {{
      get "/customers/{{customer.id}}"
      store {{ id: customer.id, seen: true }} -> details {{ key: .id }}
    }}
  }}
  run Detail
}}
"""
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"ok": true} '


class Api:
    """Answers every request at once, and knows when they came."""

    def __init__(self) -> None:
        self.arrived: list[float] = []
        self.url = ""
        self._came = asyncio.Event()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.arrived.append(time.perf_counter())
                self._came.set()
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def until(self, count: int) -> None:
        while len(self.arrived) < count:
            self._came.clear()
            await self._came.wait()


def write_customers(state: Path, count: int) -> None:
    """A store of so many records, as a run leaves it."""
    path = state / "stores" / "customers.json"
    path.parent.mkdir(parents=True)
    records = {f"c{n:08d}": {"id": f"c{n:08d}", "name": f"Customer {n}", "city": "Ulm"} for n in range(count)}
    path.write_bytes(encode(records, pretty=True) + b"\n")


def cpu_seconds(pid: int) -> float:
    """What a process has worked so far: on a busy machine the fairer figure."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def first_item_seconds(api: Api, folder: Path, count: int) -> tuple[tuple[float, float], ...]:
    """From the start of a run, and of the resume of it, to its first request: by the clock, and of work."""
    state, mission = folder / "state", folder / "long.vague"
    write_customers(state, count)
    mission.write_text(MISSION.format(url=api.url, every=""))
    command = [str(Path(sys.executable).with_name("reqon")), str(mission), "--state-dir", str(state)]
    taken = []
    for options in ([], ["--resume"]):
        api.arrived.clear()
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(*command, *options, stdout=asyncio.subprocess.DEVNULL)
        await api.until(1)
        taken.append((api.arrived[0] - began, cpu_seconds(process.pid)))
        await api.until(2000)
        process.send_signal(signal.SIGKILL)
        await process.wait()
    return tuple(taken)


async def syncs_at_checkpoints(api: Api, folder: Path) -> Counter[int]:
    """How many syncs belong to a checkpoint: number of syncs -> number of checkpoints."""
    state = folder / "few"
    write_customers(state, 300)
    bus, seen, found = EventBus(), [0], Counter[int]()

    def passed(name: str) -> None:
        seen[0] += name.startswith("before-") and name.endswith("-sync")

    def saved(_: object) -> None:
        found[seen[0]] += 1
        seen[0] = 0

    bus.on(CheckpointSaved, saved)
    program = load_text(Source("long.vague", MISSION.format(url=api.url, every=" checkpoint every 20"))).missions[0]
    runner = Runner(RunnerSettings(state_directory=state), bus=bus)
    runner.open()
    files.arm("*", passed)
    try:
        plan = runner.plan(program)
        await runner.run(
            plan, RunRequest(mission=plan.name, path="long.vague", definition_hash=program.definition_hash)
        )
    finally:
        files.arm("*", None)
        await runner.close()
    return found


async def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    api = Api()
    await api.start()
    with tempfile.TemporaryDirectory() as folder:
        syncs = await syncs_at_checkpoints(api, Path(folder))
        print(f"syncs at a checkpoint: {dict(syncs)}: a store and the journal, once each")
        for name, (seconds, worked) in zip(
            ("a run", "its resume"), await first_item_seconds(api, Path(folder), count), strict=True
        ):
            print(
                f"{count} items, {name}: its first after {seconds:.2f} s, {worked:.2f} s of work, bar {BAR_SECONDS} s"
            )


if __name__ == "__main__":
    asyncio.run(main())
