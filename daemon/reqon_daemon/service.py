"""The daemon as a whole: what is started in which order, and stopped in the opposite one (spec/daemon.md 7).

One AsyncExitStack holds all parts; a part that fails ends the others the same way a signal does. It takes its settings,
clock and addresses, so that tests run it on port 0.
"""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import structlog

from reqon import events
from reqon.clock import SYSTEM, Clock, rfc3339
from reqon.diagnostics import Diagnostic
from reqon.errors import ConfigurationError, ReqonError, SemanticError, StateError
from reqon.files import LockTakenError
from reqon.lang.loader import load
from reqon.lang.program import MissionProgram, Unit
from reqon.runner import AlreadyRunningError, Runner, RunnerSettings
from reqon.runtime.plan import Plan
from reqon.runtime.request import RunRequest
from reqon.state import recovery
from reqon.state.records import ExecutionRecord, ExecutionStatus, Trigger
from reqon_daemon.alerts import Alerts, Watched
from reqon_daemon.catalog import Catalog, Loaded, Reload
from reqon_daemon.catalog import Plan as Planned
from reqon_daemon.control import ControlServer
from reqon_daemon.dispatcher import Dispatcher, Job, Limits
from reqon_daemon.exposition import Exposition, Listen, Page, Routes
from reqon_daemon.freshness import freshness_limit
from reqon_daemon.happenings import (
    FileQuarantined,
    Happenings,
    MissionsReloaded,
    RunEnded,
    RunOutcome,
    SchedulerTicked,
    SlotDecided,
    StateRecovered,
    StateTroubled,
)
from reqon_daemon.health import Health
from reqon_daemon.heartbeat import Heartbeat
from reqon_daemon.ledger import Ledger
from reqon_daemon.metrics import Metrics, MissionFacts, MissionPast
from reqon_daemon.outbox import Sender
from reqon_daemon.schedule import Alarm, Scheduler, TimerAlarm
from reqon_daemon.sdnotify import Systemd
from reqon_daemon.settings import DaemonSettings
from reqon_daemon.targets import is_plain_text, parse_target
from reqon_daemon.watch import Watcher
from reqon_daemon.zones import system_zone

FLUSH_SECONDS = 5.0
AFTER_GRACE_SECONDS = 4.0
HOUSEKEEPING_SECONDS = 60.0
SWEEP_SECONDS = 3600.0
_FIRST_LOOK = 5
_SECOND_LOOK = 50
_LOW_DISK_BYTES = 100 * 1024 * 1024
_LOW_DISK_SHARE = 0.02

# What the dispatcher needs to hear. Not all events: one that somebody listens to has to be built.
_RUN_EVENTS = (
    events.MissionStarted,
    events.StepStarted,
    events.StepEnded,
    events.ActionEnded,
    events.LoopEnded,
    events.PageFetched,
    events.DataStored,
    events.CheckpointSaved,
    events.Progressed,
    events.FetchRetried,
    events.RateLimitHit,
)

log = structlog.get_logger(__name__)


class StoppedError(Exception):
    """A signal came before the daemon was ready."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A mission's plan as people start it, and as the schedule does: `env("REQON_SCHEDULED")` is "true" there."""

    manual: Plan
    scheduled: Plan

    @property
    def name(self) -> str:
        return self.manual.name

    @property
    def definition_hash(self) -> str:
        return self.manual.definition_hash

    @property
    def program(self) -> MissionProgram:
        return self.manual.program


