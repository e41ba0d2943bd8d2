"""Who may run now: overlap, cap, queue, timeouts, reruns, drain. Owns the task of every run (daemon.md 2, 7)."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from reqon import events
from reqon.clock import SYSTEM, Clock
from reqon.errors import ReqonError, StateError
from reqon.runtime.request import CancelReason, RunRequest
from reqon.state.records import ExecutionRecord, Trigger
from reqon_daemon.catalog import Loaded, Plan
from reqon_daemon.happenings import (
    Happenings,
    MissionPaused,
    MissionUnpaused,
    RetryPlanned,
    RunEnded,
    RunNotBegun,
    RunOutcome,
    RunQueued,
    RunStarted,
    SlotOutcome,
)
from reqon_daemon.ledger import Ledger, Pause, PendingRetry
from reqon_daemon.reruns import Reruns
from reqon_daemon.runs import Ending, Job, Running, ended_by_cancel, ended_by_record

log = logging.getLogger("reqon.dispatcher")

RunPlan = Callable[[Plan, RunRequest], Awaitable[ExecutionRecord]]

QUEUE_LIMIT = 10_000
_CANCEL_SECONDS = 1.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Codes of errors that say: another process runs this mission.
_RUNS_ELSEWHERE = ("already-running", "locked")
# What counts as headway for `stuckAfter`: an item, a page or a step is done.
_HEADWAY = (
    events.PageFetched,
    events.FetchCompleted,
    events.ActionEnded,
    events.DataStored,
    events.CheckpointSaved,
)


class Missions(Protocol):
    """Where the missions in service are found: the catalog."""

    def get(self, mission: str) -> Loaded | None: ...


@dataclass(slots=True, kw_only=True)
class Limits:
    """`max_running` bounds running executions; `grace_seconds` is what they get to finish when the daemon stops."""

    max_running: int = 32
    grace_seconds: float = 25.0


def _nothing() -> None: ...


@dataclass(slots=True)
class Dispatcher:
    """Takes jobs, starts those that may run, and writes down how they ended.

    A mission runs once at a time, or up to `maxConcurrency` times with `skipIfRunning: false`. When the cap is reached
    jobs queue; those that a person asked for go first, then the mission whose last success is oldest. `run` is
    `Runner.run`; `wake` (`Runner.stop.wake`) is called when the daemon stops, so that who only waits saves itself.
    """

    run: RunPlan
    missions: Missions
    ledger: Ledger
    clock: Clock = SYSTEM
    happenings: Happenings = field(default_factory=Happenings)
    limits: Limits = field(default_factory=Limits)
    random: Callable[[], float] = random.random
    wake: Callable[[], None] = _nothing
    _queue: list[Job] = field(default_factory=list)
    _running: dict[str, list[Running]] = field(default_factory=dict)
    _reruns: Reruns = field(init=False)
    _group: asyncio.TaskGroup | None = None
    _stopping: bool = False
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._reruns = Reruns(self.ledger, self.clock, self.random)

    # --- asking ---

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def stopping(self) -> bool:
        return self._stopping

    @property
    def running(self) -> list[Running]:
        return [run for runs in self._running.values() for run in runs]

    def running_of(self, mission: str) -> Sequence[Running]:
        return tuple(self._running.get(mission, ()))

    def queued_of(self, mission: str) -> list[Job]:
        return [job for job in self._queue if job.mission == mission]

    def busy(self, mission: str) -> int:
        """Runs of this mission that are under way or queued."""
        return len(self._running.get(mission, ())) + len(self.queued_of(mission))

    def retry_of(self, mission: str) -> PendingRetry | None:
        """The rerun that waits for its time."""
        return self._reruns.of(mission)

    def pause_of(self, mission: str) -> Pause | None:
        """The pause in force."""
        standing = self.ledger.standing(mission)
        pause = standing.pause if standing else None
        return None if pause is None or (pause.until and pause.until <= self.clock.now()) else pause

    # --- telling ---

    def submit(self, *jobs: Job) -> None:
        """Queue these and start what may start. Decisions about their slots are on disk by now."""
        now = self.clock.now()
        self._queue.extend(jobs)
        for job in jobs:
            queued = RunQueued(at=now, mission=job.mission, trigger=job.trigger, due=job.due, queued=len(self._queue))
            self.happenings.emit(queued)
        self._pump()

    def trigger(
        self, mission: str, *, resume: bool = False, execution_id: str | None = None, force: bool = False
    ) -> str:
        """Run a mission because somebody asked; what will happen, in words.

        Raises:
            ReqonError: no such mission, or the daemon is stopping.
        """
        if self.missions.get(mission) is None:
            raise ReqonError(f"no mission '{mission}' is loaded", code="unknown-mission")
        if self._stopping:
            raise ReqonError("the daemon is stopping: nothing new starts", code="stopping")
        if any(job.trigger is Trigger.MANUAL for job in self.queued_of(mission)):
            return "already queued"
        job = Job(mission=mission, trigger=Trigger.MANUAL, resume=resume, execution_id=execution_id, force=force)
        before = self.running_of(mission)
        self.submit(job)
        if job not in self._queue:
            return "started"
        return (
            f"queued behind {before[0].execution_id or 'a run of it'}"
            if before
            else "queued: the daemon is at its limit"
        )

    async def pause(self, mission: str, *, seconds: float | None = None, reason: str = "") -> Pause:
        """No slot and no rerun starts until the mission is unpaused, or for so many seconds. Restarts keep it."""
        now = self.clock.now()
        until = None if seconds is None else now + timedelta(seconds=seconds)
        pause = Pause(since=now, until=until, reason=reason)
        self.ledger.update(mission, pause=pause)
        await self.ledger.commit()
        self.happenings.emit(MissionPaused(at=now, mission=mission, until=until, reason=reason))
        return pause

    async def unpause(self, mission: str) -> bool:
        """End a pause; False if there was none."""
        standing = self.ledger.standing(mission)
        if standing is None or standing.pause is None:
            return False
        self.ledger.update(mission, pause=None)
        await self.ledger.commit()
        self.happenings.emit(MissionUnpaused(at=self.clock.now(), mission=mission))
        self._pump()
        return True

    async def cancel(self, mission: str) -> int:
        """End what runs, queues and waits of this mission; how many that were."""
        runs = self.running_of(mission)
        for run in runs:
            run.cancel(CancelReason.OPERATOR)
        jobs = self.queued_of(mission)
        self._queue = [job for job in self._queue if job.mission != mission]
        for job in jobs:
            self._amend(job, outcome=SlotOutcome.MISSED, reason="cancelled while it was queued", ended=True)
        waiting = self._reruns.drop(mission)
        await self.ledger.commit()
        return len(runs) + len(jobs) + (waiting is not None)

    def restore(self, mission: str) -> None:
        """Take up the rerun that a former daemon had planned for this mission."""
        self._reruns.restore(mission)

    def hasten_retry(self, mission: str) -> PendingRetry | None:
        """Make a waiting rerun due now; a slot that comes meanwhile need not start a second run."""
        return self._reruns.hasten(mission)

    # --- running ---

    async def serve(self, stop: asyncio.Event) -> None:
        """Run what is submitted until `stop`; then give runs the grace, cancel what is late, and return."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._pump()
                try:
                    await stop.wait()
                finally:
                    self._stopping = True
                await self._drain()
        finally:
            self._group = None

    def tick(self) -> None:
        """Once a second: end runs that are over their time or stuck, start reruns that are due, fill free places."""
        moment = self.clock.monotonic()
        for run in self.running:
            overdue = run.overdue(moment)
            if overdue is not None:
                run.cancel(overdue)
        for mission in self._reruns.due():
            if self.missions.get(mission) and not self.pause_of(mission):
                self._rerun(mission)
        if self._queue:
            self._pump()

    def observe(self, emitted: events.Emitted) -> None:
        """Hear an event of a run: which execution it is, and that it gets on."""
        run = self._run_of(emitted)
        if run is None:
            return
        moment = self.clock.monotonic()
        event = emitted.event
        if isinstance(event, _HEADWAY):
            run.headway = moment
        elif isinstance(event, events.Progressed):
            progress = (event.current, event.items_processed)
            if progress != run.progress:
                run.progress, run.headway = progress, moment

    def _run_of(self, emitted: events.Emitted) -> Running | None:
        runs = self._running.get(emitted.mission, ())
        for run in runs:
            if run.execution_id == emitted.execution_id:
                return run
        for run in runs:
            if run.execution_id is None and self._is_start_of(run, emitted.event):
                run.execution_id = emitted.execution_id
                self._amend(run.job, begun=True, execution_id=emitted.execution_id)
                return run
        return None

    def _is_start_of(self, run: Running, event: events.Event) -> bool:
        return isinstance(event, events.MissionStarted) and event.scheduled_for in (None, run.job.due)

    def _pump(self) -> None:
        """Start what may start, the most urgent first."""
        if self._group is None or self._stopping or not self._queue:
            return
        places = self.limits.max_running - len(self.running)
        if places <= 0:
            return
        left: list[Job] = []
        for job in sorted(self._queue, key=self._urgency):
            loaded = self.missions.get(job.mission)
            if loaded is None:
                self._amend(job, outcome=SlotOutcome.MISSED, reason="its mission was removed", ended=True)
            elif places > 0 and len(self._running.get(job.mission, ())) < loaded.policy.max_runs:
                places -= 1
                self._start(job, loaded, self._group)
            else:
                left.append(job)
        self._queue = left

    def _urgency(self, job: Job) -> tuple[bool, datetime, datetime]:
        standing = self.ledger.standing(job.mission)
        succeeded = standing.last_success if standing else None
        return job.trigger is not Trigger.MANUAL, succeeded or _EPOCH, job.due or _EPOCH

    def _start(self, job: Job, loaded: Loaded, group: asyncio.TaskGroup) -> None:
        now, moment = self.clock.now(), self.clock.monotonic()
        task = group.create_task(self._perform(job, loaded), name=f"run {job.mission}")
        run = Running(job, loaded, task, now, moment, moment, None if job.force else job.execution_id)
        self._running.setdefault(job.mission, []).append(run)
        # Told at once, so that whoever is asked next knows; the task itself has not begun.
        task.add_done_callback(lambda _: self._gone(run))
        self.happenings.emit(
            RunStarted(
                at=now,
                mission=job.mission,
                trigger=job.trigger,
                due=job.due,
                lag_seconds=None if job.due is None or job.attempt > 1 else max(0.0, (now - job.due).total_seconds()),
                attempt=job.attempt,
                queued=len(self._queue),
            )
        )

    def _gone(self, run: Running) -> None:
        runs = self._running.get(run.job.mission, [])
        if run in runs:  # cancelled before it began; a slot's run that a stop cut off here is begun by the next daemon
            runs.remove(run)
            reason = "cancelled before it began"
            if run.reason is CancelReason.OPERATOR:
                self._amend(run.job, outcome=SlotOutcome.MISSED, reason=reason, ended=True)
            self._tell_not_begun(run.job, reason)
        if not runs:
            self._running.pop(run.job.mission, None)
        self._pump()

    async def _perform(self, job: Job, loaded: Loaded) -> None:
        run = next(r for r in self._running[job.mission] if r.job is job)
        try:
            await self._mark_begun(run)
            record = await self.run(loaded.plan, job.request(loaded))
        except asyncio.CancelledError:
            await self._finish(run, ended_by_cancel(run))
            raise
        except ReqonError as error:
            if error.diagnostics[0].code in _RUNS_ELSEWHERE:
                log.warning("%s", error.message)
                self._amend(job, outcome=SlotOutcome.SKIPPED_OVERLAP, reason=error.message, ended=True)
                await self._finish(run, None)
                self._tell_not_begun(job, error.message)
                return
            await self._finish(run, Ending(RunOutcome.FAILURE, None, error.message, error.kind, run.execution_id))
        except Exception as error:  # one of the four walls: a fault in one run must not end the others
            log.exception("run of %s failed", job.mission)
            problem = f"{type(error).__name__}: {error}"
            await self._finish(run, Ending(RunOutcome.FAILURE, None, problem, "internal", run.execution_id))
        else:
            await self._finish(run, ended_by_record(run, record))

    async def _mark_begun(self, run: Running) -> None:
        """Without a record only the ledger knows that a slot's run began, and it must know first."""
        if run.job.due is not None and not run.loaded.policy.keeps_state:
            self._amend(run.job, begun=True)
            await self.ledger.commit()

    async def _finish(self, run: Running, ended: Ending | None) -> None:
        """Write down how it ended, plan a rerun, say so. None: it never ran."""
        job, now = run.job, self.clock.now()
        self._running[job.mission].remove(run)
        retry = None
        if ended is not None:
            # Where no record tells why it failed, its slot does.
            untold = ended.outcome is RunOutcome.FAILURE and ended.execution_id is None
            reason = f"failed: {ended.error}" if untold else None
            self._amend(job, begun=True, ended=True, execution_id=ended.execution_id, reason=reason)
            self.ledger.update(job.mission, **self._result(run, ended, now))
            retry = self._plan_retry(run, ended)
            if ended.outcome is RunOutcome.SUCCESS:  # whoever made it good, nothing is left to repeat
                self._reruns.drop(job.mission)
        try:
            await self.ledger.commit()
        except StateError as error:
            log.error("%s", error.message)  # noqa: TRY400  # it has no traceback worth showing
        if ended is not None:
            self._tell_end(run, ended, retry, now)

    def _result(self, run: Running, ended: Ending, now: datetime) -> dict[str, object]:
        standing = self.ledger.register(run.job.mission)
        success = ended.outcome is RunOutcome.SUCCESS
        failures = standing.consecutive_failures
        if ended.outcome is RunOutcome.FAILURE:
            failures += 1
        return {
            "last_run": run.started_at,
            "last_success": now if success else standing.last_success,
            "last_outcome": ended.outcome.value,
            "last_execution": ended.execution_id,
            "last_duration_seconds": round(self.clock.monotonic() - run.began, 3),
            "last_items": ended.record.items_processed if ended.record else standing.last_items,
            "consecutive_failures": 0 if success else failures,
        }

    def _plan_retry(self, run: Running, ended: Ending) -> PendingRetry | None:
        """The rerun of a failed scheduled run, if its policy has one left."""
        job, policy = run.job, run.loaded.policy.retry
        if ended.outcome is not RunOutcome.FAILURE or policy is None or job.due is None:
            return None
        if job.attempt >= policy.max_attempts:
            return None
        last = PendingRetry(
            execution_id=ended.execution_id if run.loaded.policy.keeps_state else None,
            attempt=job.attempt,
            due=job.due,
            delay_seconds=0.0,
            slot=job.due,
            definition_hash=run.loaded.plan.definition_hash,
        )
        return self._reruns.plan(job.mission, policy, last)

    def _tell_end(self, run: Running, ended: Ending, retry: PendingRetry | None, now: datetime) -> None:
        job = run.job
        self.happenings.emit(
            RunEnded(
                at=now,
                mission=job.mission,
                trigger=job.trigger,
                due=job.due,
                outcome=ended.outcome,
                duration_seconds=self.clock.monotonic() - run.began,
                execution_id=ended.execution_id,
                record=ended.record,
                error=ended.error,
                error_type=ended.error_type,
                will_retry=retry is not None,
                resumed=job.resume,
            )
        )
        if retry is not None:
            planned = RetryPlanned(
                at=now,
                mission=job.mission,
                execution_id=ended.execution_id or "",
                attempt=retry.attempt,
                due=retry.due,
            )
            self.happenings.emit(planned)

    def _tell_not_begun(self, job: Job, reason: str) -> None:
        self.happenings.emit(RunNotBegun(at=self.clock.now(), mission=job.mission, due=job.due, reason=reason))

    def _rerun(self, mission: str) -> None:
        if self._stopping or self._group is None:
            return
        retry = self._reruns.drop(mission)
        assert retry is not None
        loaded = self.missions.get(mission)
        # An edited mission can't be resumed; whoever mended it wants it to run as it is now.
        same = loaded is not None and loaded.plan.definition_hash == retry.definition_hash
        execution_id = retry.execution_id if same else None
        self.submit(
            Job(
                mission=mission,
                trigger=Trigger.RETRY,
                due=retry.slot,
                attempt=retry.attempt,
                resume=execution_id is not None,
                execution_id=execution_id,
            )
        )

    def _amend(self, job: Job, **changes: object) -> None:
        if job.due is not None and job.attempt == 1:
            self.ledger.amend(job.mission, job.due, **{k: v for k, v in changes.items() if v is not None})

    async def _drain(self) -> None:
        """Wake what only waits, let the others finish, cancel what is late."""
        self.wake()
        late = await _wait(self.running, self.limits.grace_seconds)
        for run in late:
            run.cancel(CancelReason.STOP)
        for run in await _wait(late, _CANCEL_SECONDS):
            log.error("%s (%s) does not stop", run.job.mission, run.execution_id)


async def _wait(runs: Iterable[Running], seconds: float) -> list[Running]:
    """Those that are not done after so many seconds."""
    tasks = {run.task: run for run in runs}
    if not tasks:
        return []
    _, late = await asyncio.wait(tasks, timeout=seconds)
    return [tasks[task] for task in late]
