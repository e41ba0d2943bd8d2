"""What earlier processes left: executions that were cut off, ends that nobody judged (spec/state.md 5, daemon.md 7)."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from reqon.clock import SYSTEM
from reqon.errors import ReqonError
from reqon.runner import Runner
from reqon.state import recovery
from reqon.state.records import ExecutionRecord, ExecutionStatus, Trigger
from reqon_daemon.alerts import Alerts
from reqon_daemon.catalog import Catalog
from reqon_daemon.dispatcher import Dispatcher
from reqon_daemon.happenings import RunOutcome
from reqon_daemon.ledger import Ledger
from reqon_daemon.metrics import Metrics
from reqon_daemon.plans import plan_of
from reqon_daemon.runs import Job

# How many of a mission's newest records are looked at first, and how many if all of those are news.
_FIRST_LOOK = 5
_SECOND_LOOK = 50
TAKE_OVER_SECONDS = 15.0

log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Aftermath:
    """Takes up, in order: dead owners' records, alerts nobody sent, executions to resume."""

    runner: Runner
    catalog: Catalog
    ledger: Ledger
    dispatcher: Dispatcher
    metrics: Metrics
    alerts: Alerts | None = None
    crashed: Sequence[ExecutionRecord] = ()

    async def recover(self) -> None:
        """Make the records of dead owners say `interrupted`."""
        self.crashed = await asyncio.to_thread(recovery.recover, self.runner.backend, self.runner.directory)

    async def judge(self) -> None:
        """Alerts for what ended while nobody judged it, and for what was lost."""
        for record in self.crashed:
            log.error(
                "an execution was lost with its process", mission=record.mission, execution_id=record.execution_id
            )
        if self.alerts is None:
            return
        retrying = {s.retry.execution_id for s in self.ledger.standings().values() if s.retry and s.retry.execution_id}
        records = await asyncio.to_thread(self._unjudged, self.alerts)
        self.alerts.judge_past(records, retrying=retrying)
        self.alerts.crashed(record for record in self.crashed if self.catalog.get(record.mission))

    def lost(self, record: ExecutionRecord) -> None:
        """An execution's worker is gone; it is being resumed, and on-call is told."""
        if self.alerts is not None:
            self.alerts.crashed([record])

    async def resume(self) -> None:
        """Queue the newest execution of each mission that was cut off; give up those that never get on."""
        for record in await asyncio.to_thread(self._interrupted):
            await self._resume(record)

    async def _resume(self, record: ExecutionRecord) -> None:
        loaded = self.catalog.missions[record.mission]
        self.metrics.errors_counted(record.execution_id, record.errors_total)
        if record.mission_hash != loaded.plan.definition_hash:
            log.warning(
                "not resumed: the mission has changed since",
                mission=record.mission,
                execution_id=record.execution_id,
                hint=f"reqon {loaded.unit} --resume --execution {record.execution_id} --force",
            )
        elif recovery.gives_up(record):
            await self._give_up(record)
        else:
            log.info("resuming", mission=record.mission, execution_id=record.execution_id)
            self.dispatcher.submit(
                Job(
                    mission=record.mission,
                    trigger=Trigger.RESUME,
                    due=record.scheduled_for,
                    attempt=record.attempt + 1,
                    resume=True,
                    execution_id=record.execution_id,
                )
            )

    async def keep_watch(self) -> None:
        """Go on with what other machines left, where they share a state store; until cancelled."""
        told = ""
        while True:
            await SYSTEM.sleep(TAKE_OVER_SECONDS)
            try:
                await self.take_over()
                told = ""
            except ReqonError as error:
                if error.message != told:
                    told = error.message
                    log.warning("lost executions of other machines could not be looked for", reason=told)

    async def take_over(self) -> None:
        """Resume executions whose machine is gone: their lease ran out. Elsewhere locks told of all at the start."""
        lost = await asyncio.to_thread(self._lost_elsewhere)
        if not lost:
            return
        for record in lost:
            log.error(
                "an execution was lost with its machine", mission=record.mission, execution_id=record.execution_id
            )
        if self.alerts is not None:
            self.alerts.crashed(record for record in lost if self.catalog.get(record.mission))
        ids = {record.execution_id for record in lost}
        for record in await asyncio.to_thread(self._interrupted):
            if record.execution_id in ids:
                await self._resume(record)

    def _lost_elsewhere(self) -> list[ExecutionRecord]:
        plans = [plan_of(loaded) for loaded in self.catalog.missions.values() if loaded.policy.keeps_state]
        shared = {b.name: b for b in map(self.runner.state_of, plans) if b.leases}
        directory = self.runner.directory
        return [record for backend in shared.values() for record in recovery.recover(backend, directory)]

    async def find_run(self, mission: str, due: datetime) -> ExecutionRecord | None:
        """The execution that a slot started."""
        records = await asyncio.to_thread(self.runner.backend.list, mission, limit=_SECOND_LOOK)
        return next((record for record in records if record.scheduled_for == due), None)

    def _unjudged(self, alerts: Alerts) -> list[ExecutionRecord]:
        found: list[ExecutionRecord] = []
        for name, loaded in self.catalog.missions.items():
            if loaded.policy.keeps_state:
                newest = self.runner.backend.list(name, limit=_FIRST_LOOK)
                if len(newest) == _FIRST_LOOK and all(alerts.incidents.is_news(record) for record in newest):
                    newest = self.runner.backend.list(name, limit=_SECOND_LOOK)
                found += [record for record in newest if record.status is not ExecutionStatus.RUNNING]
        return found

    def _interrupted(self) -> list[ExecutionRecord]:
        found = []
        for name, loaded in self.catalog.missions.items():
            newest = self.runner.backend.list(name, limit=1) if loaded.policy.keeps_state else []
            for record in newest:
                cut_off = record.status is ExecutionStatus.INTERRUPTED and recovery.may_resume(record)
                if cut_off and not self._was_cancelled(record):
                    found.append(record)
        return found

    def _was_cancelled(self, record: ExecutionRecord) -> bool:
        """Whether somebody wanted it to end."""
        standing = self.ledger.standing(record.mission)
        return (
            standing is not None
            and standing.last_outcome == RunOutcome.CANCELLED
            and standing.last_execution == record.execution_id
        )

    async def _give_up(self, record: ExecutionRecord) -> None:
        over = recovery.given_up(record, now=self.runner.clock.now())
        lock = self.runner.directory.execution_lock(record.execution_id)
        if not lock.take():
            return
        try:
            await asyncio.to_thread(self.runner.backend.save, over)
        finally:
            lock.release()
        log.error("resume gave up", mission=record.mission, execution_id=record.execution_id)
        if self.alerts is not None:
            self.alerts.judge_past([over])
