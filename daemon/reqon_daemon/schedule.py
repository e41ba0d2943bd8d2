"""Decides about due slots, once each, and hands the runs to the dispatcher (spec/reliability.md 5)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from reqon.clock import SYSTEM, Clock, rfc3339
from reqon.errors import StateError
from reqon.state.records import ExecutionRecord, Trigger
from reqon_daemon.alarm import LONGEST_WAIT_SECONDS, Alarm
from reqon_daemon.catalog import Loaded
from reqon_daemon.dispatcher import QUEUE_LIMIT, Dispatcher
from reqon_daemon.happenings import (
    ClockJumped,
    Happenings,
    SchedulerTicked,
    SlotDecided,
    SlotOutcome,
    StateRecovered,
    StateTroubled,
)
from reqon_daemon.ledger import Decision, Ledger, Standing
from reqon_daemon.policy import CatchUp
from reqon_daemon.runs import Job
from reqon_daemon.slots import COUNT_LIMIT, Schedule

log = logging.getLogger("reqon.schedule")

_FAR = timedelta(hours=24)
_JUMP = timedelta(hours=1)
_UNSCHEDULED_FOR = timedelta(minutes=1)

FindRun = Callable[[str, datetime], Awaitable[ExecutionRecord | None]]


@dataclass(slots=True)
class _Entry:
    """One scheduled mission: its anchored schedule and next due time."""

    loaded: Loaded
    schedule: Schedule
    next_due: datetime | None


@dataclass(frozen=True, slots=True)
class _Verdict:
    decision: Decision
    job: Job | None = None


@dataclass(slots=True)
class Scheduler:
    """Ticks at every due time and at least once a second."""

    ledger: Ledger
    dispatcher: Dispatcher
    clock: Clock = SYSTEM
    happenings: Happenings = field(default_factory=Happenings)
    misfire_grace_seconds: float = 60.0
    clock_jumped: bool = False  # by more than an hour since the start: ages of records can't be believed
    last_tick: datetime | None = None
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _unsaved: list[_Verdict] = field(default_factory=list)
    _troubled: bool = False
    _last: tuple[datetime, float] | None = None

    # --- which missions ---

    def replace(self, missions: Mapping[str, Loaded]) -> None:
        """Schedule these from now on. The anchor and next due time of an unchanged schedule do not move."""
        now = self.clock.now()
        for gone in self._entries.keys() - missions.keys():
            self.ledger.update(gone, unscheduled=now)
        entries = {}
        for name, loaded in missions.items():
            try:
                self.ledger.register(name)
                self.dispatcher.restore(name)
                if loaded.policy.schedule:
                    entries[name] = self._enter(loaded, now)
            except Exception:  # a fault in one mission's schedule must not keep the others from theirs
                log.exception("scheduling %s failed", name)
        self._entries = entries

    def schedule_of(self, mission: str) -> Schedule | None:
        """The mission's schedule, anchored."""
        entry = self._entries.get(mission)
        return entry.schedule if entry else None

    def next_due(self, mission: str) -> datetime | None:
        entry = self._entries.get(mission)
        return entry.next_due if entry else None

    async def recover(self, find_run: FindRun) -> list[Job]:
        """Runs that were decided but never began, because their process ended: submitted now, and answered.

        `find_run` gives the record of a slot's run. A run that has one is the business of resume. Of a mission
        without records a run that began is lost; it is not started twice.
        """
        jobs = []
        for decision in self.ledger.unfinished():
            loaded = self.dispatcher.missions.get(decision.mission)
            if loaded is not None and await self._is_to_begin(decision, loaded, find_run):
                jobs.append(Job(mission=decision.mission, trigger=Trigger.SCHEDULE, due=decision.due))
        await self.ledger.commit()
        self.dispatcher.submit(*jobs)
        return jobs

    async def _is_to_begin(self, decision: Decision, loaded: Loaded, find_run: FindRun) -> bool:
        """Whether a decision's run never began and still should; if not, the decision says what became of it."""
        name, due, policy = decision.mission, decision.due, loaded.policy
        record = await find_run(name, due) if policy.keeps_state else None
        if record is not None:
            self.ledger.amend(name, due, begun=True, execution_id=record.execution_id, ended=True)
            return False
        if decision.begun and (decision.execution_id or not policy.keeps_state):
            self.ledger.amend(name, due, reason="lost with its process", ended=True)
            return False
        too_late = self.clock.now() - due > self._oldest(policy.schedule, due)
        if too_late and policy.catch_up is not CatchUp.ALL:
            reason = "decided, but the daemon was down for too long"
            missed = self.ledger.amend(name, due, outcome=SlotOutcome.MISSED, reason=reason, ended=True)
            self._tell(missed or decision)
            return False
        return True

    # --- time goes by ---

    async def serve(self, stop: asyncio.Event, alarm: Alarm) -> None:
        """Tick until `stop`. No slot is decided after it."""
        try:
            while not stop.is_set():
                await self.tick()
                await alarm.wait(self._earliest())
        finally:
            alarm.close()

    async def tick(self) -> None:
        """Decide about all slots that are due now: on disk first, then they are told and run."""
        now = self.clock.now()
        self._compare_clocks(now)
        for name, entry in self._entries.items():
            if entry.next_due is not None and entry.next_due <= now:
                try:
                    self._unsaved += self._decide(entry, now)
                except Exception:  # an error for one mission must touch no other; it is tried again at its next slot
                    log.exception("deciding about %s failed", name)
                    entry.next_due = entry.schedule.next_after(now)
        await self._save()
        self.dispatcher.tick()
        self.last_tick = now
        self.happenings.emit(SchedulerTicked(at=now, queued=self.dispatcher.queued))

    def _earliest(self) -> datetime | None:
        return min((e.next_due for e in self._entries.values() if e.next_due is not None), default=None)

    def _compare_clocks(self, now: datetime) -> None:
        moment = self.clock.monotonic()
        if self._last is not None:
            by = (now - self._last[0]) - timedelta(seconds=moment - self._last[1])
            if abs(by) > timedelta(seconds=LONGEST_WAIT_SECONDS):
                self.clock_jumped |= abs(by) > _JUMP
                self.happenings.emit(ClockJumped(at=now, by=by))
                if by < timedelta(0):
                    self._distrust_future(now)
        self._last = now, moment

    def _distrust_future(self, now: datetime) -> None:
        for name, entry in self._entries.items():
            decided = self._decided(self.ledger.register(name), now)
            entry.next_due = entry.schedule.next_after(decided)

    def _decided(self, standing: Standing, now: datetime) -> datetime:
        """Up to where slots are decided. One more than a day ahead was decided by a wrong clock and doesn't count."""
        decided = standing.decided_until or now
        if decided - now <= _FAR:
            return decided
        log.error(
            "%s: its newest decided slot is %s, more than a day ahead of now; counting from now",
            standing.mission,
            rfc3339(decided),
        )
        self.ledger.rewind(standing.mission, now)
        return now

    async def _save(self) -> None:
        """Make what was decided durable, then act on it. On a disk that refuses, it is kept and tried again."""
        if not self._unsaved and not self.ledger.has_changes:
            return
        try:
            await self.ledger.commit()
        except StateError as error:
            if not self._troubled:
                self._troubled = True
                self.happenings.emit(StateTroubled(at=self.clock.now(), message=error.message))
            return
        if self._troubled:
            self._troubled = False
            self.happenings.emit(StateRecovered(at=self.clock.now()))
        verdicts, self._unsaved = self._unsaved, []
        for verdict in verdicts:
            self._tell(verdict.decision)
        jobs = [verdict.job for verdict in verdicts if verdict.job]
        if jobs:
            self.dispatcher.submit(*jobs)

    def _tell(self, decision: Decision) -> None:
        self.happenings.emit(
            SlotDecided(
                at=decision.decided_at,
                mission=decision.mission,
                due=decision.due,
                outcome=decision.outcome,
                reason=decision.reason,
                first_due=decision.first_due,
                count=decision.count,
            )
        )

    # --- entering a mission ---

    def _enter(self, loaded: Loaded, now: datetime) -> _Entry:
        schedule = loaded.policy.schedule
        assert schedule is not None
        standing = self.ledger.register(loaded.name)
        known = self._entries.get(loaded.name)
        if known is not None and standing.signature == schedule.signature:
            return _Entry(loaded, known.schedule, known.next_due)
        away = standing.unscheduled
        if standing.signature is None:
            schedule = self._begin(loaded, schedule, standing, now)
        elif standing.signature != schedule.signature or (away is not None and now - away > _UNSCHEDULED_FOR):
            schedule = self._begin_again(loaded, schedule, standing, now)
        else:
            schedule = schedule.anchored(standing.anchor or now)
            if away is not None:
                self.ledger.update(loaded.name, unscheduled=None)
        decided = self._decided(self.ledger.register(loaded.name), now)
        return _Entry(loaded, schedule, schedule.next_after(decided))

    def _begin(self, loaded: Loaded, schedule: Schedule, standing: Standing, now: datetime) -> Schedule:
        """The first time we see it: nothing before now is due, but an `at` that is over is noted as missed."""
        at_once = loaded.policy.run_immediately and standing.last_run is None
        schedule = schedule.anchored(now if at_once else now + (schedule.interval or timedelta(0)))
        before = now
        if at_once:
            if schedule.interval is not None:
                before = now - timedelta(seconds=1)
            else:
                self._run_at_load(loaded.name, now)
        self._keep(loaded.name, schedule, before, standing)
        over = schedule.latest_between(datetime.min.replace(tzinfo=UTC) + _FAR * 2, now)
        if schedule.once and over is not None:
            reason = "its time was over when it was first loaded"
            self._unsaved.append(self._note(loaded.name, over, SlotOutcome.MISSED, reason))
        return schedule

    def _begin_again(self, loaded: Loaded, schedule: Schedule, standing: Standing, now: datetime) -> Schedule:
        """Edited, or away for a while: it starts after now, and no past slot becomes due."""
        schedule = schedule.anchored(now + (schedule.interval or timedelta(0)))
        self._keep(loaded.name, schedule, max(now, standing.decided_until or now), standing)
        return schedule

    def _keep(self, mission: str, schedule: Schedule, decided: datetime, standing: Standing) -> None:
        anchor = schedule.anchor
        changes = {"signature": schedule.signature, "anchor": anchor, "unscheduled": None, "decided_until": decided}
        if standing.decided_until is not None and standing.decided_until > decided:
            del changes["decided_until"]
        self.ledger.update(mission, **changes)

    def _run_at_load(self, mission: str, now: datetime) -> None:
        self._unsaved.append(self._note(mission, _whole(now), SlotOutcome.FIRED, "runs at load", job=True))

    # --- deciding ---

    def _decide(self, entry: _Entry, now: datetime) -> list[_Verdict]:
        """One decision for each slot since the last one; slots that share a fate share a decision."""
        name, schedule = entry.loaded.name, entry.schedule
        since = self.ledger.register(name).decided_until or now
        entry.next_due = schedule.next_after(now)
        newest = schedule.latest_between(since, now)
        if newest is None:
            return []
        first = schedule.next_after(since) or newest
        count = schedule.count_between(since, now)
        if self.dispatcher.pause_of(name):
            return [
                self._note(name, newest, SlotOutcome.SKIPPED_PAUSED, self._why_paused(name), first=first, count=count)
            ]
        if entry.loaded.policy.catch_up is CatchUp.ALL and count > 1:
            return self._decide_all(entry, since, newest, now)
        verdicts = []
        if count > 1:
            verdicts.append(self._pass_over(entry, since, newest, first, count - 1))
        verdicts.append(self._decide_newest(entry, newest, now, count))
        return verdicts

    def _pass_over(self, entry: _Entry, since: datetime, newest: datetime, first: datetime, count: int) -> _Verdict:
        """The older ones of several that are due together."""
        name = entry.loaded.name
        last = entry.schedule.latest_between(since, newest - timedelta(milliseconds=1)) or first
        if entry.loaded.policy.catch_up is CatchUp.NONE:
            return self._note(name, last, SlotOutcome.MISSED, "late, and `catchUp` is none", first=first, count=count)
        reason = f"one run makes up for it, that of {rfc3339(newest)}"
        return self._note(name, last, SlotOutcome.COALESCED, reason, first=first, count=count)

    def _decide_newest(self, entry: _Entry, due: datetime, now: datetime, count: int) -> _Verdict:
        name, policy = entry.loaded.name, entry.loaded.policy
        lateness = now - due
        late = lateness.total_seconds() > self.misfire_grace_seconds
        if late and policy.catch_up is CatchUp.NONE:
            return self._note(name, due, SlotOutcome.MISSED, f"{_span(lateness)} late, and `catchUp` is none")
        if late and lateness > self._oldest(entry.schedule, due):
            return self._note(name, due, SlotOutcome.MISSED, f"{_span(lateness)} late, too old to catch up")
        refused = self._refused(entry, due)
        if refused is not None:
            return refused
        if late or count > 1:
            missed = f"{count - 1}{' or more' if count >= COUNT_LIMIT else ''} missed before it" if count > 1 else ""
            reason = f"{_span(lateness)} late" + (f", {missed}" if missed else "")
            return self._note(name, due, SlotOutcome.CAUGHT_UP if late else SlotOutcome.FIRED, reason, job=True)
        return self._note(name, due, SlotOutcome.FIRED, "on time", job=True)

    def _decide_all(self, entry: _Entry, since: datetime, newest: datetime, now: datetime) -> list[_Verdict]:
        """`catchUp: all`: every missed slot runs, the oldest first, up to a thousand of them."""
        dues: list[datetime] = []
        at = newest
        while len(dues) < COUNT_LIMIT and at is not None:
            dues.append(at)
            at = entry.schedule.latest_between(since, at - timedelta(milliseconds=1))  # type: ignore[assignment]
        name = entry.loaded.name
        verdicts = []
        if at is not None:
            first = entry.schedule.next_after(since) or at
            count = entry.schedule.count_between(since, at)
            reason = f"more than {COUNT_LIMIT} slots were missed"
            verdicts.append(self._note(name, at, SlotOutcome.MISSED, reason, first=first, count=count))
        for due in reversed(dues):
            late = (now - due).total_seconds() > self.misfire_grace_seconds
            outcome = SlotOutcome.CAUGHT_UP if late else SlotOutcome.FIRED
            verdicts.append(self._note(name, due, outcome, f"{_span(now - due)} late, `catchUp` is all", job=True))
        return verdicts

    def _refused(self, entry: _Entry, due: datetime) -> _Verdict | None:
        """Why the slot may not run now, if so."""
        name, policy = entry.loaded.name, entry.loaded.policy
        busy = self.dispatcher.busy(name)
        if busy >= policy.max_runs:
            return self._note(name, due, SlotOutcome.SKIPPED_OVERLAP, self._why_busy(name, policy.skip_if_running))
        retry = self.dispatcher.hasten_retry(name)
        if retry is not None:
            reason = f"the rerun of {retry.execution_id or 'its last run'} that was waiting starts now instead"
            return self._note(name, due, SlotOutcome.COALESCED, reason)
        if self.dispatcher.queued >= QUEUE_LIMIT:
            return self._note(name, due, SlotOutcome.MISSED, f"the queue is full ({QUEUE_LIMIT} runs)")
        return None

    def _oldest(self, schedule: Schedule | None, due: datetime) -> timedelta:
        """How late a slot may be to be caught up: one interval, or a day if that is longer."""
        gap = schedule.gap_after(due) if schedule else None
        return max(gap or _FAR, _FAR)

    def _note(
        self,
        mission: str,
        due: datetime,
        outcome: SlotOutcome,
        reason: str,
        *,
        first: datetime | None = None,
        count: int = 1,
        job: bool = False,
    ) -> _Verdict:
        decision = Decision(
            mission=mission,
            due=due,
            outcome=outcome,
            reason=reason,
            decided_at=_whole(self.clock.now()),
            first_due=first or due,
            count=count,
        )
        self.ledger.decide(decision)
        return _Verdict(decision, Job(mission=mission, trigger=Trigger.SCHEDULE, due=due) if job else None)

    def _why_paused(self, mission: str) -> str:
        pause = self.dispatcher.pause_of(mission)
        if pause is None:
            return "paused"
        until = f" until {rfc3339(pause.until)}" if pause.until else ""
        return f"paused{until}" + (f": {pause.reason}" if pause.reason else "")

    def _why_busy(self, mission: str, skips: bool) -> str:
        running = self.dispatcher.running_of(mission)
        if not running:
            return "its last run is still queued"
        which = running[0].execution_id or "its last run"
        more = "" if skips else f", and `maxConcurrency` allows {len(running)}"
        return f"{which} still runs, since {rfc3339(running[0].started_at)}{more}"


def _span(lateness: timedelta) -> str:
    seconds = lateness.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _whole(instant: datetime) -> datetime:
    return instant.replace(microsecond=instant.microsecond // 1000 * 1000)
