"""Running missions: whose turn it is, under which record, and what is swept afterwards."""

import asyncio
import logging
import os
import socket
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from reqon.__about__ import __version__
from reqon.errors import ConfigurationError, ReqonError
from reqon.lang.program import MissionProgram
from reqon.running.ending import Outcome
from reqon.running.resuming import ResumeRefusedError, begun_again, resumable, what_a_resume_would_do
from reqon.running.run import Run
from reqon.running.settings import Additions, RunnerSettings
from reqon.running.shared import Shared
from reqon.running.turns import AlreadyRunningError, Turns
from reqon.runtime.explain import Outlook
from reqon.runtime.plan import Plan
from reqon.runtime.request import RunRequest
from reqon.state import recovery
from reqon.state.ids import new_execution_id
from reqon.state.records import ExecutionRecord, ExecutionStatus, Owner
from reqon.state.retention import expired

if TYPE_CHECKING:
    from reqon.webhooks.server import WebhookServer

__all__ = ["Additions", "AlreadyRunningError", "Outcome", "ResumeRefusedError", "Runner", "RunnerSettings"]

log = logging.getLogger("reqon")


class Runner(Shared):
    """Runs plans, with what `Shared` opens once for all of them."""

    @cached_property
    def _turns(self) -> Turns:
        return Turns(self)

    def plan(self, program: MissionProgram) -> Plan:
        """The mission, ready to run.

        Raises:
            ConfigurationError: there is no such state store, or it cannot do what the mission needs; a source's OpenAPI
                document cannot be used; or the mission waits for webhooks, and there is no server.
        """
        plan = self.bare_plan(program)
        _ = plan.specs  # now, where nothing waits for us: a large document takes its time
        if self.webhooks is None and plan.waits is not None:
            raise ConfigurationError(
                f"mission '{plan.name}' waits for webhooks, and no server receives them",
                code="no-webhook-server",
                span=plan.waits.span,
                hint="start it with --webhook (from Python: webhook_server=True)",
            )
        if self.webhooks is not None and plan.waits is not None:
            self._warn_of_open_endpoints(plan, self.webhooks)
        if plan.enable_state:
            try:
                self.backend.choose(plan.state_store, retention=plan.retention_seconds is not None)
            except ReqonError as error:
                option = program.options.get("stateStore")
                raise error.locate(option.value.span if option is not None else program.node.name.span) from error
        return plan

    def bare_plan(self, program: MissionProgram, environment: Mapping[str, str] | None = None) -> Plan:
        """The mission as a plan, nothing of it looked at yet."""
        known = self.environment if environment is None else environment
        has_document = any(source.spec is not None for source in program.sources.values())
        specifications = self.specifications if has_document else None
        registries = self.additions.registries
        return Plan(program, clock=self.clock, environment=known, specifications=specifications, registries=registries)

    def _warn_of_open_endpoints(self, plan: Plan, server: "WebhookServer") -> None:
        for spec in plan.wait_specs:
            if spec.guard == "none" and not spec.signed and not server.is_private:
                log.warning(
                    "%s: anybody who knows %s can call here: token is none, and nothing is signed",
                    spec.span,
                    server.url,
                )

    def read_documents(self, program: MissionProgram) -> None:
        """Read the OpenAPI documents of a mission, so that `plan` finds them: for those who must not block.

        Raises:
            ConfigurationError: one cannot be used.
        """
        _ = self.bare_plan(program).specs

    # --- one run ------------------------------------------------------------------------------------------------------

    async def run(self, plan: Plan, request: RunRequest) -> ExecutionRecord:
        """Run a mission once; its terminal record, whatever its end.

        Raises:
            ResumeRefusedError, AlreadyRunningError: nothing was begun.
            asyncio.CancelledError: told to stop; the record says `interrupted`.
        """
        return (await self.execute(plan, request)).record

    async def execute(self, plan: Plan, request: RunRequest) -> Outcome:
        """As `run`, with the failures as they were raised."""
        self.open()
        if plan.waits is not None:
            await self.start_webhooks()
        lease = await self._turns.take(plan)
        try:
            work = self._execute(plan, request)
            return await (work if lease is None else lease.hold(work))
        finally:
            await self._turns.give_back(plan)

    async def _execute(self, plan: Plan, request: RunRequest) -> Outcome:
        """A run of a mission that is ours to run."""
        record, resumed = self._begin(plan, request)
        lock = self.directory.execution_lock(record.execution_id)
        if not lock.take(note=str(os.getpid())):
            raise AlreadyRunningError(f"{record.execution_id} of {plan.name} is running in another process")
        try:
            record = await self._saved_begin(plan, record, resumed=resumed)
            run = Run(self, plan, record, resumed=resumed, only=request.only)
            if not plan.enable_state:
                return await run.execute()
            with self.logs.of(record.execution_id, plan.name):
                outcome = await run.execute()
            if self.settings.sweeps:
                await self._sweep_after(plan)
            return outcome
        finally:
            if plan.enable_state:
                lock.release()
            else:
                lock.remove()

    def outlook(self, plan: Plan, request: RunRequest) -> Outlook:
        """What `--resume` would do with a mission, found without touching anything.

        Raises:
            ResumeRefusedError: it has no such execution.
        """
        return what_a_resume_would_do(self, plan, request)

    def _begin(self, plan: Plan, request: RunRequest) -> tuple[ExecutionRecord, bool]:
        """The record to run under: a new one, or the one that is resumed."""
        if request.resume:
            found = resumable(self, plan, request)
            if found is not None:
                return found, True
        now = self.clock.now()
        return (
            ExecutionRecord(
                execution_id=new_execution_id(now),
                mission=plan.name,
                started_at=now,
                status=ExecutionStatus.RUNNING,
                trigger=request.trigger,
                mission_hash=plan.definition_hash,
                owner=self._owner(),
                scheduled_for=request.scheduled_for,
                reqon_version=__version__,
                resumed_from=begun_again(self, plan, request),
            ),
            False,
        )

    async def _saved_begin(self, plan: Plan, record: ExecutionRecord, *, resumed: bool) -> ExecutionRecord:
        """The record on disk. In a thread: of a hundred runs that begin together none waits for the others' disk.

        Who cancels meanwhile is heard right after, amid a run that can say so in its record.
        """
        if not plan.enable_state:
            return record
        saving = asyncio.ensure_future(asyncio.to_thread(self._save_begin, plan, record, resumed=resumed))
        cancelled: asyncio.CancelledError | None = None
        while not saving.done():
            try:
                await asyncio.wait((saving,))
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None and (task := asyncio.current_task()) is not None:
            task.uncancel()
            task.cancel(*cancelled.args)
        return saving.result()

    def _save_begin(self, plan: Plan, record: ExecutionRecord, *, resumed: bool) -> ExecutionRecord:
        if resumed:
            record = recovery.resumed(record, owner=self._owner())
            self.state_of(plan).save(record)
            return record
        return self.state_of(plan).create(record)

    def _owner(self) -> Owner:
        return Owner(host=socket.gethostname(), pid=os.getpid(), instance=self.directory.instance)

    async def _sweep_after(self, plan: Plan) -> None:
        try:
            await asyncio.to_thread(self.sweep, plan)
        except ReqonError as error:  # the run is over, and as it says
            log.warning("old executions of %s could not be looked for: %s", plan.name, error.message)

    def sweep(self, plan: Plan) -> int:
        """Delete the mission's records that are older than it keeps them; how many went. Blocks.

        Raises:
            StateError: they could not be looked for.
        """
        keep = plan.retention_seconds or self.settings.retention_seconds
        if keep is None:
            return 0
        now = self.clock.now()
        old = self.backend.list(plan.name, before=now - timedelta(seconds=keep))
        gone = expired(old, now=now, keep_seconds=keep)
        return sum(self._removed(record) for record in gone)

    def _removed(self, record: ExecutionRecord) -> bool:
        """Delete an old record. What cannot be deleted now is looked at again after the next run, and fails none."""
        try:
            self.backend.delete(record)
        except ReqonError as error:
            # Between its last save and the end of its process an execution still holds its lock.
            if error.diagnostics[0].code != "running":
                log.warning("an old execution could not be removed: %s", error.message)
            return False
        return True
