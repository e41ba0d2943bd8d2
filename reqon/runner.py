"""Running missions: what executions share, and one execution from its request to its terminal record."""

import asyncio
import logging
import os
import random as chance
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reqon.__about__ import __version__
from reqon.clock import SYSTEM, Clock, rfc3339
from reqon.errors import ConfigurationError, ReqonError, StateError
from reqon.events import (
    Emitted,
    ErrorRecorded,
    Event,
    EventBus,
    MissionCompleted,
    MissionFailed,
    MissionPaused,
    MissionStarted,
)
from reqon.files import Lock, make_directory, write_report
from reqon.http.auth import Credentials, credentials_for, load_auth_file
from reqon.http.client import Client
from reqon.http.connections import Connections, LimitsElsewhere
from reqon.http.messages import SourceSettings
from reqon.http.oauth import OnRefresh
from reqon.http.transport import Transport
from reqon.lang.operators import StoreHandle
from reqon.lang.program import MissionProgram
from reqon.observe.runlog import RunLogs
from reqon.runtime.engine import Engine
from reqon.runtime.execution import Execution, OpenStore, internal_error
from reqon.runtime.explain import ANEW, REFUSED, Outlook, outlook
from reqon.runtime.hooks import NO_HOOKS, Hooks
from reqon.runtime.kept import given_back, kept
from reqon.runtime.leasing import MissionLease
from reqon.runtime.plan import Plan
from reqon.runtime.registries import GLOBAL, Registries
from reqon.runtime.request import CancelReason, OnlyItem, RunRequest
from reqon.runtime.resume import KeptBack, ResumePoint
from reqon.runtime.settings import store_settings
from reqon.runtime.stopping import RunClock, StopRun, StopSignal
from reqon.runtime.sync import PendingSync
from reqon.state import recovery
from reqon.state.backend import LEASE_SECONDS, Journal, StateBackend
from reqon.state.choice import StateStores
from reqon.state.directory import StateDirectory
from reqon.state.ids import new_execution_id
from reqon.state.records import ExecutionRecord, ExecutionStatus, Owner, RunError, StoreTotals
from reqon.state.retention import expired
from reqon.stores.base import LocalStore, WriteMode
from reqon.stores.config import ChosenStore, StoreConfiguration, load_store_config, store_entries
from reqon.stores.file import FileStore, last_number
from reqon.stores.memory import MemoryStore
from reqon.stores.registry import Places, chosen_store, known_adapters, open_store, written_position
from reqon.stores.remote import RemoteStore
from reqon.values import Value, encode

if TYPE_CHECKING:
    from reqon.http.openapi.loading import Specifications
    from reqon.runtime.endpoints import WaitingRoom
    from reqon.state.webhooks import WebhookShelf
    from reqon.webhooks.server import WebhookServer

log = logging.getLogger("reqon")

LOCK_POLL_SECONDS = 0.2
STORES_SECONDS = 2.0  # how long a run that was told to stop may write to remote stores


class ResumeRefusedError(ReqonError):
    """An execution cannot be resumed, and the reason."""

    code = "resume-refused"
    kind = "config"


class AlreadyRunningError(ReqonError):
    """The mission is running, here or in another process, and does not run twice at once."""

    code = "already-running"
    kind = "config"
    exit_code = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    """What all runs of a process have in common.

    Attributes:
        auth_file: the `--auth` file; auth: credentials given in Python, which win over it.
        store_config: the `--store-config` file, or its content; stores: adapters by their names in missions.
        development_mode: whether a `nosql` store that nothing configures is a file.
        output: `--output`: a directory, or a file that ends in .json.
        checkpoint_seconds: how often a loop makes itself safe from a power loss.
        retention_seconds: how long records are kept where the mission says nothing; None: for ever.
        state_store: where all executions are kept, whatever missions say (`--state-store`).
        lease_seconds: how long a mission stays ours after the last renewal, where machines share a state store.
        webhooks: the server that receives what missions `wait` for; None: there is none, and none may wait.
        no_oas_cache: download specifications anew, once each.
    """

    state_directory: Path = Path(".vague-data")
    auth_file: Path | None = None
    auth: Mapping[str, Mapping[str, Value]] | None = None
    store_config: Path | Mapping[str, Any] | None = None
    stores: Mapping[str, object] | None = None
    development_mode: bool = True
    output: Path | None = None
    checkpoint_seconds: float = 1.0
    journal_max_bytes: int = 1024 * 1024 * 1024
    retention_seconds: float | None = None
    state_store: str | None = None
    lease_seconds: float = LEASE_SECONDS
    webhooks: "WebhookServer | None" = None
    no_oas_cache: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: its record, and the failures as they were raised."""

    record: ExecutionRecord
    errors: tuple[ReqonError, ...] = ()

    @property
    def success(self) -> bool:
        return self.record.status is ExecutionStatus.COMPLETED


@dataclass(frozen=True, slots=True, kw_only=True)
class Additions:
    """What a Python program brings along.

    Attributes:
        registries: functions, stores, auth providers, paginations and steps of its own; hooks: where it steps in.
        transport: what carries requests, instead of connections of ours.
        on_token_refresh: awaited with source and tokens before new ones are used.
    """

    registries: Registries = GLOBAL
    hooks: Hooks = NO_HOOKS
    transport: Transport | None = None
    on_token_refresh: OnRefresh | None = None


_NO_ADDITIONS = Additions()


@dataclass(slots=True)
class _Held:
    """A mission's lock, and how many runs of this process share it."""

    lock: Lock
    lease: MissionLease | None
    runs: int = 0


