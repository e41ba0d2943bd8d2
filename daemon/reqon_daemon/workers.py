"""Executions in processes of their own: as many at a time as the machine has cores, and none can end the daemon.

A run goes to the worker with the least to do. Runs of one mission, and runs that write to one file store, go to one
worker, since a store file has one writing process. A worker that dies, is killed for its memory, or does not stop when
it is told to, costs what any kill costs: its runs go on where they were, in a new one (spec/daemon.md 9).
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Self

import structlog

from reqon.errors import ReqonError
from reqon.events import Emitted, MissionStarted
from reqon.files import LockTakenError
from reqon.http.shared_limits import LimitsDesk
from reqon.runner import Runner
from reqon.runtime.plan import Plan
from reqon.runtime.request import CancelReason, RunRequest
from reqon.runtime.settings import store_settings
from reqon.state import recovery
from reqon.state.records import ExecutionRecord, ExecutionStatus, RunError
from reqon_daemon.catalog import Plan as Known
from reqon_daemon.plans import Planner, Twin, by_schedule
from reqon_daemon.relay import Begin, Cancel, Ended, Hello, Line, PlanKey, Ready, Reread, Told, Wake

log = structlog.get_logger(__name__)

# What a run gets to save itself once it is cancelled; a busy expression may not even hear of it.
STOP_SECONDS = 5.0
LEAVE_SECONDS = 2.0
_UNBEGUN = 3  # how often a run is tried whose worker died before it began
_PAGE = os.sysconf("SC_PAGE_SIZE")


class WorkerLostError(ReqonError):
    """The process of a run is gone, and the run cannot go on in another."""

    slug = "worker-lost"
    kind = "internal"


@dataclass(slots=True, eq=False)
class _Job:
    """A run in a worker; `pid` is the worker's."""

    request: RunRequest
    keys: frozenset[str]
    pid: int
    ended: "asyncio.Future[Ended | None]"
    execution_id: str | None

    def hears(self, emitted: Emitted) -> bool:
        """Whether this is the beginning of its run."""
        event = emitted.event
        return (
            self.execution_id is None
            and emitted.mission == self.request.mission
            and isinstance(event, MissionStarted)
            and event.scheduled_for == self.request.scheduled_for
        )

    def is_of(self, record: ExecutionRecord) -> bool:
        """Whether this is the record of its run."""
        owner = record.owner
        return owner is not None and owner.pid == self.pid and record.scheduled_for == self.request.scheduled_for


@dataclass(slots=True, eq=False)
class _Process:
    process: asyncio.subprocess.Process
    line: Line
    life: int  # closed, it ends the process
    jobs: dict[int, _Job] = field(default_factory=dict)
    known: set[PlanKey] = field(default_factory=set)
    alive: bool = True

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()