@dataclass(slots=True)
class Service:
    """One daemon. `serve` is its whole life; `ports` are its bound ones once `ready` is set."""

    settings: DaemonSettings
    clock: Clock = SYSTEM
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    systemd: Systemd = field(default_factory=Systemd)
    alarm: Callable[[], Alarm] = TimerAlarm
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ports: tuple[int, ...] = ()
    failed: int = 0  # runs that did not succeed, with --once
    health: Health = field(init=False)
    metrics: Metrics = field(init=False)
    happenings: Happenings = field(default_factory=Happenings)
    runner: Runner = field(init=False)
    catalog: Catalog = field(init=False)
    ledger: Ledger = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    scheduler: Scheduler = field(init=False)
    watcher: Watcher | None = None
    alerts: Alerts | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped_at: float | None = None
    _reload_all: bool = False
    _shown: dict[str, Loaded] = field(default_factory=dict)
    _crashed: tuple[ExecutionRecord, ...] = ()
    _swept_at: float = 0.0

    def __post_init__(self) -> None:
        settings = self.settings
        self.health = Health(self.clock)
        self.metrics = Metrics()
        shared = RunnerSettings(
            state_directory=settings.state_dir,
            auth_file=settings.auth,
            retention_seconds=settings.state_retention,
        )
        if settings.journal_max is not None:
            shared = replace(shared, journal_max_bytes=settings.journal_max)
        self.runner = Runner(shared, clock=self.clock, environment=self.environment)
        self.catalog = Catalog(settings.paths, load=self._load, plan=self._plan, clock=self.clock)

    # --- from outside -------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Begin to stop. Nothing new starts; runs get the grace."""
        if not self._stop.is_set():
            self._stopped_at = self.clock.monotonic()
            self.health.phase = "draining"
            self._stop.set()

    def reload_soon(self) -> None:
        """Look at every file again, and at the credentials: SIGHUP."""
        self._reload_all = True
        if self.watcher is not None:
            self.watcher.stir()

    async def serve(self) -> None:
        """Start, serve until `stop`, stop.

        Raises:
            StateError, ConfigurationError: it cannot start; exit 3.
        """
        try:
            async with AsyncExitStack() as stack:
                await self._start(stack)
                await self._stop.wait()
        except StoppedError:
            log.info("stopped before it was ready")

    async def once(self) -> None:
        """Run every scheduled mission once, now, deliver alerts, and end. `failed` counts what did not succeed.

        Raises:
            StateError, ConfigurationError: exit 3.
            ReqonError: a mission's text is wrong; exit 2.
        """
        try:
            async with AsyncExitStack() as stack:
                await self._start_base(stack)
                self._refuse_broken()
                self.happenings.on(RunEnded, self._count_failure)
                names = [name for name, loaded in self.catalog.missions.items() if loaded.policy.schedule]
                if not self.settings.no_resume:
                    await self._resume()
                fresh = [name for name in names if not self.dispatcher.queued_of(name)]
                self.dispatcher.submit(*(Job(mission=name, trigger=Trigger.SCHEDULE) for name in fresh))
                await self._start_dispatcher(stack)
                while not self._stop.is_set() and self._at_work(names):
                    await self._tick_or_stop()
        except StoppedError:
            log.info("stopped before anything began")

    def _at_work(self, names: Iterable[str]) -> bool:
        dispatcher = self.dispatcher
        return bool(dispatcher.running or dispatcher.queued or any(dispatcher.retry_of(name) for name in names))

    async def _tick_or_stop(self) -> None:
        self.dispatcher.tick()
        self.happenings.emit(SchedulerTicked(at=self.clock.now()))
        try:
            async with asyncio.timeout(0.1):
                await self._stop.wait()
        except TimeoutError:
            pass

    def _count_failure(self, happening: RunEnded) -> None:
        if happening.outcome is RunOutcome.SUCCESS:
            self.failed -= happening.resumed and happening.trigger is Trigger.RETRY
        elif not happening.will_retry:
            self.failed += 1

    def _refuse_broken(self) -> None:
        broken = self.catalog.broken
        if broken and not self.settings.keep_going:
            found = [d for diagnostics in broken.values() for d in diagnostics]
            raise SemanticError.of(found)

    # --- starting -----------------------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> None:
        await self._start_base(stack)
        self.health.phase = "recovering"
        if not self.settings.no_resume:
            await self._resume()
        await self.scheduler.recover(self._find_run)
        self._go_on()
        await self._start_dispatcher(stack)
        await stack.enter_async_context(_task(self._keep_house()))
        until = asyncio.Event()
        await stack.enter_async_context(_task(self.scheduler.serve(until, self.alarm()), end=until.set))
        if not self.settings.no_reload:
            self.watcher = Watcher(self.settings.paths, clock=self.clock, scan_seconds=self.settings.reload_poll)
            self.watcher.start()
            stack.callback(self.watcher.stop)
            await stack.enter_async_context(_task(self._watch(self.watcher)))
        control = ControlServer(self.runner.directory.path, self._commands())
        await control.start()
        stack.push_async_callback(control.stop)
        stack.callback(self._not_ready)
        self._go_on()
        self._say_ready()

    async def _start_base(self, stack: AsyncExitStack) -> None:
        """The state directory, its lock, the port, the missions, alerts: what `--once` needs too."""
        self._check_paths()
        await asyncio.to_thread(self.runner.open)
        stack.push_async_callback(self.runner.close)
        lock = self.runner.directory.daemon_lock
        if not lock.take(note=str(os.getpid())):
            raise StateError(
                f"another daemon (pid {lock.note() or 'unknown'}) works with the state directory "
                f"{self.runner.directory.path}",
                hint="one daemon a directory: stop it, or give this one its own with --state-dir",
            )
        stack.callback(lock.release)
        self.health.lock_held = lambda: lock.held
        self._go_on()
        self._bind(stack)
        self.ledger = Ledger(self.runner.directory, clock=self.clock, happenings=self.happenings)
        self._wire()
        await asyncio.to_thread(self.ledger.open)
        stack.callback(self.ledger.close)
        self._crashed = tuple(await asyncio.to_thread(recovery.recover, self.runner.backend, self.runner.directory))
        self._go_on()
        reload = await self.catalog.reload(settle=False)
        await self._prepare_alerts(stack)
        self._apply(reload)
        await self._judge_past()
        self._go_on()

    def _check_paths(self) -> None:
        for path in self.settings.paths:
            if not path.exists():
                raise ConfigurationError(f"'{path}' does not exist", code="path-not-found", hint="check the path")

    def _bind(self, stack: AsyncExitStack) -> None:
        """The ports, early: a taken one must end us before anything else is done."""
        settings, health = self.settings, self.health.routes()
        listens = []
        if settings.metrics_port is not None:
            routes: Routes = {"/metrics": self._metrics_page, **health}
            listens.append(Listen("metrics", settings.metrics_host, settings.metrics_port, routes))
        if settings.health_port is not None and (
            settings.health_port != settings.metrics_port or not settings.health_port
        ):
            listens.append(Listen("health", settings.metrics_host, settings.health_port, health))
        if not listens:
            return
        exposition = Exposition(listens)
        exposition.start()
        stack.callback(exposition.stop)
        self.ports = exposition.ports
        for listen, port in zip(listens, exposition.ports, strict=True):
            reach = (
                "this machine only; --metrics-host 0.0.0.0 lets others scrape"
                if listen.host in ("127.0.0.1", "localhost", "::1")
                else "other machines too"
            )
            log.info("listening", purpose=listen.purpose, url=f"http://{listen.host}:{port}", reachable_from=reach)

    def _metrics_page(self, headers: Mapping[str, str]) -> Page:
        if self.health.phase == "loading":
            return Page(b"loading\n", status=503)
        body, content_type = self.metrics.render(headers.get("accept", ""))
        return Page(body, content_type)

    def _wire(self) -> None:
        """Who listens to whom. Metrics first: they are what one looks at when the others are wrong."""
        settings, bus, happenings = self.settings, self.runner.bus, self.happenings
        self.dispatcher = Dispatcher(
            self._run,
            self.catalog,
            self.ledger,
            clock=self.clock,
            happenings=happenings,
            limits=Limits(max_running=settings.max_running, grace_seconds=settings.shutdown_grace),
        )
        self.scheduler = Scheduler(
            self.ledger,
            self.dispatcher,
            clock=self.clock,
            happenings=happenings,
            misfire_grace_seconds=settings.misfire_grace,
        )
        self.metrics.listen(bus)
        self.metrics.observe(happenings)
        for kind in _RUN_EVENTS:
            bus.on(kind, self.dispatcher.observe)
        happenings.on(SchedulerTicked, self._on_tick)
        happenings.on(SlotDecided, self._on_slot)
        happenings.on(RunEnded, self._on_run_ended)
        happenings.on(StateTroubled, self._on_trouble)
        happenings.on(FileQuarantined, self._on_quarantine)
        happenings.on(StateRecovered, lambda _: self.health.concern("ledger"))

    async def _prepare_alerts(self, stack: AsyncExitStack) -> None:
        settings = self.settings
        if settings.heartbeat_url is not None:
            heartbeat = Heartbeat(settings.heartbeat_url, self.health, self.clock)
            heartbeat.listen(self.runner.bus)
            await stack.enter_async_context(_task(heartbeat.run()))
        if not settings.alert_on_failure:
            return
        targets = [parse_target(url, secret=settings.alert_secret, clock=self.clock) for url in settings.alert_url]
        for url, target in zip(settings.alert_url, targets, strict=True):
            if is_plain_text(url):
                log.warning("alerts cross the network unencrypted", target=target.shown)
        alerts = Alerts(
            self.runner.directory.alerts,
            targets,
            repeat_seconds=settings.alert_repeat,
            clock=self.clock,
            metrics=self.metrics,
            health=self.health,
            instance=settings.instance or socket.gethostname(),
        )
        await asyncio.to_thread(alerts.load)
        alerts.listen(self.runner.bus)
        alerts.observe(self.happenings)
        if not targets:
            log.warning("alerts have no target and go to this log", hint="--alert-url URL, or [alerts] in reqon.toml")
        self.alerts = alerts
        await stack.enter_async_context(_task(alerts.run()))
        stack.push_async_callback(self._flush, alerts)

    async def _start_dispatcher(self, stack: AsyncExitStack) -> None:
        until = asyncio.Event()
        await stack.enter_async_context(_task(self.dispatcher.serve(until), end=until.set))

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _say_ready(self) -> None:
        self.health.phase = "ready"
        missions = len(self.catalog.missions)
        log.info(
            "ready",
            missions=missions,
            broken=len(self.catalog.broken),
            state_directory=str(self.runner.directory.path),
            zone=system_zone().name,
            pid=os.getpid(),
        )
        for name in self.catalog.missions:
            due = self.scheduler.next_due(name)
            log.info("next run", mission=name, due=rfc3339(due) if due else "when it is triggered")
        self.systemd.ready(f"{missions} missions")
        self.ready.set()

    # --- stopping -----------------------------------------------------------------------------------------------------

    def _not_ready(self) -> None:
        self.health.phase = "draining"
        self._stopped_at = self._stopped_at or self.clock.monotonic()
        self.systemd.stopping(within_seconds=self.settings.shutdown_grace + AFTER_GRACE_SECONDS)
        running = len(self.dispatcher.running)
        log.info("stopping", running=running, grace_seconds=self.settings.shutdown_grace)

    async def _flush(self, alerts: Alerts) -> None:
        """What is left of five seconds beside the grace, but at least one."""
        since = self.clock.monotonic() - (self._stopped_at or self.clock.monotonic())
        left = self.settings.shutdown_grace + AFTER_GRACE_SECONDS / 2 - since
        if not await alerts.flush(max(1.0, min(FLUSH_SECONDS, left))):
            log.warning("some alerts are not delivered; the next start goes on with them")

    # --- missions -----------------------------------------------------------------------------------------------------

    def _load(self, path: Path) -> Iterable[Unit]:
        skip = (self.settings.state_dir,)
        units = load([path], skip=skip).units
        if not self.settings.mission:
            return units
        return [_only(unit, self.settings.mission) for unit in units]

    def _plan(self, program: MissionProgram) -> Planned:
        environment = {**self.environment, "REQON_SCHEDULED": "true"}
        scheduled = Plan(program, clock=self.clock, environment=environment).compile()
        return Twin(self.runner.plan(program), scheduled)

    async def _run(self, plan: Planned, request: RunRequest) -> ExecutionRecord:
        assert isinstance(plan, Twin)
        by_schedule = request.scheduled_for is not None or request.trigger is Trigger.SCHEDULE
        try:
            return await self.runner.run(plan.scheduled if by_schedule else plan.manual, request)
        except AlreadyRunningError as error:
            raise LockTakenError(error.message) from error

    async def reload(self, *, everything: bool = False) -> Reload:
        """Look at the files, put what changed into service, and say what was done."""
        if everything:
            self.runner.read_credentials()
        self.systemd.reloading()
        try:
            broken = self.catalog.broken
            reload = await self.catalog.reload(everything=everything)
            if reload or everything or self.catalog.broken != broken:
                self._apply(reload)
        finally:
            self.systemd.reloaded(f"{len(self.catalog.missions)} missions")
        return reload

    async def _watch(self, watcher: Watcher) -> None:
        async for _ in watcher.looks():
            everything, self._reload_all = self._reload_all, False
            try:
                await self.reload(everything=everything)
            except ReqonError as error:
                log.error("reload refused", reason=error.message)  # noqa: TRY400  # the operator's to mend

    def _apply(self, reload: Reload) -> None:
        """Schedule, show and watch the missions that are in service now."""
        missions, broken = self.catalog.missions, self.catalog.broken
        if not self.settings.once:
            self.scheduler.replace(missions)
        for name in self._shown.keys() - missions.keys():
            self.metrics.mission_removed(name)
            if self.alerts is not None:
                self.alerts.mission_removed(name)
        for name, loaded in missions.items():
            if self._shown.get(name) is not loaded:
                self._show(loaded)
            self.metrics.next_slot(name, self.scheduler.next_due(name))
        self._shown = dict(missions)
        paused = sum(self.dispatcher.pause_of(name) is not None for name in missions)
        self.metrics.loaded(active=len(missions) - paused, paused=paused, invalid=len(broken))
        self.health.missions_loaded = len(missions)
        self.health.concern("missions", tuple(_first_line(path, found) for path, found in broken.items()))
        self.happenings.emit(
            MissionsReloaded(
                at=self.clock.now(),
                added=reload.added,
                changed=dict(reload.changed),
                removed=reload.removed,
                broken=dict(broken),
            )
        )
        self._log_reload(reload)

    def _log_reload(self, reload: Reload) -> None:
        for name in reload.added:
            log.info("mission added", mission=name, definition=missions_hash(self.catalog.missions[name]))
        for name, (old, new) in reload.changed.items():
            log.info("mission changed", mission=name, before=old[:12], after=new[:12])
        for name in reload.removed:
            log.info("mission removed", mission=name)
        for path in reload.refused:
            found = self.catalog.broken.get(path, ())
            log.error("mission file refused", path=path, reason=_first_line(path, found), findings=len(found))

    def _show(self, loaded: Loaded) -> None:
        standing = self.ledger.register(loaded.name)
        program, policy = loaded.plan.program, loaded.policy
        limit = self._freshness_limit(loaded)
        self.metrics.mission_loaded(
            MissionFacts(
                name=loaded.name,
                schedule=policy.schedule.text if policy.schedule else "",
                timezone=policy.schedule.zone.name if policy.schedule else "",
                definition=missions_hash(loaded),
                sources=tuple(program.sources),
                actions=tuple(program.actions),
                freshness_limit_seconds=limit,
            ),
            MissionPast(
                registered_at=standing.registered,
                last_run_at=standing.last_run,
                last_success_at=standing.last_success,
                last_outcome=standing.last_outcome,
                last_duration_seconds=standing.last_duration_seconds,
                last_items=standing.last_items,
                consecutive_failures=standing.consecutive_failures,
                paused=self.dispatcher.pause_of(loaded.name) is not None,
            ),
        )
        if self.alerts is not None:
            self.alerts.mission_loaded(
                Watched(
                    name=loaded.name,
                    path=str(loaded.unit),
                    targets=self._targets_of(loaded),
                    registered_at=standing.registered,
                    last_success_at=standing.last_success,
                    freshness_limit_seconds=limit,
                    paused=self.dispatcher.pause_of(loaded.name) is not None,
                )
            )

    def _targets_of(self, loaded: Loaded) -> tuple[Sender, ...]:
        """The mission's own alert targets; one that cannot be used leaves the daemon's."""
        assert isinstance(loaded.plan, Twin)
        try:
            value = loaded.plan.manual.option("alert", ())
            urls = [value] if isinstance(value, str) else list(value)
            return tuple(parse_target(str(u), secret=self.settings.alert_secret, clock=self.clock) for u in urls)
        except ReqonError as error:
            problem = "an alert target of the mission cannot be used"
            log.error(problem, mission=loaded.name, reason=error.message)  # noqa: TRY400  # the mission's fault
            return ()

    def _freshness_limit(self, loaded: Loaded) -> float | None:
        standing = self.ledger.standing(loaded.name)
        return freshness_limit(
            self.scheduler.schedule_of(loaded.name),
            fresh_within_seconds=loaded.policy.fresh_within_seconds,
            usual_seconds=standing.last_duration_seconds if standing else None,
            now=self.clock.now(),
        )

    # --- what earlier processes left ----------------------------------------------------------------------------------

    async def _judge_past(self) -> None:
        """Alerts for what ended while nobody judged it."""
        alerts = self.alerts
        if alerts is None:
            return
        retrying = {s.retry.execution_id for s in self.ledger.standings().values() if s.retry and s.retry.execution_id}
        records = await asyncio.to_thread(self._unjudged, alerts)
        alerts.judge_past(records, retrying=retrying)
        alerts.crashed(self._crashed)
        for record in self._crashed:
            log.error(
                "an execution was lost with its process", mission=record.mission, execution_id=record.execution_id
            )

    def _unjudged(self, alerts: Alerts) -> list[ExecutionRecord]:
        found: list[ExecutionRecord] = []
        for name, loaded in self.catalog.missions.items():
            if loaded.policy.keeps_state:
                newest = self.runner.backend.list(name, limit=_FIRST_LOOK)
                if len(newest) == _FIRST_LOOK and all(alerts.incidents.is_news(record) for record in newest):
                    newest = self.runner.backend.list(name, limit=_SECOND_LOOK)
                found += [record for record in newest if record.status is not ExecutionStatus.RUNNING]
        return found

    async def _resume(self) -> None:
        """Queue the newest execution of each mission that was cut off; give up those that never get on."""
        for record in await asyncio.to_thread(self._interrupted):
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

    def _interrupted(self) -> list[ExecutionRecord]:
        found = []
        for name, loaded in self.catalog.missions.items():
            if not loaded.policy.keeps_state:
                continue
            record = next(iter(self.runner.backend.list(name, limit=1)), None)
            if record is None or record.status is not ExecutionStatus.INTERRUPTED or not recovery.may_resume(record):
                continue
            standing = self.ledger.standing(name)
            cancelled = standing is not None and standing.last_outcome == RunOutcome.CANCELLED
            if cancelled and standing is not None and standing.last_execution == record.execution_id:
                continue  # somebody wanted it to end
            found.append(record)
        return found

    async def _give_up(self, record: ExecutionRecord) -> None:
        over = recovery.given_up(record, now=self.clock.now())
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

    async def _find_run(self, mission: str, due: datetime) -> ExecutionRecord | None:
        records = await asyncio.to_thread(self.runner.backend.list, mission, limit=_SECOND_LOOK)
        return next((record for record in records if record.scheduled_for == due), None)

    # --- what goes on -------------------------------------------------------------------------------------------------

    def _on_tick(self, _happening: SchedulerTicked) -> None:
        self.health.ticked()
        self.systemd.alive()

    def _on_slot(self, happening: SlotDecided) -> None:
        self.metrics.next_slot(happening.mission, self.scheduler.next_due(happening.mission))
        log.info(
            "slot",
            mission=happening.mission,
            slot=rfc3339(happening.due),
            outcome=str(happening.outcome),
            reason=happening.reason,
        )

    def _on_run_ended(self, happening: RunEnded) -> None:
        loaded = self.catalog.get(happening.mission)
        if loaded is not None and happening.outcome is RunOutcome.SUCCESS:
            limit = self._freshness_limit(loaded)
            if limit is not None:
                self.metrics.freshness_limit.at(loaded.name).set(limit)
            if self.alerts is not None:
                self.alerts.freshness(loaded.name, limit)
        if happening.record is None and happening.error is not None:
            log.error(
                "run did not end well", mission=happening.mission, reason=happening.error, outcome=happening.outcome
            )

    def _on_trouble(self, happening: StateTroubled) -> None:
        log.error("nothing starts until state can be written again", reason=happening.message)
        self.health.concern("ledger", ("the state directory cannot be written: nothing starts",))

    def _on_quarantine(self, happening: FileQuarantined) -> None:
        log.warning("a damaged state file was set aside", kind=happening.kind, path=happening.path)

    async def _keep_house(self) -> None:
        """Once a minute what nobody tells us of; once an hour the records that are too old."""
        self._swept_at = self.clock.monotonic()
        while True:
            await self._look_at_disk()
            self._count_faults()
            if self.clock.monotonic() - self._swept_at >= SWEEP_SECONDS and not self.scheduler.clock_jumped:
                self._swept_at = self.clock.monotonic()
                await self._sweep()
            await self.clock.sleep(HOUSEKEEPING_SECONDS)

    async def _look_at_disk(self) -> None:
        try:
            size, low = await asyncio.to_thread(_disk_use, self.runner.directory.path)
        except OSError as error:
            self.health.concern("disk", (f"the state directory cannot be read: {error.strerror}",))
            return
        self.metrics.state_bytes.set(size)
        self.health.concern("disk", ("the disk of the state directory is nearly full",) if low else ())

    async def _sweep(self) -> None:
        for loaded in tuple(self.catalog.missions.values()):
            assert isinstance(loaded.plan, Twin)
            try:
                await asyncio.to_thread(self.runner.sweep, loaded.plan.manual)
            except (OSError, ReqonError) as error:
                problem = "old records could not be removed"
                log.error(problem, mission=loaded.name, reason=str(error))  # noqa: TRY400  # the disk's fault

    def _count_faults(self) -> None:
        directory = self.runner.directory
        self.metrics.faults(
            internal=self.runner.bus.failures + self.happenings.failures,
            state_writes=directory.write_errors,
            quarantined=directory.quarantined,
        )

    # --- the control socket -------------------------------------------------------------------------------------------

    def _commands(self) -> dict[str, Callable[..., Coroutine[Any, Any, Any]]]:
        return {
            "trigger": self._trigger,
            "pause": self._pause,
            "unpause": self._unpause,
            "cancel": self._cancel,
            "reload": self._reload,
            "status": self._status,
        }

    async def _trigger(
        self, mission: str, *, resume: bool = False, execution_id: str | None = None, force: bool = False
    ) -> Any:
        answer = self.dispatcher.trigger(mission, resume=resume, execution_id=execution_id, force=force)
        return {"mission": mission, "answer": answer}

    async def _pause(self, mission: str, *, seconds: float | None = None, reason: str = "") -> Any:
        self._known(mission)
        pause = await self.dispatcher.pause(mission, seconds=seconds, reason=reason)
        return {"mission": mission, "until": rfc3339(pause.until) if pause.until else None}

    async def _unpause(self, mission: str) -> Any:
        self._known(mission)
        return {"mission": mission, "wasPaused": await self.dispatcher.unpause(mission)}

    async def _cancel(self, mission: str) -> Any:
        self._known(mission)
        return {"mission": mission, "cancelled": await self.dispatcher.cancel(mission)}

    async def _reload(self) -> Any:
        reload = await self.reload(everything=True)
        return {
            "added": list(reload.added),
            "changed": {name: [old[:12], new[:12]] for name, (old, new) in reload.changed.items()},
            "removed": list(reload.removed),
            "refused": {path: [d.to_dict() for d in found] for path, found in self.catalog.broken.items()},
        }

    async def _status(self) -> Any:
        missions = {}
        for name, loaded in self.catalog.missions.items():
            due = self.scheduler.next_due(name)
            pause = self.dispatcher.pause_of(name)
            missions[name] = {
                "path": str(loaded.unit),
                "definition": missions_hash(loaded),
                "nextRun": rfc3339(due) if due else None,
                "running": [run.execution_id for run in self.dispatcher.running_of(name)],
                "queued": len(self.dispatcher.queued_of(name)),
                "paused": pause is not None,
            }
        return {
            "pid": os.getpid(),
            "phase": self.health.phase,
            "ports": list(self.ports),
            "missions": missions,
            "broken": {path: [d.to_dict() for d in found] for path, found in self.catalog.broken.items()},
            "degraded": list(self.health.reasons),
        }

    def _known(self, mission: str) -> None:
        if self.catalog.get(mission) is None:
            raise ReqonError(f"no mission '{mission}' is loaded", code="unknown-mission")