class Runner:
    """Opens what executions share, once: the bus, the state directory, connections, locks. Runs plans."""

    def __init__(
        self,
        settings: RunnerSettings,
        *,
        clock: Clock = SYSTEM,
        bus: EventBus | None = None,
        environment: Mapping[str, str] | None = None,
        random: Callable[[], float] = chance.random,
        keep_state: bool = True,
        offline: bool = False,
        additions: Additions = _NO_ADDITIONS,
        limits: LimitsElsewhere | None = None,
    ) -> None:
        """`offline`: open no socket for specifications and write none, as in a dry run."""
        self.settings = settings
        self.additions = additions
        self.stop = StopSignal()
        self.clock = RunClock(clock, self.stop)
        self.bus = bus if bus is not None else EventBus()
        self.environment = os.environ if environment is None else environment
        self.random = random
        self.directory = StateDirectory(settings.state_directory, clock=clock)
        self.backend = StateStores(
            self.directory,
            journal_max=settings.journal_max_bytes,
            only=settings.state_store,
            environment=self.environment,
        )
        self.logs = RunLogs(self.directory, self.bus)
        self._keep_state = keep_state
        self._offline = offline
        self._limits = limits
        self._opened = False
        self._connections: Connections | None = None
        self._auth: Mapping[str, Any] | None = None
        self._warned: set[str] = set()
        self._stores = StoreConfiguration()
        self._locks: dict[str, _Held] = {}
        self.webhooks = settings.webhooks
        self._opened_webhooks = False

    # --- what is shared -----------------------------------------------------------------------------------------------

    def open(self) -> None:
        """Make and check the state directory, read the credentials file.

        Raises:
            StateError, ConfigurationError: exit 3.
        """
        if not self._opened:
            self.directory.open()
            if self.webhooks is not None:
                self.webhooks.bind()
            self.read_credentials()
            self.read_store_config()
            if self.settings.output is not None:
                # Before the first request: a run of hours must not end in a folder that cannot be.
                with _writing(self.settings.output) as output:
                    make_directory(output.parent if output.suffix == ".json" else output)
            self._opened = True

    def read_credentials(self) -> None:
        """Read the `--auth` file again."""
        file = self.settings.auth_file
        self._auth = load_auth_file(file, self.environment, warn=self._warn) if file is not None else None

    def _warn(self, message: str) -> None:
        """Say what is odd about credentials, once in this process."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning("%s", message)

    def read_store_config(self) -> None:
        """Read the `--store-config` file again.

        Raises:
            ConfigurationError: it cannot be used.
        """
        given = self.settings.store_config
        if isinstance(given, Path):
            entries = load_store_config(given, self.environment)
        else:
            entries = store_entries(given, self.environment, "store_config") if given else {}
        self._stores = StoreConfiguration(entries, self.settings.stores or {}, self.settings.development_mode)

    def unused_store_config(self, missions: Iterable[MissionProgram]) -> list[str]:
        """The keys of the store configuration that are no adapter's word and no store's name in these missions."""
        known = {*known_adapters(), *self.additions.registries.adapters}
        known.update(name for mission in missions for name in mission.stores)
        return [key for key in self._stores.entries if key not in known]

    @property
    def connections(self) -> Connections:
        if self._connections is None:
            self._connections = Connections(
                clock=self.clock,
                environment=self.environment,
                state_directory=self.directory.path,
                random=self.random,
                transport=self.additions.transport,
                on_token_refresh=self.additions.on_token_refresh,
                auth_providers=self.additions.registries.auth_providers,
                limits=self._limits,
            )
        return self._connections

    @cached_property
    def shelf(self) -> "WebhookShelf":
        """Where endpoints and their events lie."""
        from reqon.state.webhooks import WebhookShelf  # noqa: PLC0415  # few missions wait

        return WebhookShelf(self.directory)

    async def start_webhooks(self) -> None:
        """Take webhook calls from now on, until `close`; one that was open before stays open.

        Raises:
            ConfigurationError: the port cannot be had; exit 3.
        """
        server = self.webhooks
        if server is not None and not server.is_open:
            await server.start()
            self._opened_webhooks = True
            server.bus = self.bus
            log.info("webhooks are received at %s; their URLs begin with %s", server.address, server.url)

    async def adopt_webhooks(self) -> None:
        """Take calls for executions that were interrupted as well: for whoever stays, and resumes them."""
        server = self.webhooks
        if server is None:
            return
        known = {endpoint.id for endpoint in server.desk.endpoints()}
        for registration in await asyncio.to_thread(self.shelf.live):
            record = await asyncio.to_thread(self.backend.load, registration.execution_id)
            if record is None or record.status is ExecutionStatus.COMPLETED or registration.id in known:
                continue
            server.adopt(registration, self.shelf)

    @cached_property
    def specifications(self) -> "Specifications":
        """The OpenAPI documents of missions."""
        from reqon.http.openapi.loading import Specifications  # noqa: PLC0415  # only where a source has one

        return Specifications(
            self.directory.oas_cache,
            environment=self.environment,
            offline=self._offline,
            refresh=self.settings.no_oas_cache,
            keep=not self._offline,
            clock=self.clock,
        )

    async def close(self) -> None:
        """Close connections, the webhook server and the state backend."""
        if self.webhooks is not None and (self._opened_webhooks or not self.webhooks.is_open):
            await self.webhooks.close()
        if self._connections is not None:
            await self._connections.close()
            self._connections = None
        self.backend.close()

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

    def state_of(self, plan: Plan) -> StateBackend:
        """Where the mission's new executions are kept."""
        return self.backend.of(plan.name, plan.state_store)

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
        lease = await self._take_mission(plan)
        try:
            work = self._execute(plan, request)
            return await (work if lease is None else lease.hold(work))
        finally:
            await self._release_mission(plan)

    async def _execute(self, plan: Plan, request: RunRequest) -> Outcome:
        """A run of a mission that is ours to run."""
        record, resumed = self._begin(plan, request)
        lock = self.directory.execution_lock(record.execution_id)
        if not lock.take(note=str(os.getpid())):
            raise AlreadyRunningError(f"{record.execution_id} of {plan.name} is running in another process")
        try:
            record = self._save_begin(plan, record, resumed=resumed)
            run = _Run(self, plan, record, resumed=resumed, only=request.only)
            if not plan.enable_state:
                return await run.execute()
            with self.logs.of(record.execution_id, plan.name):
                outcome = await run.execute()
            await asyncio.to_thread(self.sweep, plan)
            return outcome
        finally:
            if plan.enable_state:
                lock.release()
            else:
                lock.remove()

    async def _take_mission(self, plan: Plan) -> MissionLease | None:
        """One process at a time runs a mission; within ours, the dispatcher decides about overlap."""
        held = self._locks.get(plan.name)
        if held is None:
            lock = self.directory.mission_lock(plan.name)
            await self._wait_for(plan, lambda: lock.take(note=str(os.getpid())), lambda: _elsewhere(lock))
            try:
                lease = await self._take_lease(plan)
            except BaseException:
                lock.release()
                raise
            held = self._locks.setdefault(plan.name, _Held(lock, lease))
        held.runs += 1
        return held.lease

    async def _take_lease(self, plan: Plan) -> MissionLease | None:
        """Where machines share the state store, one of them at a time runs a mission."""
        backend = self.state_of(plan) if plan.enable_state else None
        if backend is None or not backend.leases:
            return None
        seconds = self.settings.lease_seconds
        lease = MissionLease(backend, plan.name, self.directory.named(), seconds=seconds)
        await self._wait_for(plan, lease.take, lambda: "on another machine")
        return lease

    async def _wait_for(self, plan: Plan, take: Callable[[], bool | Awaitable[bool]], where: Callable[[], str]) -> None:
        """Return when `take` took it.

        Raises:
            AlreadyRunningError: somebody has it, and the mission does not wait.
        """
        told = False
        while True:
            taken = take()
            if taken if isinstance(taken, bool) else await taken:
                return
            if plan.option("skipIfRunning", True) is not False:
                raise AlreadyRunningError(
                    f"mission '{plan.name}' is running {where()}: this run is skipped",
                    hint="with skipIfRunning: false on the mission it would wait",
                )
            if not told:
                log.info("%s runs %s: waiting for it to end", plan.name, where())
                told = True
            await self.clock.sleep(LOCK_POLL_SECONDS)

    async def _release_mission(self, plan: Plan) -> None:
        held = self._locks[plan.name]
        held.runs -= 1
        if not held.runs:
            del self._locks[plan.name]
            try:
                if held.lease is not None:
                    await held.lease.give_back()
            finally:
                held.lock.release()

    def _begin(self, plan: Plan, request: RunRequest) -> tuple[ExecutionRecord, bool]:
        """The record to run under: a new one, or the one that is resumed."""
        if request.resume:
            found = self._resumable(plan, request)
            if found is not None:
                return found, True
        now = self.clock.now()
        resumed_from = request.execution_id if request.resume and request.force else None
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
                resumed_from=resumed_from,
            ),
            False,
        )

    def _resumable(self, plan: Plan, request: RunRequest) -> ExecutionRecord | None:
        """The execution to resume; None: there is nothing to resume, run anew.

        Raises:
            ResumeRefusedError: the mission has changed, or the execution that was named cannot go on.
        """
        if not plan.enable_state:
            return None
        backend = self.state_of(plan)
        recovery.recover(backend, self.directory, mission=plan.name)
        record = self._asked_for(plan, request, backend)
        reason = self._why_not(plan, record, backend)
        if reason is None:
            return record
        refused = _refused(plan, request, record, reason)
        if refused is not None:
            raise refused
        return None

    def outlook(self, plan: Plan, request: RunRequest) -> Outlook:
        """What `--resume` would do with a mission, found without touching anything.

        Raises:
            ResumeRefusedError: it has no such execution.
        """
        anew = Outlook(mission=plan.name, decision=ANEW, reason="it keeps no state (enableState: false)")
        if not plan.enable_state:
            return anew
        backend = self.backend.choose(plan.state_store)
        record = self._asked_for(plan, request, backend)
        if record is not None and record.status is ExecutionStatus.RUNNING:
            where = f"{record.execution_id} is running now"
            return replace(anew, decision=REFUSED, execution_id=record.execution_id, reason=where)
        reason = self._why_not(plan, record, backend)
        if record is None or reason is not None:
            refused = _refused(plan, request, record, reason or "")
            known = replace(anew, execution_id=record.execution_id if record else None, reason=reason)
            return known if refused is None else replace(known, decision=REFUSED, hint=refused.hint)
        places = Places(directory=self.directory.stores, mission_directory=self._mission_directory(plan))
        chosen = {name: self.chosen_store(plan, name) for name in plan.program.stores}
        positions = {n: written_position(c, places) for n, c in chosen.items() if c is None or c.kind != "memory"}
        if (letters := self.dead_letters_of(plan)) is not None:
            positions["dlq"] = last_number(letters)
        return outlook(plan, record, backend.journal(record), positions)

    def _asked_for(self, plan: Plan, request: RunRequest, backend: StateBackend) -> ExecutionRecord | None:
        if request.execution_id is None:
            return next(iter(backend.list(plan.name, limit=1)), None)
        record = backend.load(request.execution_id)
        if record is None or record.mission != plan.name:
            raise ResumeRefusedError(f"mission '{plan.name}' has no execution {request.execution_id}")
        return record

    def _why_not(self, plan: Plan, record: ExecutionRecord | None, backend: StateBackend) -> str | None:
        if record is None:
            return "there is no earlier execution"
        if not recovery.may_resume(record):
            return f"it is {record.status}"
        if record.mission_hash != plan.definition_hash:
            return "the mission has changed since"
        if record.actions_run and not backend.journal(record).exists:
            return "its journal is gone"
        return None

    def _save_begin(self, plan: Plan, record: ExecutionRecord, *, resumed: bool) -> ExecutionRecord:
        if not plan.enable_state:
            return record
        if resumed:
            record = recovery.resumed(record, owner=self._owner())
            self.state_of(plan).save(record)
            return record
        return self.state_of(plan).create(record)

    def _owner(self) -> Owner:
        return Owner(host=socket.gethostname(), pid=os.getpid(), instance=self.directory.instance)

    def open_store(self, plan: Plan, name: str, before: ExecutionRecord, *, settle: bool = True) -> OpenStore:
        """A store of the mission, ready for one execution. Without `settle` a file store waits for its `settle`."""
        definition = plan.program.stores[name]
        chosen = store_settings(definition, plan.evaluate)
        try:
            store = open_store(
                chosen.adapter,
                chosen.identifier,
                chosen.options,
                directory=self.directory.stores,
                mission_directory=self._mission_directory(plan),
                track=plan.enable_state,
                store=name,
                configuration=self._stores,
                connections=self.connections,
                adapters=self.additions.registries.adapters,
                disk=self.directory.disk,
                settle=settle,
            )
        except ReqonError as error:
            raise error.locate(definition.adapter.span) from error
        carried = before.stores.get(name, StoreTotals())
        handle = StoreHandle(name, store, getattr(store, "partial", None))
        return OpenStore(name=name, store=store, handle=handle, before=store.counts.copy(), carried=carried)

    def chosen_store(self, plan: Plan, name: str) -> ChosenStore | None:
        """What a store of the mission is, without opening it; None: an object that was given in Python.

        Raises:
            ConfigurationError: a run would not start.
        """
        definition = plan.program.stores[name]
        if name in self._stores.adapters:
            return None
        chosen = store_settings(definition, plan.evaluate)
        try:
            return chosen_store(
                chosen.adapter,
                chosen.identifier,
                chosen.options,
                store=name,
                configuration=self._stores,
                adapters=self.additions.registries.adapters,
            )
        except ReqonError as error:
            raise error.locate(definition.adapter.span) from error

    def dead_letters_of(self, plan: Plan) -> Path | None:
        """The mission's own dead-letter file, if it has one."""
        path = self.directory.dead_letters(plan.name)
        there = path.exists() or path.with_suffix(".log").exists()
        return path if there and "dlq" not in plan.program.stores else None

    def dead_letters(self, plan: Plan, *, settle: bool = True) -> OpenStore:
        """The mission's own dead-letter store, opened. Close it when the execution ends."""
        path = self.directory.dead_letters(plan.name)
        store = open_store(
            "file",
            path.stem,
            {},
            directory=path.parent,
            mission_directory=self._mission_directory(plan),
            settle=settle,
            disk=self.directory.disk,
        )
        return OpenStore(name="dlq", store=store, handle=StoreHandle("dlq", store), before=store.counts.copy())

    def _mission_directory(self, plan: Plan) -> Path:
        path = plan.program.path
        return path if path.is_dir() else path.parent

    def clients(self, plan: Plan, emit: Callable[[Event], None], wants: Callable[..., bool]) -> dict[str, Client]:
        """A client for each source.

        Raises:
            ConfigurationError: no base, no credentials; exit 3.
        """
        made: dict[str, Client] = {}
        for name, definition in plan.program.sources.items():
            settings = plan.source_settings(definition)
            if settings.validation != "off":
                plan.prepare_answers(name)
            try:
                credentials = self.credentials(settings)
            except ReqonError as error:
                raise error.locate(definition.name.span) from error
            made[name] = self.connections.client(settings, credentials, emit, wants)
        return made

    def credentials(self, settings: SourceSettings) -> Credentials | None:
        """What a source presents, from Python, the file, the mission or the environment.

        Raises:
            ConfigurationError: nothing found, or it does not fit; names the variable to set.
        """
        return credentials_for(settings, self._auth, self.environment, given=self.settings.auth, warn=self._warn)

    def sweep(self, plan: Plan) -> int:
        """Delete the mission's records that are older than it keeps them; how many went."""
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


