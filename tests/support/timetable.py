"""A scheduler and dispatcher with missions that only take time, on a clock of ours and a ledger on disk."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from reqon.diagnostics import Source, Span
from reqon.files import Disk
from reqon.lang import nodes
from reqon.lang.cron import read_cron
from reqon.lang.program import MissionProgram
from reqon.runtime.request import RunRequest
from reqon.state.directory import StateDirectory
from reqon.state.records import ExecutionRecord, ExecutionStatus, RunError
from reqon_daemon.catalog import Loaded, Plan
from reqon_daemon.dispatcher import Dispatcher, Limits
from reqon_daemon.happenings import Happening, Happenings, SlotDecided
from reqon_daemon.ledger import Ledger
from reqon_daemon.policy import Policy, cron_rule
from reqon_daemon.schedule import Scheduler
from reqon_daemon.slots import Every, Once, Schedule
from reqon_daemon.zones import zone
from tests.support.clocks import FakeClock

UTC_ZONE = zone("UTC")


class UnsyncedDisk(Disk):
    """A disk that says it has synced: for tests that lose no power and make many decisions."""

    def sync(self, fd: int, what: str) -> None: ...
    def sync_dir(self, path: Path) -> None: ...


@dataclass(frozen=True)
class TimedPlan:
    """A plan that does nothing."""

    name: str
    program: MissionProgram
    definition_hash: str = "h1"


def every(seconds: int) -> Schedule:
    return Schedule(rule=Every(seconds), text=f"every {seconds} seconds", zone=UTC_ZONE)


def cron(text: str, where: str = "UTC") -> Schedule:
    return Schedule(rule=cron_rule(read_cron(text), zone(where)), text=f'cron "{text}"', zone=zone(where))


def once(instant: datetime) -> Schedule:
    return Schedule(rule=Once(int(instant.timestamp())), text=f'at "{instant}"', zone=UTC_ZONE)


def mission(name: str = "M", schedule: Schedule | None = None, **policy: Any) -> Loaded:
    span = Span(Source(f"{name}.vague", f"mission {name} {{}}"), 8, 8 + len(name))
    node = nodes.MissionDef(span=span, name=nodes.Word(span=span, text=name), clauses=())
    program = MissionProgram(
        name=name,
        node=node,
        path=Path(f"{name}.vague"),
        files=(span.source,),
        definition_hash="h1",
        schedule=None,
        options={},
        sources={},
        stores={},
        schemas={},
        transforms={},
        actions={},
        lets={},
        pipeline=None,
    )
    return Loaded(TimedPlan(name, program), Policy(schedule=schedule, **policy), Path(f"{name}.vague"))


async def inline(work: Callable[[], None]) -> None:
    """A thread would let time pass on a clock of ours while it works."""
    work()


@dataclass
class Timetable:
    """What one daemon's scheduling half is made of. `runs` are the requests that were run, `took` seconds each."""

    state: Path
    clock: FakeClock
    missions: dict[str, Loaded] = field(default_factory=dict)
    took: Callable[[RunRequest], float] = lambda _: 0.0
    status: Callable[[RunRequest], ExecutionStatus] = lambda _: ExecutionStatus.COMPLETED
    limits: Limits = field(default_factory=lambda: Limits(grace_seconds=0.0))
    runs: list[RunRequest] = field(default_factory=list)
    began: list[tuple[str, datetime]] = field(default_factory=list)
    ended: list[tuple[str, datetime]] = field(default_factory=list)
    happenings: list[Happening] = field(default_factory=list)
    perform: Callable[[Plan, RunRequest], Awaitable[ExecutionRecord]] | None = None
    _asleep: list[tuple[float, asyncio.Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bus = Happenings()
        self.bus.on(Happening, self.happenings.append)
        self.open()

    def open(self) -> None:
        """As a daemon that has just started; again for the next one."""
        self._asleep = []
        directory = StateDirectory(self.state, disk=UnsyncedDisk(), clock=self.clock)
        self.ledger = Ledger(directory, clock=self.clock, happenings=self.bus, offload=inline)
        self.ledger.open()
        self.dispatcher = Dispatcher(
            run=self.perform or self._run,
            missions=self.missions,
            ledger=self.ledger,
            clock=self.clock,
            happenings=self.bus,
            limits=self.limits,
            random=lambda: 0.5,
        )
        self.scheduler = Scheduler(
            ledger=self.ledger, dispatcher=self.dispatcher, clock=self.clock, happenings=self.bus
        )

    def load(self, *missions: Loaded) -> None:
        self.missions.clear()
        self.missions.update({m.name: m for m in missions})

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Timetable"]:
        """The dispatcher at work and the missions scheduled; time is still ours."""
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.dispatcher.serve(stop))
            await asyncio.sleep(0)
            self.scheduler.replace(self.missions)
            try:
                yield self
            finally:
                stop.set()
        self.ledger.commit_blocking()
        self.ledger.close()

    async def until(self, instant: datetime) -> None:
        """Let the scheduler work until then: it ticks at each due time, at each run's end, and every second."""
        while True:
            await self.scheduler.tick()
            await self._settle()
            left = (instant - self.clock.now()).total_seconds()
            if left <= 0:
                return
            due = self.scheduler._earliest()
            until_due = (due - self.clock.now()).total_seconds() if due else 1.0
            until_end = min((moment - self.clock.monotonic() for moment, _ in self._asleep), default=1.0)
            await self.step(max(min(until_due, until_end, left, 1.0), 1e-3))

    async def step(self, seconds: float) -> None:
        """Let time pass without the scheduler; runs whose time is over end."""
        self.clock.advance(seconds)
        moment = self.clock.monotonic() + 1e-6
        for until, woken in self._asleep:
            if until <= moment:
                woken.set()
        self._asleep = [(until, woken) for until, woken in self._asleep if until > moment]
        await self._settle()

    async def finish(self) -> None:
        """Let time pass until nothing runs or queues."""
        await self._settle()
        while self._asleep or self.dispatcher.running:
            ends = min((until for until, _ in self._asleep), default=0.0)
            await self.step(max(ends - self.clock.monotonic(), 0.0))

    async def find_run(self, name: str, due: datetime) -> ExecutionRecord | None:
        """The record of a slot's run."""
        return next((self.record(r, 0) for r in self.runs if (r.mission, r.scheduled_for) == (name, due)), None)

    def record(self, request: RunRequest, number: int) -> ExecutionRecord:
        status = self.status(request)
        now = self.clock.now()
        errors = (RunError(message="it broke", type="http", at=now),) if status is ExecutionStatus.FAILED else ()
        return ExecutionRecord(
            execution_id=request.execution_id or f"exec_{number}",
            mission=request.mission,
            started_at=now,
            completed_at=now,
            status=status,
            trigger=request.trigger,
            scheduled_for=request.scheduled_for,
            errors=errors,
        )

    async def _settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)

    async def pass_seconds(self, seconds: float) -> None:
        await self.until(self.clock.now() + timedelta(seconds=seconds))

    @property
    def decided(self) -> list[SlotDecided]:
        return [h for h in self.happenings if isinstance(h, SlotDecided)]

    def dues(self, name: str = "M") -> list[datetime]:
        """The due times that were run."""
        return [r.scheduled_for for r in self.runs if r.mission == name and r.scheduled_for is not None]

    async def _run(self, plan: Plan, request: RunRequest) -> ExecutionRecord:
        self.runs.append(request)
        began = self.clock.now()
        self.began.append((plan.name, began))
        number = len(self.runs)
        seconds = self.took(request)
        if seconds:
            woken = asyncio.Event()
            self._asleep.append((self.clock.monotonic() + seconds, woken))
            await woken.wait()
        self.ended.append((plan.name, self.clock.now()))
        return self.record(request, number)