@asynccontextmanager
async def _task(work: Coroutine[Any, Any, None], *, end: Callable[[], object] | None = None) -> AsyncIterator[None]:
    """Work that lives as long as the block. At its end it is asked to end by `end` and waited for, else cancelled."""
    held: Exception | None = None
    async with asyncio.TaskGroup() as owner:
        task = owner.create_task(work)
        try:
            yield
        except (ReqonError, StoppedError) as error:
            held = error  # a group would wrap it, and whoever prints it would have to unwrap it
        finally:
            if end is None:
                task.cancel()
            else:
                end()
    if held is not None:
        raise held


def missions_hash(loaded: Loaded) -> str:
    """The short form of a definition's hash, as metrics and logs show it."""
    return loaded.plan.definition_hash[:12]


def _only(unit: Unit, names: tuple[str, ...]) -> Unit:
    missions = tuple(mission for mission in unit.missions if mission.name in names)
    return Unit(unit.path, unit.content_hash, missions, unit.diagnostics)


def _first_line(path: str, found: Iterable[Diagnostic]) -> str:
    first = next((d for d in found if d.severity == "error"), None)
    if first is None:
        return f"{path} cannot be loaded"
    return f"{first.span or path}: {first.message}"


def _disk_use(directory: Path) -> tuple[int, bool]:
    """Bytes below the directory, and whether its disk is nearly full."""
    size = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            try:
                size += (Path(folder) / name).lstat().st_size
            except OSError:
                continue
    usage = shutil.disk_usage(directory)
    return size, usage.free < min(_LOW_DISK_BYTES, usage.total * _LOW_DISK_SHARE)