def _refused(plan: Plan, request: RunRequest, record: ExecutionRecord | None, reason: str) -> ResumeRefusedError | None:
    """Why a resume that cannot be is refused; None: it runs anew."""
    if request.force and record is not None:
        return None
    named = request.execution_id is not None
    if record is not None and (named or record.mission_hash != plan.definition_hash) and recovery.may_resume(record):
        return ResumeRefusedError(
            f"cannot resume {record.execution_id} of {plan.name}: {reason}",
            hint="--force starts it again from its first action, as a new execution",
        )
    if named:
        return ResumeRefusedError(f"cannot resume {request.execution_id} of {plan.name}: {reason}")
    return None


def _elsewhere(lock: Lock) -> str:
    holder = lock.note()
    if holder == str(os.getpid()):
        return "already, in this process"
    return "in another process" + (f" (pid {holder})" if holder else "")


@dataclass(slots=True)
class _Run:
    """One execution, from its opened stores to its terminal record."""

    runner: Runner
    plan: Plan
    record: ExecutionRecord
    resumed: bool
    only: OnlyItem | None = None
    stores: dict[str, OpenStore] = field(default_factory=dict)
    journal: Journal | None = None

    async def execute(self) -> Outcome:
        began = self.runner.clock.monotonic()
        x: Execution | None = None
        try:
            x = await self._open()
        except ReqonError as error:
            return await self._not_begun(error, began)
        except Exception as error:  # noqa: BLE001  # the wall around one run begins with its opening
            return await self._not_begun(internal_error(error, self.record.execution_id), began)
        engine = Engine(x)
        try:
            due = self.record.scheduled_for
            x.emit(
                MissionStarted(
                    stage_count=len(self.plan.stages),
                    is_resume=self.resumed,
                    trigger=str(self.record.trigger),
                    resume_from_stage=engine.first_stage if self.resumed else None,
                    metadata=None if due is None else {"scheduledFor": rfc3339(due)},
                    scheduled_for=due,
                )
            )
            return await self._pipeline(x, engine, began)
        finally:
            for opened in x.stores.values():
                if opened.remote is not None:
                    await self._close_remote(opened.remote)
            # Closing folds what was written, which takes its time.
            await asyncio.to_thread(self._close, x)

    async def _open(self) -> Execution:
        """Stores, clients, journal; what the interrupted run knew, when it is resumed."""
        runner, plan = self.runner, self.plan
        plan.compile()
        backend = runner.state_of(plan) if plan.enable_state else None
        if backend is not None:
            self.journal = backend.journal(self.record)
        self.stores = await asyncio.to_thread(self._open_stores)
        await self._connect_stores()
        lets = plan.evaluate_lets() if plan.program.lets else {}
        sync = PendingSync()
        if plan.reads_sync and backend is not None:
            last = next(iter(runner.backend.list(plan.name, limit=1, status=ExecutionStatus.COMPLETED)), None)
            sync = PendingSync(
                backend.sync_checkpoints(plan.name), last_success=last.completed_at if last is not None else None
            )
        resume: ResumePoint | None = None
        if self.resumed and self.journal is not None:
            positions = {n: s.store.position() for n, s in self.stores.items() if not s.is_memory}
            resume, memory = ResumePoint.read(self.journal, positions)
            await asyncio.to_thread(_settle, self.stores, resume.reached)
            for name, changes in memory:
                if isinstance(kept_here := self.stores[name].store, MemoryStore):
                    kept_here.restore(changes)
            for opened in self.stores.values():
                opened.before = opened.store.counts.copy()
            for name, back in resume.kept.items():
                _bring_back(self.stores[name].store, back)
            lets |= {n: given_back(v, resume, lambda name: self.stores[name].handle) for n, v in resume.lets.items()}
            sync.restore(resume.sync, resume.synced)
        elif self.journal is not None and (lets or sync.known):
            self.journal.append("start", {"lets": {n: kept(v) for n, v in lets.items()}, "sync": sync.begun_with()})
        x = Execution(
            plan,
            self.record,
            clock=runner.clock,
            stop=runner.stop,
            bus=runner.bus,
            backend=backend,
            journal=self.journal,
            stores=self.stores,
            clients={},
            lets=lets,
            sync=sync,
            resume=resume,
            random=runner.random,
            checkpoint_seconds=runner.settings.checkpoint_seconds,
            dead_letters=lambda: runner.dead_letters(plan),
            hooks=runner.additions.hooks,
        )
        x.only = self.only
        if resume is not None and resume.totals is not None:
            x.carry(resume.totals)
        try:
            x.clients = runner.clients(plan, x.emit, x.wants)
        except ReqonError:
            await self._let_go()
            raise
        if runner.webhooks is not None and plan.waits is not None:
            from reqon.runtime.endpoints import WaitingRoom  # noqa: PLC0415  # few missions wait

            x.room = WaitingRoom(x, runner.webhooks, runner.shelf)
            x.world.endpoint_url = x.room.url
            if self.resumed:
                x.room.load()
        return x

    async def _connect_stores(self) -> None:
        """Open what answers over a network or through a driver."""
        try:
            for name in sorted(self.stores):
                if (remote := self.stores[name].remote) is not None:
                    try:
                        await remote.open()
                    except ReqonError as error:
                        raise error.locate(self.plan.program.stores[name].adapter.span) from error
        except BaseException:
            await self._let_go()
            raise

    async def _let_go(self) -> None:
        for opened in self.stores.values():
            if opened.remote is not None:
                await self._close_remote(opened.remote)
            else:
                opened.store.close()

    async def _close_remote(self, store: RemoteStore) -> None:
        """What it holds is written by now; one that will not close fails nothing."""
        try:
            async with asyncio.timeout(STORES_SECONDS):
                await store.aclose()
        except (ReqonError, TimeoutError) as error:
            log.warning("the store '%s' could not be closed: %s", store.name, error)

    def _close(self, x: Execution) -> None:
        """Let stores and journal go, each whatever the others do. What they claimed to hold, they held before."""
        closing = [opened.store.close for opened in x.stores.values() if opened.remote is None]
        if self.journal is not None:
            closing.append(self.journal.close)
        for close in closing:
            try:
                close()
            except ReqonError as error:
                log.error("%s", error.message)  # noqa: TRY400  # no bug

    def _open_stores(self) -> dict[str, OpenStore]:
        opened: dict[str, OpenStore] = {}
        try:
            # Always in one order, so that two processes never wait for each other's files.
            for name in sorted(self.plan.program.stores):
                opened[name] = self.runner.open_store(
                    self.plan, name, self.record, settle=not self.resumed or self.journal is None
                )
            if self.resumed and self.journal is not None and self.runner.dead_letters_of(self.plan) is not None:
                # Where the run had got to may rely on what it had set aside.
                opened["dlq"] = self.runner.dead_letters(self.plan, settle=False)
        except BaseException:
            for store in opened.values():
                if store.remote is None:
                    store.store.close()
            raise
        return opened

    async def _pipeline(self, x: Execution, engine: Engine, began: float) -> Outcome:
        try:
            async with asyncio.TaskGroup() as background:
                x.background = background
                writing = background.create_task(x.keep_writing_out())
                success = await x.with_stores(engine.run())
                writing.cancel()
            if success:
                await x.with_stores(self._make_safe(x))
            status = ExecutionStatus.COMPLETED if success else ExecutionStatus.FAILED
        except asyncio.CancelledError as cancelled:
            reason = str(cancelled.args[0]) if cancelled.args else CancelReason.STOP
            failed = reason in (CancelReason.TIMEOUT, CancelReason.STUCK)
            if failed:
                self._note(x, f"cancelled: {reason}", reason)
            await self._write_rest(x, seconds=STORES_SECONDS)
            record = self._finish(
                x, engine, ExecutionStatus.FAILED if failed else ExecutionStatus.INTERRUPTED, began, reason
            )
            if failed:
                return Outcome(record, tuple(x.raised))
            raise
        except BaseExceptionGroup as group:
            first = group.exceptions[0]
            if isinstance(first, StopRun):
                await self._write_rest(x, seconds=STORES_SECONDS)
                return Outcome(self._finish(x, engine, ExecutionStatus.INTERRUPTED, began, CancelReason.STOP))
            self._failed(x, first)
            status = ExecutionStatus.FAILED
        except Exception as error:  # noqa: BLE001  # one of the four walls: around one run; logged with its traceback
            self._failed(x, error)
            status = ExecutionStatus.FAILED
        if status is ExecutionStatus.FAILED:
            await self._write_rest(x)
        record = self._finish(x, engine, status, began, None)
        return Outcome(record, tuple(x.raised))

    async def _write_rest(self, x: Execution, *, seconds: float | None = None) -> None:
        """What a run that did not complete had written before goes to its remote stores; what cannot is journaled."""
        try:
            async with asyncio.timeout(seconds):
                await x.write_out()
                await x.ask_sizes()
        except TimeoutError:
            x.notice("a remote store takes long: what was to be written is kept for the resume", level="warning")
        except ReqonError as error:
            if all(error.message != known.message for known in x.raised):
                self._failed(x, error)

    def _failed(self, x: Execution, error: BaseException) -> None:
        failure = error if isinstance(error, ReqonError) else internal_error(error, x.record.execution_id)
        x.add_error(failure, action=failure.action, step=failure.step)

    def _note(self, x: Execution, message: str, kind: str) -> None:
        error = ReqonError(message)
        error.kind = kind
        x.add_error(error, action=None, step=None)

    async def _make_safe(self, x: Execution) -> None:
        """Everything that a success claims is on disk before it is claimed: stores, then sync checkpoints.

        The stores' files as people read them: a run killed while they are folded is resumed, and repeats nothing.
        """
        await x.write_out()
        x.flush_stores()
        await x.ask_sizes()
        stores = [s.store for s in x.stores.values() if not s.is_memory and s.remote is None]
        if stores:
            await asyncio.to_thread(_fold, stores)
        changes = x.sync.changes(self.plan.name)
        if changes and x.backend is not None:
            await asyncio.to_thread(x.backend.put_sync, self.plan.name, changes)
            x.sync.tell(x.emit)
        if self.runner.settings.output is not None:
            export_stores(x.stores.values(), self.runner.settings.output)

    def _finish(
        self, x: Execution, engine: Engine, status: ExecutionStatus, began: float, reason: str | None
    ) -> ExecutionRecord:
        """The terminal record, then its event. What cannot be written is told all the same."""
        clock = self.runner.clock
        seconds = clock.monotonic() - began
        x.tell_writes()
        record = replace(
            x.snapshot(status), completed_at=clock.now(), duration_ms=round(seconds * 1000), owner=self.record.owner
        )
        if status is ExecutionStatus.COMPLETED:
            record = replace(record, active_step=None, resumes_without_progress=0)
        elif record.items_processed > self.record.items_processed or len(record.actions_run) > len(
            self.record.actions_run
        ):
            record = recovery.progressed(record)
        refused = self._save_end(x, record)
        if refused is not None and status is ExecutionStatus.COMPLETED:
            # The disk says `running`: a resume finds all done. Nobody may be told that it completed.
            status = ExecutionStatus.FAILED
            x.add_error(refused, action=None, step=None)
            record = replace(x.snapshot(status), completed_at=record.completed_at, duration_ms=record.duration_ms)
        totals: dict[str, Any] = {
            "stages_completed": engine.result.completed,
            "error_count": record.errors_total,
            "items_processed": record.items_processed,
            "duration_seconds": seconds,
            "status": str(status),
        }
        first = record.errors[0] if record.errors else None
        event: Event
        if status is ExecutionStatus.COMPLETED:
            event = MissionCompleted(**totals, stages_failed=engine.result.failed, stages_skipped=engine.result.skipped)
        elif status is ExecutionStatus.INTERRUPTED:
            event = MissionPaused(
                **totals,
                reason="pause" if reason == CancelReason.OPERATOR else "signal",
                stage_index=engine.stage_index,
                step_index=engine.step_index,
            )
        else:
            event = MissionFailed(
                **totals,
                error=first.message if first else "failed",
                error_type=first.type if first else "internal",
                failed_stage=engine.result.failed_stage,
            )
        if x.room is not None:
            self._end_endpoints(x.room, status)
        x.record = record
        x.emit(event, duration_ms=record.duration_ms)
        return record

    def _end_endpoints(self, room: "WaitingRoom", status: ExecutionStatus) -> None:
        """After the record: an endpoint that outlives a completed execution is found by its record, and ended then."""
        try:
            room.close(completed=status is ExecutionStatus.COMPLETED)
        except StateError as error:
            log.error("the webhook endpoints of %s could not be ended: %s", self.record.execution_id, error)  # noqa: TRY400  # no bug

    def _save_end(self, x: Execution, record: ExecutionRecord) -> ReqonError | None:
        """Write what a run leaves: for a resume what it had buffered and its journal; its record. What refused it."""
        if x.backend is None or self.journal is None:
            return None
        completed = record.status is ExecutionStatus.COMPLETED

        backend, journal = x.backend, self.journal

        def leave_journal() -> None:
            x.flush_stores()
            if not completed and (record.actions_run or journal.exists or x.active):
                journal.sync()

        refused: ReqonError | None = None
        for write in (leave_journal, lambda: backend.save(record)):
            try:
                write()
            except (OSError, ReqonError) as error:
                log.error("the state of %s could not be written: %s", record.execution_id, error)  # noqa: TRY400  # no bug
                if isinstance(error, OSError):
                    self.runner.directory.write_errors += 1
                refused = error if isinstance(error, ReqonError) else StateError(f"cannot write: {error}")
        if completed and refused is None:
            try:
                journal.discard()
            except (OSError, StateError) as error:
                log.warning("the journal of %s could not be removed: %s", record.execution_id, error)
        return refused

    async def _not_begun(self, error: ReqonError, began: float) -> Outcome:
        """Stores, sources or credentials are wrong: a failed run with its reason."""
        clock = self.runner.clock
        failure = RunError(
            message=error.message,
            type="config" if isinstance(error, ConfigurationError) else error.kind,
            at=clock.now(),
            location=error.location,
            hint=error.hint,
        )
        seconds = clock.monotonic() - began
        record = replace(
            self.record,
            status=ExecutionStatus.FAILED,
            completed_at=clock.now(),
            errors=(failure,),
            errors_total=1,
            duration_ms=round(seconds * 1000),
        )
        if self.plan.enable_state:
            self.runner.state_of(self.plan).save(record)
        told: list[Event] = [
            ErrorRecorded(message=failure.message, kind=failure.type, location=failure.location),
            MissionFailed(
                status="failed",
                stages_completed=0,
                error_count=1,
                items_processed=record.items_processed,
                duration_seconds=seconds,
                error=failure.message,
                error_type=failure.type,
            ),
        ]
        # Only this path has no Execution to emit for it.
        for seq, event in enumerate(told, 1):
            self.runner.bus.emit(
                Emitted(event, seq, record.execution_id, record.mission, clock.now(), None, record.duration_ms)
            )
        return Outcome(record, (error,))


