"""The daemon as a whole: what is started in which order, and stopped in the opposite one (spec/daemon.md 7).

One AsyncExitStack holds all parts; a part that fails ends the others the same way a signal does. It takes its settings,
clock and addresses, so that tests run it on port 0.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from reqon import collector, events
from reqon.clock import SYSTEM, Clock, rfc3339
from reqon.errors import ReqonError, SemanticError, StateError
from reqon.lang.loader import no_such_path
from reqon.runner import Runner, RunnerSettings
from reqon.running.settings import checkpoint_seconds
from reqon.state.records import Trigger
from reqon.values import Record
from reqon.webhooks.server import DEFAULT_PORT, WebhookServer
from reqon_daemon.aftermath import Aftermath
from reqon_daemon.alarm import Alarm, TimerAlarm
from reqon_daemon.alerts import Alerts
from reqon_daemon.catalog import Catalog, Reload
from reqon_daemon.commands import Commands
from reqon_daemon.control import ControlServer
from reqon_daemon.dispatcher import Dispatcher, Limits
from reqon_daemon.exposition import Exposition, Listen, Page
from reqon_daemon.happenings import (
    FileQuarantined,
    Happenings,
    RunEnded,
    RunOutcome,
    SchedulerTicked,
    SlotDecided,
    StateRecovered,
    StateTroubled,
)
from reqon_daemon.health import Health
from reqon_daemon.heartbeat import Heartbeat
from reqon_daemon.housekeeping import Housekeeping
from reqon_daemon.ledger import Ledger
from reqon_daemon.metrics import Metrics
from reqon_daemon.obstacles import Obstacles
from reqon_daemon.orphans import Orphans
from reqon_daemon.outbox import Sender
from reqon_daemon.plans import Planner, documents_of, options_of
from reqon_daemon.roster import Roster
from reqon_daemon.runs import Job
from reqon_daemon.schedule import Scheduler
from reqon_daemon.sdnotify import Systemd
from reqon_daemon.settings import DaemonSettings
from reqon_daemon.targets import is_plain_text, parse_target
from reqon_daemon.watch import Watcher
from reqon_daemon.workers import Workers
from reqon_daemon.zones import system_zone

FLUSH_SECONDS = 5.0
AFTER_GRACE_SECONDS = 4.0
COMPILED_AT_ONCE = 200
_ONCE_TICK_SECONDS = 0.1
_LOOPBACK = ("127.0.0.1", "localhost", "::1")

# What the dispatcher needs to hear. Not all events: one that somebody listens to has to be built.
_RUN_EVENTS = (
    events.MissionStarted,
    events.ActionEnded,
    events.FetchCompleted,
    events.PageFetched,
    events.DataStored,
    events.CheckpointSaved,
    events.Progressed,
    events.WebhookReceived,
)

log = structlog.get_logger(__name__)


class StoppedError(Exception):
    """A signal came before the daemon was ready."""


@dataclass(slots=True, repr=False)
class Service:
    """One daemon. `serve` is its whole life; `ports` are its bound ones once `ready` is set."""

    settings: DaemonSettings
    clock: Clock = SYSTEM
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    systemd: Systemd = field(default_factory=Systemd)
    alarm: Callable[[float], Alarm] = TimerAlarm
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    ports: tuple[int, ...] = ()
    worst: int = 0  # with `once`: 3 when configuration stopped a run, 1 when one did not succeed, 2 for a broken file
    health: Health = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    happenings: Happenings = field(default_factory=Happenings)
    obstacles: Obstacles = field(default_factory=Obstacles)
    orphans: Orphans = field(default_factory=Orphans.of_this_process)
    runner: Runner = field(init=False)
    planner: Planner = field(init=False)
    catalog: Catalog = field(init=False)
    ledger: Ledger = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    scheduler: Scheduler = field(init=False)
    roster: Roster = field(init=False)
    aftermath: Aftermath = field(init=False)
    housekeeping: Housekeeping = field(init=False)
    workers: Workers | None = None
    watcher: Watcher | None = None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _stopped_at: float | None = None
    _reload_all: bool = False

    def __post_init__(self) -> None:
        settings = self.settings
        shared = RunnerSettings(
            state_directory=settings.state_dir,
            auth_file=settings.auth,
            store_config=settings.store_config,
            checkpoint_seconds=checkpoint_seconds(self.environment),
            retention_seconds=settings.state_retention,
            sweeps=settings.once,  # else housekeeping does, which hears when the clock has jumped
            state_store=settings.state_store,
            webhooks=_webhook_server(settings, self.clock),
            no_oas_cache=settings.no_oas_cache,
        )
        if settings.journal_max is not None:
            shared = replace(shared, journal_max_bytes=settings.journal_max)
        self.health = Health(self.clock)
        self.runner = Runner(shared, clock=self.clock, environment=self.environment)
        self.planner = Planner(
            self.runner,
            self.environment,
            skip=(settings.state_dir,),
            only=settings.mission,
            at_once=None if settings.once else COMPILED_AT_ONCE,
        )
        self.catalog = Catalog(
            settings.paths,
            load=self.planner.load,
            plan=self.planner.plan,
            expect=self.planner.expect,
            documents=documents_of,
            evaluate=options_of,
            skip=(settings.state_dir,),
            clock=self.clock,
            default_zone=system_zone(),
        )

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
        with suppress(StoppedError):
            async with AsyncExitStack() as stack:
                await self._start(stack)
                await self._stop.wait()
        log.info("stopped")

    async def once(self) -> None:
        """Run every scheduled mission once, now, deliver alerts, and end. `worst` is the exit code.

        Raises:
            StateError, ConfigurationError: exit 3.
            SemanticError: a mission's text is wrong, and there is no `keep_going`; exit 2.
        """
        with suppress(StoppedError):
            async with AsyncExitStack() as stack:
                await self._prepare(stack)
                self._refuse_broken()
                self.happenings.on(RunEnded, self._count_failure)
                self._queue_all()
                if not self.settings.no_resume:
                    await self.aftermath.resume()
                await self._start_dispatcher(stack)
                while not self._stop.is_set() and (self.dispatcher.running or self.dispatcher.queued):
                    await self._tick()
                if self.catalog.broken and not self.worst:
                    self.worst = SemanticError.exit_code

    # --- starting -----------------------------------------------------------------------------------------------------

    async def _start(self, stack: AsyncExitStack) -> None:
        await self._prepare(stack)
        self.health.phase = "recovering"
        if not self.settings.no_resume:
            await self.aftermath.resume()
        await self.scheduler.recover(self.aftermath.find_run)
        self._go_on()
        await self._start_dispatcher(stack)
        self.housekeeping = self._housekeeping()
        await stack.enter_async_context(_task(self.housekeeping.run()))
        if not self.settings.no_resume:
            await stack.enter_async_context(_task(self.aftermath.keep_watch()))
        until = asyncio.Event()
        await stack.enter_async_context(
            _task(self.scheduler.serve(until, self.alarm(self.settings.check_interval)), end=until.set)
        )
        await self._start_watching(stack)
        await self._start_control(stack)
        stack.callback(self._not_ready)
        self._go_on()
        self._say_ready()
        await stack.enter_async_context(_task(self._compile_rest()))

    async def _prepare(self, stack: AsyncExitStack) -> None:
        """The state directory, its lock, the ports, the missions, alerts: what `once` needs too."""
        for path in self.settings.paths:
            if not path.exists():
                raise no_such_path(path)
        await self._take_state(stack)
        for option, why in self.settings.without_effect.items():
            log.warning("an option has no effect", option=option, reason=why)
        self._go_on()
        self._bind(stack)
        self.ledger = Ledger(self.runner.directory, clock=self.clock, happenings=self.happenings)
        self._make_parts()
        await asyncio.to_thread(self.ledger.open)
        stack.callback(self.ledger.close)
        self._start_traces(stack)
        await self.aftermath.recover()
        await self._receive_webhooks()
        self._go_on()
        reload = await self.catalog.reload(settle=False)
        await self._start_telling(stack)
        self.roster.apply(reload)
        await self.aftermath.judge()
        self._go_on()

    async def _take_state(self, stack: AsyncExitStack) -> None:
        await asyncio.to_thread(self.runner.open)
        stack.push_async_callback(self.runner.close)
        lock = self.runner.directory.daemon_lock
        if not lock.take(note=str(os.getpid())):
            holder = lock.note()
            raise StateError(
                f"another daemon{f' (pid {holder})' if holder else ''} works with the state directory "
                f"{self.runner.directory.path}",
                hint="one daemon a directory: stop it, or give this one its own with --state-dir",
            )
        stack.callback(lock.release)
        self.health.lock_held = lambda: lock.stands

    async def _receive_webhooks(self) -> None:
        """Calls for interrupted executions are taken from here on, whether or when they are resumed."""
        await self.runner.start_webhooks()
        await self.runner.adopt_webhooks()

    def _bind(self, stack: AsyncExitStack) -> None:
        """The ports, early: a taken one must end us before anything else is done."""
        settings, health = self.settings, self.health.routes()
        listens = []
        if settings.metrics_port is not None:
            routes = {"/metrics": self._metrics_page, **health}
            listens.append(Listen("metrics", settings.metrics_host, settings.metrics_port, routes))
        if settings.health_port is not None and settings.health_port != (settings.metrics_port or None):
            listens.append(Listen("health", settings.metrics_host, settings.health_port, health))
        if not listens:
            return
        exposition = Exposition(listens)
        exposition.start()
        stack.callback(exposition.stop)
        self.ports = exposition.ports
        for listen, port in zip(listens, exposition.ports, strict=True):
            here = "this machine only; --metrics-host 0.0.0.0 lets others scrape"
            reach = here if listen.host in _LOOPBACK else "other machines too"
            log.info("listening", purpose=listen.purpose, url=f"http://{listen.host}:{port}", reachable_from=reach)

    def _metrics_page(self, headers: Mapping[str, str]) -> Page:
        if self.health.phase == "loading":
            return Page(b"loading\n", status=503)
        body, content_type = self.metrics.render(headers.get("accept", ""))
        return Page(body, content_type)

    def _make_parts(self) -> None:
        """Who does the work, and who listens. Metrics first: they are what one looks at when the others are wrong."""
        settings, bus, happenings = self.settings, self.runner.bus, self.happenings
        limits = Limits(max_running=settings.max_running, grace_seconds=settings.shutdown_grace)
        self.workers = self._make_workers()
        self.dispatcher = Dispatcher(
            self.planner.run if self.workers is None else self.workers.run,
            self.catalog,
            self.ledger,
            clock=self.clock,
            happenings=happenings,
            limits=limits,
            wake=self._wake,
        )
        self.scheduler = Scheduler(
            self.ledger,
            self.dispatcher,
            clock=self.clock,
            happenings=happenings,
            misfire_grace_seconds=settings.misfire_grace,
        )
        self.roster = Roster(
            catalog=self.catalog,
            scheduler=self.scheduler,
            ledger=self.ledger,
            metrics=self.metrics,
            health=self.health,
            happenings=happenings,
            alert_secret=settings.alert_secret,
            scheduled=not settings.once,
            clock=self.clock,
        )
        self.aftermath = Aftermath(
            runner=self.runner,
            catalog=self.catalog,
            ledger=self.ledger,
            dispatcher=self.dispatcher,
            metrics=self.metrics,
        )
        if self.workers is not None:
            self.workers.lost = self.aftermath.lost
        self.metrics.listen(bus)
        self.obstacles.listen(bus)
        self.metrics.observe(happenings)
        for kind in _RUN_EVENTS:
            bus.on(kind, self.dispatcher.observe)
        self.roster.observe(happenings)
        happenings.on(SchedulerTicked, self._on_tick)
        happenings.on(SlotDecided, self._on_slot)
        happenings.on(RunEnded, self._on_run_ended)
        happenings.on(StateTroubled, self._on_trouble)
        happenings.on(StateRecovered, lambda _: self.health.concern("ledger"))
        happenings.on(FileQuarantined, self._on_quarantine)

    def _start_traces(self, stack: AsyncExitStack) -> None:
        """Spans to the collector that REQON_OTEL_ENDPOINT names; what is queued at the end gets 5 s."""
        if self.environment.get("REQON_OTEL_ENDPOINT"):
            from reqon.observe.traces import trace  # noqa: PLC0415  # only where asked for

            exporter = trace(self.runner.bus, self.environment)
            if exporter is not None:
                stack.push_async_callback(lambda: asyncio.to_thread(exporter.shutdown, self._flush_seconds()))

    async def _start_telling(self, stack: AsyncExitStack) -> None:
        """Heartbeat and alerts. They end after the runs, of whose ends they tell."""
        settings = self.settings
        if settings.heartbeat_url is not None:
            heartbeat = Heartbeat(settings.heartbeat_url, self.health, self.clock)
            heartbeat.listen(self.runner.bus)
            await stack.enter_async_context(_task(heartbeat.run()))
            stack.push_async_callback(lambda: heartbeat.flush(self._flush_seconds()))
        if not settings.alert_on_failure:
            return
        targets = await asyncio.to_thread(self._targets)
        for url, target in zip(settings.alert_url, targets, strict=True):
            if is_plain_text(url):
                log.warning("alerts cross the network unencrypted", target=target.shown)
        if not targets:
            log.warning("alerts have no target and go to this log", hint="--alert-url URL, or [alerts] in reqon.toml")
        alerts = Alerts(
            self.runner.directory.alerts,
            targets,
            instance=settings.instance or socket.gethostname(),
            repeat_seconds=settings.alert_repeat,
            clock=self.clock,
            metrics=self.metrics,
            health=self.health,
            resume_options=settings.resume_options,
            set_aside=lambda path, reason: self.runner.directory.quarantine(path, reason, kind="alerts"),
        )
        await asyncio.to_thread(alerts.load)
        alerts.listen(self.runner.bus)
        alerts.observe(self.happenings)
        self.roster.alerts = self.aftermath.alerts = alerts
        await stack.enter_async_context(_task(alerts.run()))
        stack.push_async_callback(self._flush, alerts)

    def _targets(self) -> list[Sender]:
        """Those of all missions. Blocks: what sends to some of them takes a second to import."""
        settings = self.settings
        return [parse_target(url, secret=settings.alert_secret, clock=self.clock) for url in settings.alert_url]

    def _make_workers(self) -> Workers | None:
        settings = self.settings
        if not settings.workers:
            return None
        return Workers(
            planner=self.planner,
            runner=self.runner,
            size=settings.workers,
            environment=self.environment,
            log_level="debug" if settings.debug or settings.verbose else None,
            memory_bytes=settings.worker_memory,
        )

    def _wake(self) -> None:
        self.runner.stop.wake()
        if self.workers is not None:
            self.workers.wake()

    async def _start_dispatcher(self, stack: AsyncExitStack) -> None:
        if self.workers is not None:
            await stack.enter_async_context(self.workers)
        until = asyncio.Event()
        await stack.enter_async_context(_task(self.dispatcher.serve(until), end=until.set))

    async def _start_watching(self, stack: AsyncExitStack) -> None:
        if self.settings.no_reload:
            return
        self.watcher = Watcher(self.settings.paths, clock=self.clock, scan_seconds=self.settings.reload_poll)
        self.watcher.start()
        stack.callback(self.watcher.stop)
        await stack.enter_async_context(_task(self._watch(self.watcher)))

    async def _start_control(self, stack: AsyncExitStack) -> None:
        commands = Commands(
            self.catalog,
            self.scheduler,
            self.dispatcher,
            self.ledger,
            lambda: self.reload(everything=True),
            self.obstacles,
        )

        async def status() -> Record:
            about = {"pid": os.getpid(), "phase": self.health.phase, "ports": list(self.ports)}
            return {**await commands.status(), **about, "degraded": list(self.health.reasons)}

        control = ControlServer(self.runner.directory.path, {**commands.table(), "status": status})
        await control.start()
        stack.push_async_callback(control.stop)

    def _housekeeping(self) -> Housekeeping:
        return Housekeeping(
            runner=self.runner,
            catalog=self.catalog,
            roster=self.roster,
            scheduler=self.scheduler,
            metrics=self.metrics,
            health=self.health,
            happenings=self.happenings,
        )

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise StoppedError

    def _say_ready(self) -> None:
        collector.settle()
        self.health.phase = "ready"
        missions = self.catalog.missions
        for name in missions:
            due = self.scheduler.next_due(name)
            log.info("next run", mission=name, due=rfc3339(due) if due else "when it is triggered")
        log.info(
            "ready",
            missions=len(missions),
            broken=len(self.catalog.broken),
            state_directory=str(self.runner.directory.path),
            zone=system_zone().name,
            pid=os.getpid(),
        )
        self.systemd.ready(f"{len(missions)} missions")
        self.ready.set()

    async def _compile_rest(self) -> None:
        """Of many missions the most: they are checked, and due times must not wait until all are compiled."""
        self.planner.all_at_once()
        if not self.planner.left:
            return
        async for reload in self.catalog.finish(self.planner.compile):
            self.roster.apply(reload)
        collector.settle()
        log.info("all missions are compiled", missions=len(self.catalog.missions))

    # --- stopping -----------------------------------------------------------------------------------------------------

    def _not_ready(self) -> None:
        self.health.phase = "draining"
        self._stopped_at = self._stopped_at or self.clock.monotonic()
        grace = self.settings.shutdown_grace
        self.systemd.stopping(within_seconds=grace + AFTER_GRACE_SECONDS)
        log.info("stopping", running=len(self.dispatcher.running), grace_seconds=grace)

    def _flush_seconds(self) -> float:
        """What is left of five seconds beside the grace, but at least one."""
        now = self.clock.monotonic()
        left = self.settings.shutdown_grace + AFTER_GRACE_SECONDS / 2 - (now - (self._stopped_at or now))
        return max(1.0, min(FLUSH_SECONDS, left))

    async def _flush(self, alerts: Alerts) -> None:
        if not await alerts.flush(self._flush_seconds()):
            log.warning("some alerts are not delivered; the next start goes on with them")

    # --- reloading ----------------------------------------------------------------------------------------------------

    async def reload(self, *, everything: bool = False) -> Reload:
        """Look at the files, and with `everything` at the credentials; put what changed into service.

        Raises:
            ConfigurationError: the credentials cannot be read; those in use stay.
        """
        if everything:
            self.runner.read_credentials()
            if self.workers is not None:
                self.workers.reread()
            self.runner.read_store_config()
        broken = self.catalog.broken
        reload = await self.catalog.reload(everything=everything)
        if reload or everything or self.catalog.broken != broken:
            self.systemd.reloading()
            self.roster.apply(reload)
            self.obstacles.forget(self.catalog.missions)
            self.systemd.ready(f"{len(self.catalog.missions)} missions")
        return reload

    async def _watch(self, watcher: Watcher) -> None:
        async for _ in watcher.looks():
            everything, self._reload_all = self._reload_all, False
            try:
                await self.reload(everything=everything)
            except ReqonError as error:
                log.error("reload refused", reason=error.message)  # noqa: TRY400  # the operator's to mend

    # --- once ---------------------------------------------------------------------------------------------------------

    def _refuse_broken(self) -> None:
        broken = self.catalog.broken
        if broken and not self.settings.keep_going:
            raise SemanticError.of([d for found in broken.values() for d in found if d.severity == "error"])

    def _queue_all(self) -> None:
        scheduled = [name for name, loaded in self.catalog.missions.items() if loaded.policy.schedule]
        self.dispatcher.submit(*(Job(mission=name, trigger=Trigger.SCHEDULE) for name in scheduled))

    async def _tick(self) -> None:
        if self.workers is not None:
            self.workers.tick()
        self.dispatcher.tick()
        self.happenings.emit(SchedulerTicked(at=self.clock.now()))
        with suppress(TimeoutError):
            async with asyncio.timeout(_ONCE_TICK_SECONDS):
                await self._stop.wait()

    def _count_failure(self, happening: RunEnded) -> None:
        if happening.outcome is not RunOutcome.SUCCESS:
            self.worst = max(self.worst, 3 if happening.error_type == "config" else 1)

    # --- what goes on -------------------------------------------------------------------------------------------------

    def _on_tick(self, _happening: SchedulerTicked) -> None:
        if self.workers is not None:
            self.workers.tick()
        self.orphans.look()
        self.health.ticked()
        self.systemd.alive()

    def _on_slot(self, happening: SlotDecided) -> None:
        log.info(
            "slot",
            mission=happening.mission,
            slot=rfc3339(happening.due),
            outcome=str(happening.outcome),
            reason=happening.reason,
        )

    def _on_run_ended(self, happening: RunEnded) -> None:
        """One line per execution."""
        say = log.error if happening.outcome is RunOutcome.FAILURE else log.info
        record = happening.record
        first = record.errors[0] if record and record.errors else None
        why = {"error": happening.error, "location": first and first.location, "hint": first and first.hint}
        say(
            "run ended",
            mission=happening.mission,
            execution_id=happening.execution_id,
            outcome=str(happening.outcome),
            duration_seconds=round(happening.duration_seconds, 3),
            items=record.items_processed if record else None,
            will_retry=happening.will_retry,
            **{name: text for name, text in why.items() if text},
        )

    def _on_trouble(self, happening: StateTroubled) -> None:
        log.error("nothing starts until state can be written again", reason=happening.message)
        self.health.concern("ledger", ("the state directory cannot be written: nothing starts",))

    def _on_quarantine(self, happening: FileQuarantined) -> None:
        log.warning("a damaged state file was set aside", kind=happening.kind, path=happening.path)


def _webhook_server(settings: DaemonSettings, clock: Clock) -> WebhookServer | None:
    if not settings.webhook:
        return None
    port = DEFAULT_PORT if settings.webhook_port is None else settings.webhook_port
    return WebhookServer(host=settings.webhook_host, port=port, url=settings.webhook_url, clock=clock)


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
