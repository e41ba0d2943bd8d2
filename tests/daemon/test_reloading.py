import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from reqon.clock import SYSTEM
from reqon.lang.program import MissionProgram
from reqon.runtime.request import RunRequest
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionRecord, ExecutionStatus
from reqon_daemon.alarm import TimerAlarm
from reqon_daemon.catalog import Catalog, Plan, Reload
from reqon_daemon.commands import reload_missions
from reqon_daemon.dispatcher import Dispatcher, Limits
from reqon_daemon.happenings import Happenings, SlotDecided
from reqon_daemon.ledger import Ledger
from reqon_daemon.schedule import Scheduler
from reqon_daemon.watch import Watcher
from tests.support.timetable import TimedPlan

EDITS = 1000 if os.environ.get("REQON_SLOW") else 40
LIVE_SECONDS = 6.0

TEXT = """mission {name} {{
  schedule: every 1 second {{ skipIfRunning: false, maxConcurrency: 4 }}
  store kept: memory("kept")
  action A {{ store {{ id: {number} }} -> kept {{ key: .id }} }}
  run A
}}
"""


def text(name: str, number: int) -> str:
    return TEXT.format(name=name, number=number)


@dataclass
class Half:
    """The scheduling half of a daemon, on real time and real files."""

    catalog: Catalog
    scheduler: Scheduler
    dispatcher: Dispatcher
    reloads: list[Reload] = field(default_factory=list)
    decided: list[SlotDecided] = field(default_factory=list)
    began: list[str] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    came: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def live(self, check: Callable[[], bool], seconds: float = LIVE_SECONDS) -> None:
        async with asyncio.timeout(seconds), self.came:
            await self.came.wait_for(check)


@asynccontextmanager
async def half(missions: Path, state: Path, first_run: asyncio.Event | None = None) -> AsyncIterator[Half]:
    def plan(program: MissionProgram) -> Plan:
        return TimedPlan(program.name, program, program.definition_hash)

    async def run(plan: Plan, _request: RunRequest) -> ExecutionRecord:
        found.began.append(plan.name)
        if first_run is not None and len(found.began) == 1:
            await first_run.wait()
        found.seen.append((plan.name, plan.definition_hash))
        return ExecutionRecord(
            execution_id="exec_a", mission=plan.name, started_at=SYSTEM.now(), status=ExecutionStatus.COMPLETED
        )

    happenings = Happenings()
    ledger = Ledger(StateDirectory(state), happenings=happenings)
    ledger.open()
    catalog = Catalog([missions], plan=plan, skip=[state])
    limits = Limits(grace_seconds=5.0)
    dispatcher = Dispatcher(run=run, missions=catalog, ledger=ledger, happenings=happenings, limits=limits)
    scheduler = Scheduler(ledger=ledger, dispatcher=dispatcher, happenings=happenings)
    found = Half(catalog, scheduler, dispatcher)
    happenings.on(SlotDecided, found.decided.append)
    watcher = Watcher([missions])

    async def watch() -> None:
        async for _ in watcher.looks():
            done = await reload_missions(catalog, scheduler, happenings)
            async with found.came:
                found.reloads.append(done)
                found.came.notify_all()

    stop, end = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        serving = group.create_task(dispatcher.serve(end))
        await asyncio.sleep(0)
        await reload_missions(catalog, scheduler, happenings, settle=False)
        watcher.start()
        watching = group.create_task(watch())
        ticking = group.create_task(scheduler.serve(stop, TimerAlarm()))
        try:
            yield found
        finally:
            watching.cancel()
            watcher.stop()
            stop.set()
            await asyncio.wait([ticking])
            end.set()
            await asyncio.wait([serving])
    ledger.commit_blocking()
    ledger.close()


def slots(found: Half, name: str) -> None:
    """Every second from the first to the last decision is covered once."""
    spans = [(d.first_due, d.due) for d in found.decided if d.mission == name]
    assert spans
    for (_, before), (after, _) in pairwise(spans):
        assert after - before == timedelta(seconds=1)


async def test_a_broken_edit_is_mended_while_a_run_is_in_flight(tmp_path: Path) -> None:
    """H1: syntax error, then fix, with a run in flight: last good stays; fix live within 6 s; run untouched."""
    missions = tmp_path / "missions"
    missions.mkdir()
    path = missions / "m.vague"
    path.write_text(text("M", 1))
    release = asyncio.Event()
    async with half(missions, tmp_path / "state", release) as found:
        first = found.catalog.missions["M"].plan.definition_hash
        await asyncio.sleep(1.2)
        assert found.began
        path.write_text("mission M {")
        await found.live(lambda: bool(found.catalog.broken))
        assert found.catalog.missions["M"].plan.definition_hash == first
        path.write_text(text("M", 2))
        await found.live(lambda: not found.catalog.broken)
        second = found.catalog.missions["M"].plan.definition_hash
        assert second != first
        await asyncio.sleep(1.2)
        assert found.seen[-1] == ("M", second)
        release.set()
        await asyncio.sleep(0.1)
        assert ("M", first) in found.seen[-2:]  # the one in flight ends as the version it began as
    slots(found, "M")


def overwrite(path: Path, content: str) -> None:
    path.write_text(content)


def rename_over(path: Path, content: str) -> None:
    new = path.with_name(f".{path.name}.swp")
    new.write_text(content)
    new.replace(path)


def recreate(path: Path, content: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(content)


def link_swap(path: Path, content: str) -> None:
    kept = path.parent / "..versions"
    kept.mkdir(exist_ok=True)
    target = kept / f"{len(list(kept.iterdir()))}.vague"
    target.write_text(content)
    link = path.with_name("..new")
    link.symlink_to(target)
    link.replace(path)


def half_first(path: Path, content: str) -> None:
    path.write_text(content[: len(content) // 2])
    with path.open("a") as file:
        file.write(content[len(content) // 2 :])


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def own_threads() -> int:
    """Threads but those of the loop's executor, which starts a few as it needs them."""
    return sum(not thread.name.startswith("asyncio_") for thread in threading.enumerate())


@pytest.mark.slow
@pytest.mark.timeout(1800)
async def test_many_edits_of_five_kinds_end_in_the_last_content(tmp_path: Path) -> None:
    """H2: 1,000 edits of five kinds: last content scheduled, no slot lost, threads and descriptors ± 0."""
    missions = tmp_path / "missions"
    missions.mkdir()
    (missions / "steady.vague").write_text(text("Steady", 0))
    path = missions / "edited.vague"
    path.write_text(text("Edited", 0))
    chance = Random(11)
    kinds = (overwrite, rename_over, recreate, link_swap, half_first)
    async with half(missions, tmp_path / "warm"):
        await asyncio.sleep(0.1)
    threads, descriptors = own_threads(), open_files()
    async with half(missions, tmp_path / "state") as found:
        for number in range(1, EDITS + 1):
            chance.choice(kinds)(path, text("Edited", number))
            await asyncio.sleep(chance.choice((0.0, 0.01, 0.05, 0.3, 0.8)))
        last = chance.choice(kinds)
        last(path, text("Edited", 10_000))
        expected = "10000"
        await found.live(lambda: expected in found.catalog.missions["Edited"].plan.program.files[0].text)
        assert not found.catalog.broken
        await asyncio.sleep(1.5)
    slots(found, "Steady")
    slots(found, "Edited")
    assert own_threads() <= threads
    assert open_files() <= descriptors