def _bring_back(store: LocalStore, back: KeptBack) -> None:
    """What a killed run had not written to its remote store; to whatever the store is by now."""
    if isinstance(store, RemoteStore):
        store.restore([back.changes[number] for number in sorted(back.changes)], last=back.last, done=back.done)
        return
    for _, what, key, record in back.changes.values():
        if what == "clear":
            store.clear()
        elif what == "delete":
            store.delete(key)
        else:
            store.put(key, record, WriteMode(what))


def _settle(stores: Mapping[str, OpenStore], reached: Mapping[str, int]) -> None:
    """What a killed run had stored behind the last place its journal knows is undone: that is done again."""
    for name, opened in stores.items():
        if isinstance(opened.store, FileStore):
            opened.store.settle(reached.get(name))


def _fold(stores: Sequence[LocalStore]) -> None:
    for store in stores:
        store.fold()


def export_stores(stores: "Sequence[OpenStore] | Any", output: Path) -> None:
    """`--output`: a directory gets one JSON array per store; a file ending in .json one object, name -> array.

    Raises:
        ConfigurationError: it cannot be written.
    """
    with _writing(output):
        if output.suffix == ".json":
            whole = {opened.name: list(opened.store.records()) for opened in stores}
            make_directory(output.parent)
            write_report(output, encode(whole, pretty=True) + b"\n")
            return
        make_directory(output)
        for opened in stores:
            write_report(output / f"{opened.name}.json", encode(list(opened.store.records()), pretty=True) + b"\n")


@contextmanager
def _writing(output: Path) -> Iterator[Path]:
    try:
        yield output
    except OSError as error:
        reason = os.strerror(error.errno).lower() if error.errno else str(error)
        raise ConfigurationError(
            f"--output {output} cannot be written: {reason}", hint="name a folder, or a file that ends in .json"
        ) from error