@dataclass(slots=True, kw_only=True)
class Workers:
    """`size` processes, started when they are needed. `run` is what the dispatcher calls.

    Attributes:
        memory_bytes: a worker that holds more is killed; None: no limit.
        lost: told of each execution whose process is gone, as it is recorded then.
    """

    planner: Planner
    runner: Runner
    size: int
    environment: Mapping[str, str]
    log_level: str | None = None
    memory_bytes: int | None = None
    lost: Callable[[ExecutionRecord], object] = lambda _: None
    _processes: list[_Process] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _readers: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    _desk: LimitsDesk | None = None
    _closing: bool = False

    # --- running ---

    async def run(self, plan: Known, request: RunRequest) -> ExecutionRecord:
        """Run it once, in a worker; see `Planner.run`.

        Raises:
            LockTakenError: another process runs the mission.
            WorkerLostError: its process died, and it keeps no state to go on from.
        """
        assert isinstance(plan, Twin)
        if plan.manual.waits is not None:
            return await self.planner.run(plan, request)  # webhooks arrive in the daemon's own process
        keys = _keys(plan.manual)
        unbegun = 0
        while True:
            ended, job = await self._tried(plan, request, keys)
            if ended is not None:
                return self._result(ended)
            record = await asyncio.to_thread(self._after_loss, plan.manual, job)
            if record is not None and record.status is not ExecutionStatus.INTERRUPTED:
                return record
            if record is not None:
                self.lost(record)  # here and not in the thread: who is told belongs to this loop
            unbegun += record is None
            if self._closing or unbegun >= _UNBEGUN:
                raise WorkerLostError("its worker process died before it began")
            if record is not None:
                request = replace(request, resume=True, execution_id=record.execution_id, force=False)

    async def _tried(self, plan: Twin, request: RunRequest, keys: frozenset[str]) -> tuple[Ended | None, _Job]:
        """One try in one worker; how it ended, None if the worker did."""
        process = await self._place(keys)
        number = next(self._numbers)
        ended_later = asyncio.get_running_loop().create_future()
        job = _Job(request, keys, process.process.pid, ended_later, request.execution_id)
        process.jobs[number] = job
        key = plan.definition_hash, by_schedule(request)
        program = None if key in process.known else plan.program
        process.known.add(key)
        process.line.send(Begin(number, request, key, program, self.runner.bus.kinds()))
        try:
            return await asyncio.shield(job.ended), job
        except asyncio.CancelledError as cancelled:
            reason = CancelReason(cancelled.args[0]) if cancelled.args else CancelReason.STOP
            ended = await self._cancelled(process, number, job, reason)
            if ended is not None and not ended.cancelled:
                return ended, job
            if ended is None:
                await asyncio.to_thread(self._record_killed, plan.manual, job, reason)
            raise
        finally:
            process.jobs.pop(number, None)
            async with self._changed:
                self._changed.notify_all()

    async def _cancelled(self, process: _Process, number: int, job: _Job, reason: CancelReason) -> Ended | None:
        """Tell a run to end; kill its process if it does not."""
        process.line.send(Cancel(number, reason))
        _, late = await asyncio.wait({job.ended}, timeout=STOP_SECONDS)
        if late:
            log.error("a run does not stop: its worker is killed", mission=job.request.mission, reason=reason.value)
            process.kill()
        return await job.ended

    def _result(self, ended: Ended) -> ExecutionRecord:
        if ended.record is not None:
            return ended.record
        if ended.error is None:
            raise asyncio.CancelledError
        code, message, hint, kind = ended.error
        if code == "already-running":
            raise LockTakenError(message)
        error = ReqonError(message, code=code, hint=hint)
        error.kind = kind
        raise error

    # --- when a process is gone ---

    def _after_loss(self, plan: Plan, job: _Job) -> ExecutionRecord | None:
        """The record of a run whose process died: interrupted, or failed when it died there too often; None: no run.

        Raises:
            WorkerLostError: there is none, since the mission keeps no state.
        """
        if not plan.enable_state:
            raise WorkerLostError("its worker process died, and with enableState: false nothing can go on")
        record = self._recovered(plan, job)
        if record is not None and record.status is ExecutionStatus.INTERRUPTED:
            log.error("an execution was lost with its worker", mission=plan.name, execution_id=record.execution_id)
            if recovery.gives_up(record):
                record = recovery.given_up(record, now=self.runner.clock.now())
                self.runner.state_of(plan).save(record)
        return record

    def _record_killed(self, plan: Plan, job: _Job, reason: CancelReason) -> None:
        """A run that had to be killed failed for the reason it was cancelled for."""
        record = self._recovered(plan, job)
        if record is None or reason not in (CancelReason.TIMEOUT, CancelReason.STUCK):
            return
        now = self.runner.clock.now()
        message = f"{reason.told}; it did not stop by itself, and its process was killed"
        at = record.active_step
        error = RunError(
            message=message,
            type=reason.value,
            at=now,
            action=at.action if at else None,
            step=at.step if at else None,
            hint=reason.hint,
        )
        self.runner.state_of(plan).save(
            replace(
                record,
                status=ExecutionStatus.FAILED,
                completed_at=now,
                errors=(*record.errors, error),
                errors_total=record.errors_total + 1,
            )
        )

    def _recovered(self, plan: Plan, job: _Job) -> ExecutionRecord | None:
        """The record of a lost run. One that was busy from its first moment on may never have told its id."""
        if not plan.enable_state:
            return None
        backend = self.runner.state_of(plan)
        recovery.recover(backend, self.runner.directory, mission=plan.name)
        if job.execution_id is not None:
            return backend.load(job.execution_id)
        recent = backend.list(plan.name, limit=5)
        return next((record for record in recent if job.is_of(record)), None)

    # --- processes ---

    def wake(self) -> None:
        """The daemon is stopping: whoever only waits saves itself."""
        for process in self._processes:
            process.line.send(Wake())

    def reread(self) -> None:
        """Read the credentials file again."""
        for process in self._processes:
            process.line.send(Reread())

    def tick(self) -> None:
        """Once a second: kill workers that hold more memory than they may."""
        for process in self._processes if self.memory_bytes is not None else ():
            held = _resident_bytes(process.process.pid)
            if process.alive and held > (self.memory_bytes or held):
                log.error("a worker holds too much memory and is killed", bytes=held, limit=self.memory_bytes)
                process.kill()

    async def __aenter__(self) -> Self:
        await self._readers.__aenter__()
        for _ in range(self.size):
            await self._start()  # now, so that no run waits for it
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let the workers go; those that do not leave are killed."""
        self._closing = True
        for process in self._processes:
            await process.line.close()
        killing = asyncio.get_running_loop().call_later(LEAVE_SECONDS, self._kill_all)
        await self._readers.__aexit__(None, None, None)
        killing.cancel()

    def _kill_all(self) -> None:
        for process in self._processes:
            process.kill()

    async def _place(self, keys: frozenset[str]) -> _Process:
        """The worker for a run that touches these; waits while two of them have what it needs."""
        while True:
            holders = [p for p in self._processes if p.alive and any(job.keys & keys for job in p.jobs.values())]
            if len(holders) == 1:
                return holders[0]
            if not holders:
                return await self._least_busy()
            async with self._changed:
                await self._changed.wait()

    async def _least_busy(self) -> _Process:
        async with self._starting:
            alive = [p for p in self._processes if p.alive]
            idle = next((p for p in alive if not p.jobs), None)
            if idle is None and len(alive) < self.size:
                return await self._start()
            return idle or min(alive, key=lambda p: len(p.jobs))

    async def _start(self) -> _Process:
        ours, theirs = socket.socketpair()
        limits, their_limits = socket.socketpair()
        their_life, life = os.pipe()
        inherited = (theirs.fileno(), their_limits.fileno(), their_life)
        words = [sys.executable, "-m", "reqon_daemon.worker", *map(str, inherited)]
        with theirs, their_limits:
            try:
                process = await asyncio.create_subprocess_exec(
                    *words, pass_fds=inherited, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
                )
            finally:
                os.close(their_life)
        if self._desk is None:
            self._desk = LimitsDesk(self.runner.connections)
        self._desk.serve(limits)
        line = Line(*await asyncio.open_unix_connection(sock=ours))
        # Webhooks come to us, and documents have been downloaded anew by us.
        settings = replace(self.runner.settings, webhooks=None, no_oas_cache=False)
        line.send(Hello(settings, dict(self.environment), self.log_level))
        started = _Process(process, line, life)
        self._processes.append(started)
        self._readers.create_task(self._listen(started), name=f"worker {process.pid}")
        return started

    async def _listen(self, process: _Process) -> None:
        """Hear a worker until it is gone."""
        while (message := await process.line.receive()) is not None:
            match message:
                case Ready():
                    log.info("worker ready", pid=process.process.pid)
                case Told(events):
                    self._tell(process, events)
                case Ended(number):
                    job = process.jobs.get(number)
                    if job is not None and not job.ended.done():
                        job.ended.set_result(message)
        process.alive = False
        process.kill()
        code = await process.process.wait()
        os.close(process.life)
        await process.line.close()
        self._processes.remove(process)
        if not self._closing:
            log.error("a worker is gone", pid=process.process.pid, exit=code, runs=len(process.jobs))
        for job in process.jobs.values():
            if not job.ended.done():
                job.ended.set_result(None)

    def _tell(self, process: _Process, told: Iterable[Emitted]) -> None:
        for emitted in told:
            for job in process.jobs.values():
                if job.hears(emitted):
                    job.execution_id = emitted.execution_id
                    break
            self.runner.bus.emit(emitted)


def _keys(plan: Plan) -> frozenset[str]:
    """What two runs must not have in two processes: the mission, and its store files."""
    keys = {f"mission {plan.name}"}
    for definition in plan.program.stores.values():
        with suppress(ReqonError):  # told by the run itself
            chosen = store_settings(definition, plan.evaluate)
            if chosen.adapter == "file":
                keys.add(f"file {chosen.options.get('dir', '')} {chosen.identifier}")
    return frozenset(keys)


def _resident_bytes(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
